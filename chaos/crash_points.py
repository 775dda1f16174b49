"""Exact crash points: every write, sync, truncation, removal and rename of five store stories, killed one by one with strace."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping

from chaos.results import Points
from chaos.site import package_folder

SCENARIOS = ("fresh", "replay", "clean-start", "manifest-after-clean", "recover")
WHAT = "system call killed"
WITHIN = 3600.0


def missing() -> str:
    """What this machine lacks."""
    return "" if shutil.which("strace") else "strace is not installed (scripts/chaos --install-tools)"


def walk(
    scenario: str, rng: random.Random, most: int | None = None, environment: Mapping[str, str] | None = None
) -> Points:
    """Hit all points of a scenario, or `most` of them drawn at random."""
    command = [sys.executable, "-P", "-m", "chaos.crash_walk", scenario, str(rng.random()), str(most or 0)]
    given = {**os.environ, **(environment or {})}
    given["PYTHONPATH"] = os.pathsep.join(filter(None, (given.get("PYTHONPATH", ""), str(package_folder()))))
    began = time.monotonic()
    done = subprocess.run(
        command, env=given, cwd=package_folder(), capture_output=True, text=True, timeout=WITHIN, check=False
    )
    if done.returncode != 0:
        return Points(WHAT, scenario, 0, (f"the walk itself failed: {done.stderr[-2000:]}",))
    said = json.loads(done.stdout.splitlines()[-1])
    return Points(WHAT, scenario, said["points"], tuple(said["violations"]), round(time.monotonic() - began, 1))

"""Power cuts, replayed: a life's writes and syncs as strace saw them, and the files as a disk would hold that kept only what was synced."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping

from chaos.results import Points
from chaos.site import package_folder

WHAT = "power cut, replayed"


def missing() -> str:
    """What this machine lacks."""
    return "" if shutil.which("strace") else "strace is not installed (scripts/chaos --install-tools)"


def cut(scenario: str, environment: Mapping[str, str] | None = None) -> Points:
    """Cut the power after every system call of a store life that writes or syncs."""
    command = [sys.executable, "-P", "-m", "chaos.power_walk", scenario]
    given = {**os.environ, **(environment or {})}
    given["PYTHONPATH"] = os.pathsep.join(filter(None, (given.get("PYTHONPATH", ""), str(package_folder()))))
    began = time.monotonic()
    done = subprocess.run(
        command, env=given, cwd=package_folder(), capture_output=True, text=True, timeout=1800, check=False
    )
    if done.returncode != 0:
        return Points(WHAT, scenario, 0, (f"the walk itself failed: {done.stderr[-2000:]}",))
    said = json.loads(done.stdout.splitlines()[-1])
    return Points(WHAT, scenario, said["points"], tuple(said["violations"]), round(time.monotonic() - began, 1))

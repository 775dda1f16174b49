"""Runs a walk over the exact points of a store life, in a process of its own, and reads what it found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from chaos.results import Points
from chaos.site import package_folder

WITHIN = 3600.0


def walked(
    what: str, module: str, scenario: str, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Points:
    """What the walk says of a scenario; that it failed itself is a violation as well, since nothing was shown."""
    command = [sys.executable, "-P", "-m", module, scenario, *arguments]
    given = {**os.environ, **(environment or {})}
    given["PYTHONPATH"] = os.pathsep.join(filter(None, (given.get("PYTHONPATH", ""), str(package_folder()))))
    began = time.monotonic()
    done = subprocess.run(
        command, env=given, cwd=package_folder(), capture_output=True, text=True, timeout=WITHIN, check=False
    )
    if done.returncode != 0:
        return Points(what, scenario, 0, (f"the walk itself failed: {done.stderr[-2000:]}",))
    said = json.loads(done.stdout.splitlines()[-1])
    return Points(what, scenario, said["points"], tuple(said["violations"]), round(time.monotonic() - began, 1))

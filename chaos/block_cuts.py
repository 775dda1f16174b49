"""Power cuts of a block device under a store life: a logging disk of nbdkit, ext4 on it, and the disk rebuilt at its records."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from chaos.results import Points
from chaos.walks import walked

WHAT = "power cut of a block device"
_TOOLS = ("nbdkit", "nbdfuse", "mkfs.ext4")


def missing() -> str:
    """What this machine lacks."""
    if os.geteuid() != 0:
        return "mounting a disk of its own needs root"
    if lacking := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return f"{', '.join(lacking)} not installed (scripts/chaos --install-tools)"
    if not Path("/dev/fuse").exists() or not Path("/dev/loop-control").exists():
        return "this machine has no /dev/fuse or no loop devices"
    return ""


def cut(scenario: str, seed: str, most: int | None = None, environment: Mapping[str, str] | None = None) -> Points:
    """Cut the power at all records of the disk's log, or at `most` of them drawn with the seed."""
    return walked(WHAT, "chaos.block_walk", scenario, (seed, str(most or 0)), environment)

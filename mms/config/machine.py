"""What this machine lets the server use: cores (of its control group, not of the host) and GPUs; small reads of /proc and /sys."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

_GPU = re.compile(r"nvidia[0-9]+")


def available_cores(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """How many cores this process may keep busy: the affinity mask, lowered by the quota of its control groups; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for quota in _quotas(proc, cgroups) if quota > 0]
    return max(1, min(cores, *(math.ceil(quota) for quota in quotas))) if quotas else max(1, cores)


def available_gpus(devices: Path = Path("/dev")) -> int:
    """How many NVIDIA GPUs this process can see; a container sees only those that it was given."""
    try:
        return sum(1 for entry in devices.iterdir() if _GPU.fullmatch(entry.name))
    except OSError:
        return 0


def _quotas(proc: Path, cgroups: Path) -> list[float]:
    """The quotas, in cores, of this process's control groups and of all above them, in both versions of the interface."""
    found = []
    for line in _read(proc / "self" / "cgroup").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        unified = number == "0" and not controllers
        if not unified and "cpu" not in controllers.split(","):
            continue
        root = cgroups if unified else cgroups / "cpu"
        here = root / path.lstrip("/")
        for folder in (here, *(parent for parent in here.parents if parent == root or root in parent.parents)):
            found.append(_unified_quota(folder) if unified else _legacy_quota(folder))
    # In a container the path may be the host's, which is not to be seen from inside: the root then carries the quota.
    return [*found, _unified_quota(cgroups), _legacy_quota(cgroups / "cpu")]


def _unified_quota(folder: Path) -> float:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else 0.0


def _legacy_quota(folder: Path) -> float:
    quota, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else 0.0


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""

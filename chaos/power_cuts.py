"""Power cuts, replayed: a life's writes and syncs as strace saw them, and the files as a disk would hold that kept only what was synced."""

from __future__ import annotations

from collections.abc import Mapping

from chaos.crash_points import missing
from chaos.results import Points
from chaos.walks import walked

__all__ = ["WHAT", "cut", "missing"]

WHAT = "power cut, replayed"


def cut(scenario: str, environment: Mapping[str, str] | None = None) -> Points:
    """Cut the power after every system call of a store life that writes or syncs."""
    return walked(WHAT, "chaos.power_walk", scenario, (), environment)

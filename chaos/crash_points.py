"""Exact crash points: every write, sync, truncation, removal and rename of five store stories, killed one by one with strace."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping

from chaos.results import Points
from chaos.walks import walked

SCENARIOS = ("fresh", "replay", "clean-start", "manifest-after-clean", "recover")
WHAT = "system call killed"


def missing() -> str:
    """What this machine lacks."""
    return "" if shutil.which("strace") else "strace is not installed (scripts/chaos --install-tools)"


def walk(
    scenario: str, rng: random.Random, most: int | None = None, environment: Mapping[str, str] | None = None
) -> Points:
    """Hit all points of a scenario, or `most` of them drawn at random."""
    return walked(WHAT, "chaos.crash_walk", scenario, (str(rng.random()), str(most or 0)), environment)

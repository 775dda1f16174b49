"""The decision table at the top of the recovery page is the one that boots follow."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mms.records import (
    BootFacts,
    BootOptions,
    Decision,
    GenerationSummary,
    Incarnation,
    IncarnationState,
    ProcessIdentity,
    RecoveryMode,
)
from mms.recovery.decision import decide

PAGE = Path(__file__).resolve().parents[3] / "docs" / "recovery.md"
FLAGS = {"--clean-start": BootOptions(clean_start=True), "--recover": BootOptions(recover=True)}
MODES = {mode.value: BootOptions(recovery_mode=mode) for mode in RecoveryMode}
LAST = {"none": None, "crashed": IncarnationState.RUNNING, "stopped cleanly": IncarnationState.CLEAN}


def asked_for(cell: str) -> Callable[[str], bool]:
    """Which flag or mode the first column means."""
    named = set(re.findall(r"`([\w-]+)`", cell))
    return lambda asked: asked in named or cell == "any other"


def rows() -> list[tuple[Callable[[str], bool], str, Decision]]:
    table = re.findall(r"^\| (.+?) \| (.+?) \| ([A-Z]+) \| .+ \|$", PAGE.read_text(), re.MULTILINE)
    return [(asked_for(asked), last, Decision[decision]) for asked, last, decision in table]


def by_the_page(asked: str, last: str) -> Decision:
    return next(decision for fits, lasts, decision in rows() if fits(asked) and lasts in ("any", last))


def facts(last: IncarnationState | None) -> BootFacts:
    if last is None:
        return BootFacts(None)
    identity = ProcessIdentity("host", "boot", 1, 1, "1")
    incarnation = Incarnation(1, 1, last, Decision.MANIFEST, "", identity)
    return BootFacts(incarnation, (GenerationSummary(1, registrations=1, changes=True, abandoned=False),))


def test_the_page_has_a_row_for_everything() -> None:
    assert len(rows()) == 5


@pytest.mark.parametrize(("asked", "last"), list(itertools.product([*FLAGS, *MODES], LAST)))
def test_a_boot_does_what_the_first_row_that_fits_says(asked: str, last: str) -> None:
    assert decide(facts(LAST[last]), {**FLAGS, **MODES}[asked]).decision is by_the_page(asked, last)

"""A campaign in pieces: what is planned, what a file of results remembers, and what its report adds up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chaos import column
from chaos.catalogue import BY_NAME, FAULTS
from chaos.plan import Portion, Wish, planned
from chaos.report import Report
from chaos.results import Points, Results
from chaos.trial import Verdict

KILL = BY_NAME["kill"]


def test_every_fault_has_its_number_of_trials_and_every_number_its_fault() -> None:
    for fault in FAULTS:
        for store in (column.SQLITE, column.POSTGRES):
            assert (column.trials(fault.name, store) > 0) == (store in fault.stores), fault.name
    named = {name for row in column.COLUMN for name in row.trials}
    assert {name for name in named if not name.endswith("*")} <= set(BY_NAME)
    with pytest.raises(LookupError, match="no row"):
        column.trials("nothing", column.SQLITE)


def test_a_full_run_is_the_targets_column() -> None:
    portions = planned(FAULTS, Wish(seed=1))
    of_kill = [each for each in portions if each.fault == "kill"]
    assert sum(each.count for each in of_kill if each.store == "sqlite") == 300
    assert sum(each.count for each in of_kill if each.store == "postgres") == 100
    assert max(each.count for each in of_kill) == KILL.rounds


def test_a_run_that_is_cut_short_has_some_of_each() -> None:
    portions = planned(FAULTS, Wish(seed=1))
    tenth = portions[: len(portions) // 10]
    share = sum(each.fault == "kill" for each in tenth) / sum(each.fault == "kill" for each in portions)
    assert 0.05 < share < 0.2


def test_what_is_done_is_left_out_and_the_rest_keeps_together() -> None:
    done = {("kill", "sqlite", number) for number in (1, 2, 3, 7)}
    wish = Wish(seed=1, store="sqlite", trials=12)
    portions = sorted(planned([KILL], wish, done), key=lambda each: each.first)
    assert portions == [Portion("kill", "sqlite", 4, 3), Portion("kill", "sqlite", 8, 5)]


def test_a_single_trial_is_repeated_alone() -> None:
    assert planned([KILL], Wish(seed=1, store="postgres", trials=1, first=17)) == [Portion("kill", "postgres", 17, 1)]


def test_results_survive_an_interruption(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    first = Results.of(file, seed=42)
    first.add(Verdict("kill", "sqlite", 1, 42, 1.5, counts={"ok": 7}), "abc")
    first.add(Verdict("kill", "sqlite", 2, 42, 1.5, violation="lost"), "abc")
    first.add(Verdict("kill", "sqlite", 3, 42, 1.5, error="harness"), "abc")
    first.add_points(Points("system call killed", "fresh", 307, ("one",)), "abc")
    with file.open("a") as cut_off:
        cut_off.write('{"fault": "kill", "sto')
    again = Results.of(file, seed=5)
    assert again.seed == 42
    assert again.done == {("kill", "sqlite", 1), ("kill", "sqlite", 2)}  # an error of the harness is run again
    assert again.walked("system call killed", "fresh")
    assert not again.walked("power cut, replayed", "fresh")
    again.add(Verdict("kill", "sqlite", 3, 42, 1.0), "def")
    assert Results.of(file, seed=5).commits == ["abc", "def"]
    assert json.loads(file.read_text().splitlines()[-1])["outcome"] == "held"


def test_a_report_counts_violations_and_never_errors_of_the_harness() -> None:
    results = Results(seed=42)
    results.add(Verdict("kill", "sqlite", 1, 42, 1.5, counts={"ok": 7, "ready_ms": 900}), "abc")
    assert results.held
    results.add(Verdict("kill", "sqlite", 2, 42, 1.5, error="harness"), "abc")
    assert not results.held
    results.add(Verdict("kill", "sqlite", 2, 42, 1.5, counts={"ok": 2}), "abc")
    assert results.held  # it was run again
    results.add(Verdict("kill", "sqlite", 3, 42, 1.5, violation="lost", counts={"unknown": 1}), "abc")
    assert not results.held
    text = Report(results).as_markdown([KILL])
    assert f"| {KILL.what} | sqlite | 3 | 300 | 9 | 1 | 1 |" in text
    assert f"| ready_ms | {KILL.what} | sqlite | 1 | 900 | 900 |" in text
    assert "1 errors of the harness" in text
    assert "VIOLATION kill (sqlite, trial 3, abc): lost" in text

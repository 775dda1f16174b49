"""A trial's verdict: a broken promise and a broken harness are told apart, and both keep their evidence."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.catalogue import chosen
from chaos.database import Databases
from chaos.report import Points, Report
from chaos.trial import SQLITE, Fault, Trial, Verdict, run_trial
from chaos.violation import Violation


def verdict_of(run: object, tmp_path: Path) -> Verdict:
    fault = Fault("made-up", run, 1, 1)  # type: ignore[arg-type]
    return run_trial(fault, SQLITE, 3, 17, Databases(), tmp_path / "kept", command="repeat it")


def test_a_promise_that_held_leaves_nothing_behind(tmp_path: Path) -> None:
    folders = []
    verdict = verdict_of(lambda trial: folders.append(trial.folder), tmp_path)
    assert verdict.held
    assert not folders[0].exists()
    assert not (tmp_path / "kept").exists()


def test_a_violation_keeps_the_folder_and_the_command_that_repeats_it(tmp_path: Path) -> None:
    def run(trial: Trial) -> None:
        (trial.folder / "history.jsonl").write_text("a call\n")
        raise Violation("a change is lost")

    verdict = verdict_of(run, tmp_path)
    assert (verdict.held, verdict.violation, verdict.error) == (False, "a change is lost", "")
    kept = tmp_path / "kept" / "made-up-sqlite-17-3"
    assert (kept / "history.jsonl").read_text() == "a call\n"
    assert "a change is lost" in (kept / "violation.txt").read_text()
    assert "repeat it" in (kept / "violation.txt").read_text()


def test_a_failure_of_the_harness_is_no_violation_and_no_success(tmp_path: Path) -> None:
    def run(trial: Trial) -> None:
        raise KeyError("a slip")

    verdict = verdict_of(run, tmp_path)
    assert not verdict.held
    assert not verdict.violation
    assert "a slip" in verdict.error


def test_the_same_seed_and_number_draw_the_same(tmp_path: Path) -> None:
    drawn: list[float] = []
    for _ in range(2):
        verdict_of(lambda trial: drawn.append(trial.rng.random()), tmp_path)
    assert drawn[0] == drawn[1]


def test_the_report_shows_a_zero_beside_its_number_of_trials_and_fails_for_one_violation(tmp_path: Path) -> None:
    fault = Fault("made-up", lambda trial: None, 1, 1, (SQLITE,), what="an attack")
    report = Report(17)
    report.verdicts += [
        Verdict("made-up", SQLITE, number, 17, 1.0, counts={"ok": 5, "unknown": 1}) for number in (1, 2)
    ]
    assert report.held
    assert "| an attack | sqlite | 2 | 10 | 2 | 0 |" in report.as_markdown([fault])
    report.verdicts.append(Verdict("made-up", SQLITE, 3, 17, 1.0, violation="lost", evidence="there"))
    assert not report.held
    assert "| an attack | sqlite | 3 | 10 | 2 | 1 |" in report.as_markdown([fault])
    assert "VIOLATION made-up (sqlite, trial 3): lost" in report.as_markdown([fault])
    report.write(tmp_path, [fault])
    assert (tmp_path / "chaos.json").is_file()


def test_a_crash_point_that_was_not_survived_fails_the_report() -> None:
    assert not Report(1, points=[Points("fresh", 9, ("lost",))]).held


def test_faults_are_chosen_by_name_and_by_beginning() -> None:
    assert [fault.name for fault in chosen("kill")] == ["kill"]
    assert len(chosen("at-*")) > 60
    with pytest.raises(ValueError, match="there is no fault nothing"):
        chosen("nothing")

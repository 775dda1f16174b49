"""A trial's verdict: a broken promise and a broken harness are told apart, and both keep their evidence."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.catalogue import chosen
from chaos.column import SQLITE
from chaos.database import Databases
from chaos.results import Points, Results
from chaos.trial import Fault, Trial, Verdict, run_trials
from chaos.violation import Violation


def verdicts_of(run: object, tmp_path: Path, *, count: int = 1) -> list[Verdict]:
    fault = Fault("made-up", run, 1, 10)  # type: ignore[arg-type]
    return list(run_trials(fault, SQLITE, 3, count, 17, Databases(), tmp_path / "kept"))


def verdict_of(run: object, tmp_path: Path) -> Verdict:
    (verdict,) = verdicts_of(run, tmp_path)
    return verdict


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
    repeated = "scripts/chaos --seed 17 --faults made-up --store sqlite --first 3 --trials 1 --no-crash-points"
    assert repeated in (kept / "violation.txt").read_text()


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


def test_trials_that_share_a_history_have_a_verdict_each_and_end_with_the_first_that_is_broken(tmp_path: Path) -> None:
    drawn = []

    def run(trial: Trial) -> None:
        for rng in trial.rounds():
            drawn.append(rng.random())
            trial.figures["round_ms"] = len(drawn)
            if len(drawn) == 3:
                raise Violation("the third one broke")

    first, second, third = verdicts_of(run, tmp_path, count=5)
    assert [each.number for each in (first, second, third)] == [3, 4, 5]
    assert [each.held for each in (first, second, third)] == [True, True, False]
    assert second.counts == {"round_ms": 2}
    assert len(set(drawn)) == 3
    assert "--first 3 --trials 3" in (tmp_path / "kept" / "made-up-sqlite-17-5" / "violation.txt").read_text()


def test_what_breaks_after_the_last_round_belongs_to_the_last_trial(tmp_path: Path) -> None:
    def run(trial: Trial) -> None:
        for _ in trial.rounds():
            pass
        raise Violation("at the very end")

    first, second = verdicts_of(run, tmp_path, count=2)
    assert first.held
    assert (second.number, second.violation) == (4, "at the very end")


def test_rounds_that_were_not_made_are_no_trials(tmp_path: Path) -> None:
    verdicts = verdicts_of(lambda trial: None, tmp_path, count=3)
    assert "1 of 3 trials were made" in verdicts[-1].error


def test_a_crash_point_that_was_not_survived_fails_the_results() -> None:
    assert not Results(1, points=[("abc", Points("killed", "fresh", 9, ("lost",)))]).held


def test_faults_are_chosen_by_name_and_by_beginning() -> None:
    assert [fault.name for fault in chosen("kill")] == ["kill"]
    assert len(chosen("at-*")) > 60
    with pytest.raises(ValueError, match="there is no fault nothing"):
        chosen("nothing")

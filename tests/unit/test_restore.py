"""The plan of a restore: two sets of rows in, readable steps out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mms.commands.restore import diff
from mms.records import ModelKey, Origin, Registration, RegistrationState
from mms.restore import StepKind, document, restore_plan

ACTIVE, GONE = RegistrationState.ACTIVE, RegistrationState.UNREGISTERED


def row(name: str, seq: int = 1, *, state: RegistrationState = ACTIVE, version: str = "1", **more: Any) -> Registration:
    return Registration(ModelKey(name, version), Origin.API, state, url=name, sha256="a" * 64, seq=seq, **more)


def kinds(current: list[Registration], target: list[Registration]) -> dict[str, StepKind]:
    return {step.after.key.name: step.kind for step in restore_plan({r.key.name: r for r in current}, target)}


def test_a_model_that_does_not_change_has_no_step_whatever_its_state_and_number() -> None:
    now = row("a", 9, state=RegistrationState.QUARANTINED, charges=3, last_error="x")
    assert kinds([now], [row("a", 1)]) == {}


def test_each_difference_has_its_operation() -> None:
    current = [row("scaled", overrides={"min_workers": 2}), row("set", overrides={"batch_size": 2}), row("new")]
    target = [row("scaled", overrides={"min_workers": 1}), row("set"), row("gone")]
    assert kinds(current, target) == {
        "gone": StepKind.REGISTER,
        "new": StepKind.UNREGISTER,
        "scaled": StepKind.SCALE,
        "set": StepKind.OVERRIDE,
    }


def test_another_archive_handler_version_or_preloading_is_a_registration() -> None:
    for other in (
        replace(row("a"), sha256="b" * 64),
        replace(row("a"), handler="x:y"),
        row("a", version="2"),
        row("a", overrides={"preload_model": True}),
    ):
        assert kinds([other], [row("a")]) == {"a": StepKind.REGISTER}


def test_the_last_word_on_a_name_counts() -> None:
    assert kinds([row("a")], [row("a", 1), row("a", 2, version="2", state=GONE)]) == {"a": StepKind.UNREGISTER}


def test_a_step_reads_as_what_goes_and_what_comes() -> None:
    before = row("a", overrides={"batch_size": 8, "min_workers": 1})
    steps = restore_plan({"a": before}, [row("a", overrides={"batch_size": 4, "min_workers": 1})])
    (shown,) = document(steps, {}, applied=False, seq=7)["plan"]
    assert diff(shown) == ["  override a 1", "    - batch_size=8", "    + batch_size=4"]


def test_a_failed_step_carries_its_error() -> None:
    steps = restore_plan({}, [row("a"), row("b", 2)])
    plan = document(steps, {"b": "gone"}, applied=False, seq=0)["plan"]
    assert [step.get("error") for step in plan] == [None, "gone"]
    assert plan[0]["from"] is None

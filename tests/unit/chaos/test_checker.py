"""The judge of the chaos trials, shown histories made by hand: right ones it must let pass, wrong ones it must not."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.checker import End, check_boot, check_contents, check_repeats
from chaos.history import Call, Outcome, Verb

OK, UNKNOWN, CONFLICT, ABSENT, REFUSED = (
    Outcome.OK,
    Outcome.UNKNOWN,
    Outcome.CONFLICT,
    Outcome.ABSENT,
    Outcome.REFUSED,
)


class Told:
    """Writes calls of one model, one after the other in time unless said otherwise."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __call__(
        self,
        verb: Verb,
        outcome: Outcome = OK,
        *,
        model: str = "m",
        at: tuple[float, float] | None = None,
        repeats: int | None = None,
        replayed: bool = False,
        **values: Any,
    ) -> Told:
        number = len(self.calls) + 1
        start, end = at or (number, number + 0.5)
        key = f"key-{repeats or number}"
        call = Call(number, 0, "c", verb, model, values, key, repeats, start, end, outcome, 200, replayed)
        self.calls.append(call)
        return self

    def wrong(self, observed: dict[str, Any], before: dict[str, Any] | None = None) -> list[str]:
        return check_contents(before or {}, self.calls, observed)


def test_what_was_acknowledged_must_be_there() -> None:
    told = Told()(Verb.REGISTER, workers=1)(Verb.UPDATE, size=4, queue=9)
    assert told.wrong({"m": {"workers": 1, "size": 4, "queue": 9}}) == []
    assert told.wrong({})
    assert told.wrong({"m": {"workers": 1}})
    assert told.wrong({"m": {"workers": 1, "size": 4, "queue": 8}})


def test_what_nobody_asked_for_must_not_be_there() -> None:
    assert Told().wrong({"m": {}})
    assert Told()(Verb.REGISTER, REFUSED, workers=1).wrong({"m": {"workers": 1}})
    assert Told()(Verb.REGISTER, workers=1).wrong({"m": {"workers": 1, "size": 2}})


def test_what_was_unregistered_must_stay_away_until_it_is_registered_anew() -> None:
    told = Told()(Verb.REGISTER, size=1)(Verb.UNREGISTER)
    assert told.wrong({}) == []
    assert told.wrong({"m": {"size": 1}})
    assert told(Verb.REGISTER, size=2).wrong({"m": {"size": 2}}) == []
    assert told.wrong({"m": {"size": 1}})


def test_an_unknown_change_is_there_wholly_or_not_at_all() -> None:
    told = Told()(Verb.REGISTER, size=1)(Verb.UPDATE, UNKNOWN, size=2, queue=2)
    assert told.wrong({"m": {"size": 1}}) == []
    assert told.wrong({"m": {"size": 2, "queue": 2}}) == []
    assert told.wrong({"m": {"size": 2}})
    assert told.wrong({})


def test_an_unknown_change_may_come_late_but_not_before_it_was_asked_for() -> None:
    told = Told()(Verb.REGISTER, size=1)(Verb.UPDATE, UNKNOWN, size=2)(Verb.UPDATE, size=3)
    assert told.wrong({"m": {"size": 3}}) == []
    assert told.wrong({"m": {"size": 2}}) == []
    early = Told()(Verb.UNREGISTER, UNKNOWN)(Verb.REGISTER, size=1)(Verb.UNREGISTER)(Verb.UPDATE, UNKNOWN, size=9)
    assert early.wrong({"m": {"size": 9}})


def test_the_last_of_two_changes_that_followed_each_other_wins() -> None:
    told = Told()(Verb.REGISTER, size=1)(Verb.UPDATE, size=2)(Verb.UPDATE, size=3)
    assert told.wrong({"m": {"size": 3}}) == []
    assert told.wrong({"m": {"size": 2}})


def test_of_two_changes_at_the_same_time_either_may_win() -> None:
    told = Told()(Verb.REGISTER, size=1)(Verb.UPDATE, at=(3, 9), size=2)(Verb.UPDATE, at=(4, 8), size=3)
    assert told.wrong({"m": {"size": 2}}) == []
    assert told.wrong({"m": {"size": 3}}) == []
    assert told.wrong({"m": {"size": 1}})


def test_a_refusal_must_be_true() -> None:
    assert Told()(Verb.REGISTER, CONFLICT, size=1).wrong({})
    assert Told()(Verb.REGISTER, size=1)(Verb.UPDATE, ABSENT, size=2).wrong({"m": {"size": 1}})
    assert Told()(Verb.REGISTER, size=1)(Verb.REGISTER, CONFLICT, size=2).wrong({"m": {"size": 1}}) == []
    assert Told()(Verb.UNREGISTER).wrong({})


def test_an_override_that_was_taken_back_stays_away() -> None:
    told = Told()(Verb.REGISTER, size=1, queue=2)(Verb.REMOVE, size=None)
    assert told.wrong({"m": {"queue": 2}}) == []
    assert told.wrong({"m": {"size": 1, "queue": 2}})
    assert told(Verb.REMOVE, ABSENT, size=None).wrong({"m": {"queue": 2}}) == []
    assert told(Verb.REMOVE, ABSENT, queue=None).wrong({"m": {"queue": 2}})


def test_what_an_earlier_life_left_is_where_the_next_one_begins() -> None:
    assert Told().wrong({"m": {"size": 1}}, {"m": {"size": 1}}) == []
    assert Told().wrong({}, {"m": {"size": 1}})
    assert Told()(Verb.UPDATE, size=2).wrong({"m": {"size": 2, "queue": 3}}, {"m": {"size": 1, "queue": 3}}) == []


def test_a_repeated_call_has_one_effect() -> None:
    told = Told()(Verb.REGISTER, size=1)(Verb.UPDATE, UNKNOWN, size=2)
    replayed = Told()(Verb.UPDATE, OK, repeats=2, replayed=True, size=2).calls
    anew = Told()(Verb.UPDATE, OK, repeats=2, size=2).calls
    assert check_repeats({}, told.calls, {"m": {"size": 2}}, replayed) == []
    assert check_repeats({}, told.calls, {"m": {"size": 1}}, replayed)
    assert check_repeats({}, told.calls, {"m": {"size": 1}}, anew) == []
    assert check_repeats({}, told.calls, {"m": {"size": 2}}, anew)


def test_a_change_of_unknown_outcome_may_happen_after_its_caller_was_told_so() -> None:
    told = Told()(Verb.REGISTER)(Verb.UPDATE, UNKNOWN, size=5)(Verb.REMOVE, ABSENT, size=None)(Verb.UPDATE, OK, size=7)
    replayed = Told()(Verb.UPDATE, OK, repeats=2, replayed=True, size=5).calls
    assert told.wrong({"m": {"size": 7}}) == []
    assert check_repeats({}, told.calls, {"m": {"size": 7}}, replayed) == []


def test_a_repetition_of_a_repetition_may_tell_of_an_earlier_life() -> None:
    told = Told()(Verb.UNREGISTER, UNKNOWN, repeats=7)
    replayed = Told()(Verb.UNREGISTER, OK, repeats=1, replayed=True).calls
    assert check_repeats({}, told.calls, {}, replayed) == []


def recovery(decision: str, state: str | None, reason: str, *, epoch: int = 2) -> dict[str, Any]:
    previous = None if state is None else {"epoch": epoch - 1, "state": state}
    return {"incarnation": epoch, "previous": previous, "decision": decision, "reason": reason}


CRASHED = "the last server stopped while running, without the clean-shutdown mark"
CLEAN = "the last server stopped cleanly: the configured start-up models are loaded"


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (End(ready=True), recovery("REPLAY", "running", CRASHED)),
        (End(ready=True, asked=True, exit_code=0), recovery("MANIFEST", "clean", CLEAN)),
        (End(ready=True, asked=True, hurried=True), recovery("REPLAY", "stopping", CRASHED)),
        (End(ready=False, asked=True, exit_code=0, booting=True), recovery("REPLAY", "booting", CRASHED)),
        (None, recovery("MANIFEST", None, "no server has used this store before", epoch=1)),
    ],
)
def test_a_right_boot_passes(end: End | None, said: dict[str, Any]) -> None:
    assert check_boot(end, said, said["incarnation"] - 1) == []


@pytest.mark.parametrize(
    ("end", "said", "last_epoch"),
    [
        (End(ready=True), recovery("MANIFEST", "running", CRASHED), 1),
        (End(ready=True), recovery("REPLAY", "running", CLEAN), 1),
        (End(ready=True), recovery("MANIFEST", "clean", CLEAN), 1),
        (End(ready=True, asked=True, exit_code=0), recovery("REPLAY", "stopping", CRASHED), 1),
        (End(ready=False, asked=True, exit_code=0, booting=True), recovery("MANIFEST", "clean", CLEAN), 1),
        (End(ready=True), recovery("REPLAY", "running", CRASHED), 2),
        (End(ready=True), recovery("MANIFEST", None, "no server has used this store before", epoch=2), 1),
        (None, recovery("REPLAY", "running", CRASHED), 0),
    ],
)
def test_a_wrong_boot_does_not(end: End | None, said: dict[str, Any], last_epoch: int) -> None:
    assert check_boot(end, said, last_epoch)

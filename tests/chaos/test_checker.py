"""The judge of a history: what it accepts and what it does not."""

from __future__ import annotations

from dataclasses import replace

from chaos.checker import check_contents, check_repeats
from chaos.history import Call, Outcome, Verb

REGISTER = Call(1, 1, "a", Verb.REGISTER, "m", {"x": 1}, key="k1", invoked=0, returned=1, outcome=Outcome.OK)
UPDATE = Call(
    2, 1, "a", Verb.UPDATE, "m", {"q": 5}, key="k2", invoked=2, returned=3, outcome=Outcome.UNKNOWN, status=500
)
NO_OVERRIDE = Call(3, 1, "b", Verb.REMOVE, "m", {"q": None}, key="k3", invoked=4, returned=5, outcome=Outcome.ABSENT)


def repeated(call: Call, *, replayed: bool) -> Call:
    """The same call again, in the next life."""
    return replace(call, number=9, life=2, repeats=call.number, outcome=Outcome.OK, replayed=replayed, status=200)


def test_what_was_acknowledged_must_be_there_and_what_was_refused_must_not() -> None:
    assert check_contents({}, [REGISTER], {"m": {"x": 1}}) == []
    assert check_contents({}, [REGISTER], {})
    refused = replace(REGISTER, outcome=Outcome.REFUSED)
    assert check_contents({}, [refused], {}) == []
    assert check_contents({}, [refused], {"m": {"x": 1}})


def test_what_nobody_knows_is_there_wholly_or_not_at_all() -> None:
    two = replace(UPDATE, values={"q": 5, "r": 6})
    assert check_contents({}, [REGISTER, two], {"m": {"x": 1}}) == []
    assert check_contents({}, [REGISTER, two], {"m": {"x": 1, "q": 5, "r": 6}}) == []
    assert check_contents({}, [REGISTER, two], {"m": {"x": 1, "q": 5}})


def test_an_order_respects_the_times_of_what_was_answered() -> None:
    update = replace(UPDATE, outcome=Outcome.OK)
    later = replace(update, number=4, values={"q": 7}, invoked=6, returned=7)
    assert check_contents({}, [REGISTER, update, later], {"m": {"x": 1, "q": 7}}) == []
    assert check_contents({}, [REGISTER, update, later], {"m": {"x": 1, "q": 5}})


def test_a_change_of_unknown_outcome_may_happen_after_its_caller_was_told_so() -> None:
    later = replace(UPDATE, number=4, key="k4", values={"q": 7}, invoked=6, returned=7, outcome=Outcome.OK)
    calls, observed = [REGISTER, UPDATE, NO_OVERRIDE, later], {"m": {"x": 1, "q": 7}}
    assert check_contents({}, calls, observed) == []
    assert check_repeats({}, calls, observed, [repeated(UPDATE, replayed=True)]) == []


def test_a_repetition_must_be_answered_as_the_state_says() -> None:
    calls = [REGISTER, UPDATE]
    assert check_repeats({}, calls, {"m": {"x": 1, "q": 5}}, [repeated(UPDATE, replayed=True)]) == []
    assert check_repeats({}, calls, {"m": {"x": 1}}, [repeated(UPDATE, replayed=True)])
    assert check_repeats({}, calls, {"m": {"x": 1}}, [repeated(UPDATE, replayed=False)]) == []
    assert check_repeats({}, calls, {"m": {"x": 1, "q": 5}}, [repeated(UPDATE, replayed=False)])

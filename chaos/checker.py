"""Judges a history by what the restarted server says; knows nothing else, reads no database and asks nobody.

A model's state is None (not registered) or its overrides. Calls of one life are explained by putting them into an order
that respects their times and in which every answer is true; calls of unknown outcome may be in it or not, but whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chaos.history import Call, Outcome, Verb

Settings = Mapping[str, Any]
State = Settings | None
States = Mapping[str, State]
"""Model name to its state; a name that is missing is not registered."""

_Frozen = frozenset[tuple[str, Any]] | None


@dataclass(frozen=True, slots=True)
class End:
    """How a life ended, as far as its killer knows. `ready` is whether it had said so before the end was asked for."""

    ready: bool
    asked: bool = False  # SIGTERM or SIGINT was sent before it ended
    exit_code: int | None = None  # None: killed
    hurried: bool = False  # a second signal followed
    booting: bool = False  # it certainly ended before its boot did


def check_contents(before: States, calls: Sequence[Call], observed: States) -> list[str]:
    """What cannot be explained of the observed states, model by model; empty where all can."""
    found = []
    names = sorted({*before, *observed, *(call.model for call in calls)})
    for name in names:
        of_model = [call for call in calls if call.model == name and call.verb is not Verb.PREDICT]
        if not explained(before.get(name), of_model, observed.get(name)):
            found.append(_unexplained(name, before.get(name), of_model, observed.get(name)))
    return found


def check_repeats(before: States, calls: Sequence[Call], observed: States, repeats: Iterable[Call]) -> list[str]:
    """A repeated call has one effect: answered from the store where it had happened, anew where it had not."""
    found = []
    by_number = {call.number: call for call in calls}
    for repeat in repeats:
        first = by_number.get(repeat.repeats or 0)
        if first is None or first.repeats is not None or repeat.outcome in (Outcome.UNKNOWN, Outcome.REFUSED):
            continue  # what was itself a repetition may have happened in an earlier life
        happened = repeat.replayed and repeat.outcome is Outcome.OK
        others = [call for call in calls if call.model == first.model and call.number != first.number]
        # It may have happened at any moment after it was asked for, also when its caller had long been told that nobody knows.
        forced = [*others, replace(first, outcome=Outcome.OK, returned=None)] if happened else others
        forced = [call for call in forced if call.verb is not Verb.PREDICT]
        if not explained(before.get(first.model), forced, observed.get(first.model)):
            said = "had happened" if happened else "had not happened"
            found.append(
                f"call {first.number} ({first.verb} {first.model} {dict(first.values)}), repeated with its key, was "
                f"answered as if it {said}; the restarted server's state says otherwise: {observed.get(first.model)}"
            )
    return found


def check_boot(end: End | None, recovery: Mapping[str, Any], last_epoch: int) -> list[str]:
    """The boot decision and its reason, for a boot without flags; `end` None: no server used this store before."""
    found = []
    previous, decision, reason = recovery["previous"], recovery["decision"], recovery["reason"]
    if recovery["incarnation"] <= last_epoch:
        found.append(f"the epoch did not grow: {recovery['incarnation']} after {last_epoch}")
    if end is None and previous is not None:
        found.append(f"a fresh store knows an earlier life: {previous}")
    if end is not None and last_epoch and (previous is None or previous["epoch"] < last_epoch):
        found.append(f"the life of epoch {last_epoch} is forgotten: previous is {previous}")
    state = None if previous is None else previous["state"]
    wanted = "MANIFEST" if state in (None, "clean") else "REPLAY"
    if decision != wanted:
        found.append(f"after a life that ended {state or 'never'} the decision was {decision}, not {wanted}")
    phrases = {None: "no server has used this store", "clean": "stopped cleanly"}
    phrase = phrases.get(state, "without the clean-shutdown mark")
    if phrase not in reason and not (state == "booting" and "told to stop while booting" in reason):
        found.append(f"the reason does not say what happened ({phrase}): {reason}")
    if end is not None and state == "clean" and not end.asked:
        found.append("a life that was killed without being asked to stop carries the clean mark")
    if end is not None and end.booting and state == "clean":
        found.append("a life that was stopped while booting carries the clean mark")
    if end is not None and end.exit_code == 0 and end.ready and not end.hurried and state != "clean":
        found.append(f"a life that stopped cleanly (exit 0) carries no clean mark, but the state {state}")
    return found


def explained(before: State, calls: Sequence[Call], after: State) -> bool:
    """Whether some order of the calls leads from one state to the other and makes every answer true."""
    counting = [call for call in calls if call.outcome is not Outcome.REFUSED and not _told_again(call)]
    must = frozenset(call.number for call in counting if call.outcome not in (Outcome.UNKNOWN, Outcome.RUNNING))
    return _search(counting, must, _frozen(before), _frozen(after))


def _search(calls: Sequence[Call], must: frozenset[int], before: _Frozen, after: _Frozen) -> bool:
    seen: set[tuple[frozenset[int], _Frozen]] = set()
    todo: list[tuple[frozenset[int], _Frozen]] = [(frozenset(), before)]
    while todo:
        done, state = todo.pop()
        if (done, state) in seen:
            continue
        seen.add((done, state))
        if state == after and must <= done:
            return True
        left = [call for call in calls if call.number not in done]
        first_end = min((call.returned for call in left if call.number in must and call.returned), default=float("inf"))
        for call in left:
            if call.invoked <= first_end:
                possible, following = _applied(call, state)
                if possible:
                    todo.append((done | {call.number}, following))
    return False


def _applied(call: Call, state: _Frozen) -> tuple[bool, _Frozen]:
    """Whether the call may have been answered so in that state, and the state that it leaves."""
    if call.outcome is Outcome.CONFLICT:
        return state is not None, state
    if call.outcome is Outcome.ABSENT:
        gone = state is None or (call.verb is Verb.REMOVE and not set(dict(state)) & set(call.values))
        return gone, state
    if call.verb is Verb.REGISTER:
        return state is None, _frozen(call.values)
    if state is None:
        return False, None
    if call.verb is Verb.UNREGISTER:
        return True, None
    if call.verb is Verb.REMOVE:
        (option,) = call.values
        return option in dict(state), frozenset((name, value) for name, value in state if name != option)
    return True, _frozen({**dict(state), **call.values})


def _told_again(call: Call) -> bool:
    """An answer from the store: its effect belongs to the call that it repeats."""
    return call.replayed


def _frozen(state: State) -> _Frozen:
    return None if state is None else frozenset(state.items())


def _unexplained(name: str, before: State, calls: Sequence[Call], observed: State) -> str:
    story = "; ".join(f"{call.number} {call.verb} {dict(call.values)} {call.outcome}" for call in calls[-12:])
    return f"model {name}: from {before} no order of its calls leads to {observed}. The last calls: {story or 'none'}"

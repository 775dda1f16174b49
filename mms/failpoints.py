"""Named places at which a test may kill, delay or fail the server; each with what must hold after a crash there.

`MMS_FAILPOINTS=NAME=ACTION[,NAME=ACTION...]` arms them, ACTION being `kill` (SIGKILL to this process), `sleep:SECONDS`
or `raise`; `@N` behind an action means the Nth time that the place is reached (default: the first, and for `sleep` and
`raise` every time). Without the variable, `reached` is a function that does nothing.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

VARIABLE = "MMS_FAILPOINTS"


class FailpointReached(Exception):
    """What an armed `raise` raises: a defect as far as the server can tell."""


class Holds(StrEnum):
    """What the next plain boot must find after a crash at a place."""

    NO_TRACE = "the boot never happened: the next one decides as this one did"
    REPEATED = "the boot is visible and dirty: the next one replays the generation that this one chose"
    ABSENT = "the change never happened"
    PRESENT = "the change holds"
    DIRTY = "the stop did not count: the next boot replays"
    CLEAN = "the stop was clean: the next boot is a manifest boot"
    SAME = "nothing that anyone asked for differs"


@dataclass(frozen=True, slots=True)
class Failpoint:
    """One place: where it is, and what holds after a crash there. `kind` says which operation passes it."""

    name: str
    kind: str
    holds: Holds
    where: str


def _of_commit(name: str, kind: str, what: str, before: Holds, after: Holds) -> tuple[Failpoint, ...]:
    """The three places of a durable transaction: it is one commit that decides."""
    return (
        Failpoint(f"{name}.before_commit", kind, before, f"{what}: written, COMMIT not yet sent"),
        Failpoint(f"{name}.after_commit", kind, after, f"{what}: committed, the witness is not yet told"),
        Failpoint(f"{name}.after_witness", kind, after, f"{what}: committed and witnessed"),
    )


TABLE: tuple[Failpoint, ...] = (
    # a boot
    Failpoint("boot.before_claim", "boot", Holds.NO_TRACE, "the store is open, locked and verified"),
    *_of_commit("claim", "boot", "the claim", Holds.NO_TRACE, Holds.REPEATED),
    Failpoint("boot.claimed", "boot", Holds.REPEATED, "before what older lives left behind is swept"),
    Failpoint("boot.swept", "boot", Holds.REPEATED, "before the engine and the ports open"),
    Failpoint("boot.listening", "boot", Holds.REPEATED, "the ports are open, the plan is not made"),
    Failpoint("boot.planned", "boot", Holds.REPEATED, "before the first model is loaded"),
    Failpoint("attempt.opened", "replay", Holds.REPEATED, "the attempt to load a model is committed"),
    Failpoint("replay.before_load", "replay", Holds.REPEATED, "the load of a model is about to begin"),
    Failpoint("replay.loaded", "replay", Holds.REPEATED, "a model is loaded, its outcome not recorded"),
    Failpoint("boot.replayed", "boot", Holds.REPEATED, "every model has its outcome, RUNNING is not written"),
    *_of_commit("running", "boot", "the step to RUNNING", Holds.REPEATED, Holds.REPEATED),
    # a change
    Failpoint("change.checked", "change", Holds.ABSENT, "the wish is checked, nothing is written"),
    *_of_commit("begin", "change", "the change", Holds.ABSENT, Holds.PRESENT),
    Failpoint("change.begun", "change", Holds.PRESENT, "durable, not applied"),
    Failpoint("register.loaded", "register", Holds.PRESENT, "the workers are up, predictions do not reach them yet"),
    Failpoint("register.published", "register", Holds.PRESENT, "in service, the outcome not recorded"),
    Failpoint("update.configured", "update", Holds.PRESENT, "the settings are in force, the outcome not recorded"),
    Failpoint("unregister.withdrawn", "unregister", Holds.PRESENT, "predictions do not reach it any more, it drains"),
    Failpoint("unregister.closed", "unregister", Holds.PRESENT, "its workers are gone, the outcome not recorded"),
    Failpoint("register.failed", "failure", Holds.ABSENT, "the load failed, the compensation is not written"),
    *_of_commit("finish", "change", "the outcome", Holds.PRESENT, Holds.PRESENT),
    Failpoint("change.answering", "change", Holds.PRESENT, "all is recorded, the answer is not sent"),
    # upkeep
    *_of_commit("pack", "upkeep", "older journal entries, packed into a segment", Holds.SAME, Holds.SAME),
    # a stop
    Failpoint("stop.begun", "stop", Holds.DIRTY, "the signal has come, nothing is written"),
    *_of_commit("stopping", "stop", "the step to STOPPING", Holds.DIRTY, Holds.DIRTY),
    Failpoint("stop.drained", "stop", Holds.DIRTY, "what was accepted is answered, workers are still there"),
    Failpoint("stop.workers_gone", "stop", Holds.DIRTY, "before the clean mark"),
    *_of_commit("clean", "stop", "the clean mark", Holds.DIRTY, Holds.CLEAN),
    Failpoint("stop.marked", "stop", Holds.CLEAN, "before the store is closed"),
)
"""Every place; the crash tests walk this table."""

BY_NAME: Mapping[str, Failpoint] = {place.name: place for place in TABLE}


@dataclass(frozen=True, slots=True)
class _Action:
    verb: str
    seconds: float
    at: int  # 0: every time

    @classmethod
    def parse(cls, text: str) -> _Action:
        verb, _, count = text.partition("@")
        verb, _, seconds = verb.partition(":")
        if verb not in ("kill", "sleep", "raise"):
            raise ValueError(f"{VARIABLE}: expected kill, sleep:SECONDS or raise, got {text}")
        default = 1 if verb == "kill" else 0
        return cls(verb, float(seconds or 0), int(count) if count else default)


def arm(spec: str) -> Callable[[str], None]:
    """The function behind `reached` for a value of the variable. Raises ValueError for a name that is not in the table."""
    if not spec:
        return _nothing
    actions: dict[str, _Action] = {}
    for each in spec.split(","):
        name, _, action = each.partition("=")
        if name not in BY_NAME:
            raise ValueError(f"{VARIABLE}: there is no failpoint {name}")
        actions[name] = _Action.parse(action)
    times: Counter[str] = Counter()

    def act(name: str) -> None:
        action = actions.get(name)
        if action is None:
            return
        times[name] += 1
        if action.at not in (0, times[name]):
            return
        if action.verb == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action.verb == "sleep":
            time.sleep(action.seconds)
        else:
            raise FailpointReached(name)

    return act


def armed(operation: str) -> bool:
    """Whether a test waits for a place of a rare operation, whose name begins so."""
    return any(each.startswith(f"{operation}.") for each in os.environ.get(VARIABLE, "").split(","))


def _nothing(name: str) -> None:
    pass


reached: Callable[[str], None] = arm(os.environ.get(VARIABLE, ""))
"""Say that a named place is reached; decided once, when the process starts."""

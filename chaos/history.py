"""What clients did and were told: every call as it began and as it ended, kept in memory and in a file that outlives a crash."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any


class Verb(StrEnum):
    """What a client asked for."""

    REGISTER = "register"
    UPDATE = "update"  # overrides, or scale
    REMOVE = "remove"  # takes one override back
    UNREGISTER = "unregister"
    PREDICT = "predict"


class Outcome(StrEnum):
    """What the client may conclude from the answer."""

    RUNNING = "running"  # no answer yet
    OK = "ok"
    CONFLICT = "conflict"  # refused: it is registered already
    ABSENT = "absent"  # refused: there is no such model, or no such override
    REFUSED = "refused"  # refused for a reason that says nothing of the model
    UNKNOWN = "unknown"  # it may or may not have happened


@dataclass(frozen=True, slots=True)
class Call:
    """One call. Times are seconds of the monotonic clock; `values` are option names of the settings route to their values."""

    number: int
    life: int
    client: str
    verb: Verb
    model: str
    values: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    repeats: int | None = None  # number of the call whose key it uses again
    invoked: float = 0.0
    returned: float | None = None
    outcome: Outcome = Outcome.RUNNING
    status: int = 0
    replayed: bool = False
    text: str = ""


class History:
    """Written by many threads; each line of the file is a call's beginning or its end."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("a", encoding="utf-8", buffering=1)
        self._lock = threading.Lock()
        self._calls: dict[int, Call] = {}
        self.life = 0

    def invoked(
        self,
        client: str,
        verb: Verb,
        model: str,
        values: Mapping[str, Any] | None = None,
        *,
        key: str = "",
        repeats: int | None = None,
    ) -> Call:
        """Note a call before its first byte is sent."""
        with self._lock:
            call = Call(
                len(self._calls) + 1, self.life, client, verb, model, values or {}, key, repeats, time.monotonic()
            )
            self._keep(call)
        return call

    def ended(self, call: Call, outcome: Outcome, *, status: int = 0, replayed: bool = False, text: str = "") -> Call:
        """Note what came of it."""
        done = replace(
            call, returned=time.monotonic(), outcome=outcome, status=status, replayed=replayed, text=text[:300]
        )
        with self._lock:
            self._keep(done)
        return done

    def _keep(self, call: Call) -> None:
        self._calls[call.number] = call
        self._file.write(json.dumps(asdict(call)) + "\n")

    def calls(self, life: int | None = None) -> list[Call]:
        """The calls of one life, or of all, in the order in which they began."""
        with self._lock:
            return [call for call in self._calls.values() if life is None or call.life == life]

    def counts(self) -> dict[str, int]:
        """Number of changes for each outcome; predictions are not counted."""
        return counted(call for call in self.calls() if call.key)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def counted(calls: Iterable[Call]) -> dict[str, int]:
    """Number of calls for each outcome."""
    found: dict[str, int] = {}
    for call in calls:
        found[call.outcome.value] = found.get(call.outcome.value, 0) + 1
    return found

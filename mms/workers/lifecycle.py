"""Worker lifecycle as pure tables: which state may follow which, and how long to wait before the next try; no process, no clock."""

from __future__ import annotations

from mms.workers.engine import WorkerState

_S = WorkerState

TRANSITIONS: dict[WorkerState, frozenset[WorkerState]] = {
    _S.STARTING: frozenset({_S.LOADING, _S.STOPPING, _S.DEAD}),
    _S.LOADING: frozenset({_S.READY, _S.STOPPING, _S.DEAD}),
    _S.READY: frozenset({_S.BUSY, _S.STOPPING, _S.DEAD}),
    _S.BUSY: frozenset({_S.READY, _S.STOPPING, _S.DEAD}),
    _S.STOPPING: frozenset({_S.DEAD}),
    _S.DEAD: frozenset(),
}
"""The only table of transitions; a worker that has ended never comes back, its replacement is a new worker."""

BACK_OFF_SECONDS = (0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597)
"""Fibonacci seconds; the first retry takes the second place, the last place is used for ever."""


class IllegalTransition(Exception):
    """A state was to follow another that it cannot follow: a defect of the caller."""


def advance(current: WorkerState, to: WorkerState) -> WorkerState:
    """Return `to` if it may follow `current`; raises IllegalTransition."""
    if to not in TRANSITIONS[current]:
        raise IllegalTransition(f"A worker cannot go from {current} to {to}.")
    return to


class BackOff:
    """How long to wait before a dead worker is replaced: grows with each failure, starts again after a successful load."""

    __slots__ = ("_failures",)

    def __init__(self) -> None:
        self._failures = 0

    @property
    def failures(self) -> int:
        """Failures since the last success."""
        return self._failures

    def failed(self) -> float:
        """Count one failure and return the seconds to wait before the next try."""
        self._failures += 1
        return float(BACK_OFF_SECONDS[min(self._failures, len(BACK_OFF_SECONDS) - 1)])

    def succeeded(self) -> None:
        """The model was loaded: the next failure waits the shortest time again."""
        self._failures = 0

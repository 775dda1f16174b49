"""When a batch leaves for a free worker: pure decisions about waiting; the time is an argument, there is no loop and no queue.

A full batch never waits, so nobody asks about one. For a batch that is not full while a worker is free, `Batching.hold`
says until when to wait. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

EARLY = 0.0005
"""Timers count in milliseconds: a moment that is nearer than this has come."""

STRICT_AT_FIRST = 32
"""Batches of a model that wait as MMS does, until there is something to learn from."""

ENOUGH_IN_VAIN = 4
"""Whole delays in a row that brought nobody: as much as there is to learn from."""


class BatchingMode(StrEnum):
    """The `batching` setting."""

    ADAPTIVE = "adaptive"
    STRICT = "strict"


class Batching(Protocol):
    """Decides how long a batch that is not full waits; one for each model, told what became of its decisions."""

    def configure(self, batch_size: int, max_batch_delay: int) -> None:
        """New settings (requests, milliseconds); they hold from the next decision on."""

    def hold(self, now: float, queued: int, first_arrived: float, outstanding: int) -> float:
        """Until when a batch of `queued` requests waits, 0.0 where it leaves now.

        `first_arrived` is when its oldest request came; `outstanding` counts it and everything that workers hold.
        Asked again at each arrival: the answer may change at any time before the moment that it named.
        """

    def left(self, now: float, queued: int) -> None:
        """A batch of `queued` requests left for a free worker, full or not."""

    def answered(self, rows: int, seconds: float, outstanding: int) -> None:
        """A batch of `rows` was answered `seconds` after its turn began; `outstanding` as it was just before that."""


class StrictBatching:
    """Waits as MMS does, but counts from the first request's arrival: full, or `max_batch_delay` is over."""

    __slots__ = ("_delay",)

    def __init__(self, batch_size: int, max_batch_delay: int) -> None:
        self.configure(batch_size, max_batch_delay)

    def configure(self, batch_size: int, max_batch_delay: int) -> None:
        """See `Batching`."""
        self._delay = max_batch_delay / 1000

    def hold(self, now: float, queued: int, first_arrived: float, outstanding: int) -> float:
        """See `Batching`."""
        until = first_arrived + self._delay
        return until if now < until - EARLY else 0.0

    def left(self, now: float, queued: int) -> None:
        """Nothing to learn."""

    def answered(self, rows: int, seconds: float, outstanding: int) -> None:
        """Nothing to learn."""


class HandlerCost:
    """What a call costs whatever its size (`fixed`), learnt from pairs of rows and seconds; old pairs fade.

    A straight line is fitted through the recent pairs. Where all had the same size there is no line: the last known
    share of the fixed part is kept, a half where nothing was ever known.
    """

    __slots__ = ("_n", "_nn", "_nt", "_share", "_t", "_weight")

    KEEP = 0.98
    LEAST_VARIANCE = 0.25

    def __init__(self) -> None:
        self._weight = self._n = self._t = self._nn = self._nt = 0.0
        self._share = 0.5

    def learn(self, rows: int, seconds: float) -> None:
        """Take in one answered batch."""
        keep = self.KEEP
        if self._weight:
            # One pause of the machine must not pass for the handler's own cost.
            seconds = min(seconds, 8 * self._t / self._weight)
        self._weight = self._weight * keep + 1.0
        self._n = self._n * keep + rows
        self._t = self._t * keep + seconds
        self._nn = self._nn * keep + rows * rows
        self._nt = self._nt * keep + rows * seconds

    @property
    def fixed(self) -> float:
        """Seconds that one call fewer would save; 0.0 while nothing is known."""
        if not self._weight:
            return 0.0
        rows, seconds = self._n / self._weight, self._t / self._weight
        variance = self._nn / self._weight - rows * rows
        if variance >= self.LEAST_VARIANCE and seconds > 0.0:
            slope = (self._nt / self._weight - rows * seconds) / variance
            self._share = min(max(1.0 - slope * rows / seconds, 0.0), 1.0)
        return seconds * self._share


class AdaptiveBatching:
    """Waits only while waiting pays; `max_batch_delay` is the most that a request waits, not a tax on each.

    A free worker that waits stands still, so a wait may cost what it saves: the fixed cost of the call that the newcomers
    would otherwise need. Whether newcomers are to be expected shows in how many requests were lately outstanding at once:
    clients that have just been answered come back. With one client at a time nothing is ever missing, so nothing waits.
    Each wait teaches how long the missing ones take; where they take longer than they save, only a probe waits, at every
    second, fourth, ... chance, up to `RAREST_PROBE`.

    Before it has learnt anything it waits as MMS does: the first `strict_for` batches leave when they are full or the delay
    is over, or fewer where one wait after the other is in vain.
    """

    __slots__ = (
        "_cost",
        "_delay",
        "_hold_started",
        "_hold_until",
        "_hold_with",
        "_peak",
        "_peak_before",
        "_probe_after",
        "_probe_gap",
        "_return_time",
        "_seen",
        "_strict_for",
        "_vain",
    )

    PEAK_WINDOW = 32
    RAREST_PROBE = 256
    SHORTEST_HOLD = 0.001  # a timer cannot do less

    def __init__(self, batch_size: int, max_batch_delay: int, strict_for: int = 0) -> None:
        self._strict_for = strict_for
        self._vain = 0
        self._cost = HandlerCost()
        self._peak = self._peak_before = 0
        self._seen = 0
        self._return_time = -1.0
        self._probe_gap = 1
        self._probe_after = 0
        self._hold_until = self._hold_started = 0.0
        self._hold_with = 0
        self.configure(batch_size, max_batch_delay)

    def configure(self, batch_size: int, max_batch_delay: int) -> None:
        """See `Batching`."""
        self._delay = max_batch_delay / 1000

    @property
    def expected(self) -> int:
        """How many requests were lately outstanding at once."""
        return max(self._peak, self._peak_before)

    def hold(self, now: float, queued: int, first_arrived: float, outstanding: int) -> float:
        """See `Batching`."""
        limit = first_arrived + self._delay
        if self._strict_for > 0:
            if now >= limit - EARLY:
                return 0.0
            self._hold_with = self._hold_with or queued
            return limit
        if self._hold_until:
            if outstanding >= self.expected:
                return 0.0
            until = min(self._hold_until, limit)
            if now < until - EARLY:
                return until
            # They do not come: what is here is all that there is.
            self._peak = outstanding
            self._peak_before = 0
            return 0.0
        if outstanding >= self.expected or now >= limit - EARLY or not self._worth_a_wait():
            return 0.0
        self._hold_started = now
        self._hold_with = queued
        self._hold_until = min(limit, now + max(self._cost.fixed, self.SHORTEST_HOLD))
        return self._hold_until

    def _worth_a_wait(self) -> bool:
        """Whether the wait costs no more than the call that it saves; now and then True nevertheless, to learn."""
        if self._return_time <= self._cost.fixed:
            return True
        self._probe_after -= 1
        if self._probe_after > 0:
            return False
        self._probe_gap = min(self._probe_gap * 2, self.RAREST_PROBE)
        self._probe_after = self._probe_gap
        return True

    def left(self, now: float, queued: int) -> None:
        """See `Batching`."""
        if self._strict_for > 0:
            self._vain = self._vain + 1 if queued <= self._hold_with else 0
            if self._vain >= ENOUGH_IN_VAIN:
                self._strict_for = 0
            self._hold_with = 0
            return
        if not self._hold_until:
            return
        waited = now - self._hold_started
        if queued <= self._hold_with:
            # Nobody came, so this says nothing of how long they take but that it is longer.
            waited = max(2 * waited, self._return_time)
        known = self._return_time
        self._return_time = waited if known < 0.0 else known + 0.25 * (waited - known)
        if self._return_time <= self._cost.fixed:
            self._probe_gap = 1
            self._probe_after = 0
        self._hold_until = 0.0

    def answered(self, rows: int, seconds: float, outstanding: int) -> None:
        """See `Batching`."""
        self._strict_for -= 1
        self._cost.learn(rows, seconds)
        if outstanding > self._peak:
            self._peak = outstanding
        self._seen += 1
        if self._seen >= self.PEAK_WINDOW:
            self._seen = 0
            self._peak_before = self._peak
            self._peak = 0


def batching(mode: BatchingMode, batch_size: int, max_batch_delay: int) -> Batching:
    """The decisions of one model under the `batching` setting."""
    if mode is BatchingMode.STRICT:
        return StrictBatching(batch_size, max_batch_delay)
    return AdaptiveBatching(batch_size, max_batch_delay, strict_for=STRICT_AT_FIRST)

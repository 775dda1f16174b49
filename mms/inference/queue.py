"""The requests of one model that wait: in the order of their arrival, each for a limited time; what is no longer wanted ends here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from mms.errors import DeadlineExceeded, NoWorkerAvailable
from mms.inference.ending import Ending
from mms.inference.stats import ModelStats
from mms.request import InferenceRequest

PURGE_INTERVAL = 0.05  # seconds: how often a full queue may be searched for requests whose client has gone


class RequestQueue:
    """`waiting` is the queue itself, for the hot path to look at and append to; `patience` is how long one may wait in it.

    All requests have the same patience, so they expire in the order in which they came, and one timer is enough: whoever
    appends while there is no `timer` calls `watch`. `on_expired` is called after some may have.
    """

    __slots__ = (
        "_clock",
        "_ending",
        "_loop",
        "_model",
        "_next_purge",
        "_on_expired",
        "_stats",
        "patience",
        "timer",
        "waiting",
    )

    def __init__(
        self,
        model: str,
        stats: ModelStats,
        ending: Ending,
        *,
        clock: Callable[[], float],
        on_expired: Callable[[], None],
    ) -> None:
        self.waiting: deque[InferenceRequest] = deque()
        self.patience = 0.0
        self._model = model
        self._stats = stats
        self._ending = ending
        self._clock = clock
        self._on_expired = on_expired
        self._loop = asyncio.get_running_loop()
        self.timer: asyncio.TimerHandle | None = None
        self._next_purge = 0.0

    def put_back(self, requests: list[InferenceRequest]) -> None:
        """Give back, in their order, requests that no worker has begun."""
        self.waiting.extendleft(reversed(requests))
        self.watch()

    def take(self, size: int, now: float) -> list[InferenceRequest]:
        """The next `size` requests that are still wanted; the others end here and cost no worker anything."""
        waiting = self.waiting
        if waiting and waiting[0].arrived <= now - self.patience:
            self._drop_old(now)
        requests: list[InferenceRequest] = []
        while waiting and len(requests) < size:
            request = waiting.popleft()
            if request.cancelled:
                self._stats.cancelled += 1
            else:
                requests.append(request)
        return requests

    def purge(self) -> None:
        """Let requests go whose client has gone; seldom, since it looks at every one."""
        now = self._clock()
        if now < self._next_purge:
            return
        self._next_purge = now + PURGE_INTERVAL
        kept = [request for request in self.waiting if not request.cancelled]
        self._stats.cancelled += len(self.waiting) - len(kept)
        self.waiting.clear()
        self.waiting.extend(kept)

    def allow(self, patience: float) -> None:
        """A new patience, in seconds, also for those who wait already."""
        self.patience = patience
        self.watch()

    def drop(self, refusal: str) -> None:
        """No worker is there and none will come: end all."""
        dropped = list(self.waiting)
        self.waiting.clear()
        self._stats.dropped += self._ending.refuse(dropped, NoWorkerAvailable(refusal))

    def close(self) -> None:
        """Let go of the event loop."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def watch(self) -> None:
        """Set the timer to the deadline of the oldest; it is not moved when that one leaves, it only looks once too often then."""
        self.close()
        if self.waiting:
            delay = max(self.waiting[0].arrived + self.patience - self._clock(), 0.001)
            self.timer = self._loop.call_later(delay, self._time_is_over)

    def _time_is_over(self) -> None:
        self._drop_old(self._clock())
        self.watch()
        self._on_expired()

    def _drop_old(self, now: float) -> None:
        waiting = self.waiting
        since = now - self.patience
        old = []
        while waiting and (waiting[0].cancelled or waiting[0].arrived <= since):
            old.append(waiting.popleft())
        error = DeadlineExceeded(f"No worker of model {self._model} was free within {self.patience:g} seconds.")
        self._stats.expired += self._ending.refuse(old, error)

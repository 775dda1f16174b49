"""How long a worker may take over the oldest call in its hands: one timer, set seldom, that looks at the time when it goes off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Patience:
    """Calls `over` once a call has taken `seconds`, unless `waits` says that none is under way any more."""

    __slots__ = ("_loop", "_over", "_since", "_timer", "_waits", "seconds")

    def __init__(self, seconds: float, waits: Callable[[], bool], over: Callable[[], None]) -> None:
        self.seconds = seconds
        self._waits = waits
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """A call became the worker's task just now."""
        self._since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self.seconds, self._look)

    def configure(self, seconds: float) -> None:
        """Another time, which holds for the call that is under way as well."""
        if seconds != self.seconds:
            self.seconds = seconds
            if self._timer is not None:
                self._timer.cancel()
                self._look()

    def close(self) -> None:
        """Let go of the event loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if not self._waits():
            return
        left = self._since + self.seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._over()

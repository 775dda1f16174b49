"""The gate of management changes: open, closed for a reason, or shut for the stop; changes of one model pass one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mms.errors import ManagementReadOnly, ServerStopping

Result = TypeVar("Result")

RECOVERING = "The server is still recovering; management changes open when that is complete."


class Gate:
    """Closed until the boot is complete. A change that has passed runs to its end, even where the client that asked has gone."""

    def __init__(self) -> None:
        self._closed: str | None = RECOVERING
        self._stopping = False
        self._locks: dict[str, asyncio.Lock] = {}
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def open(self) -> None:
        """Let changes in: the boot is complete."""
        self._closed = None

    def close(self, reason: str) -> None:
        """Refuse changes from now on, for `reason`."""
        self._closed = reason

    async def pause(self, reason: str) -> None:
        """Refuse changes from now on, for `reason`, and wait until those in flight are settled."""
        self.close(reason)
        await self._idle.wait()

    def check(self) -> None:
        """Raise ServerStopping or ManagementReadOnly where no change may pass."""
        if self._stopping:
            raise ServerStopping("The server is stopping; no management change is accepted any more.")
        if self._closed is not None:
            raise ManagementReadOnly(self._closed)

    async def change(self, name: str, verb: Callable[[], Awaitable[Result]]) -> Result:
        """Run one change of one model, after those of the same model that came before it. Raises as `check` and `verb` do."""
        self.check()
        self._in_flight += 1
        self._idle.clear()
        return await asyncio.shield(asyncio.ensure_future(self._run(name, verb)))

    async def _run(self, name: str, verb: Callable[[], Awaitable[Result]]) -> Result:
        try:
            async with self.lock(name):
                return await verb()
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    def lock(self, name: str) -> asyncio.Lock:
        """What changes of that model hold."""
        return self._locks.setdefault(name, asyncio.Lock())

    async def drain(self) -> None:
        """Refuse further changes and wait until those in flight are settled: only then may the clean mark be written."""
        self._stopping = True
        await self._idle.wait()

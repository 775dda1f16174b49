"""The gate of management changes: open, closed for a reason, or shut for the stop; changes of one model pass one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from mms.errors import ManagementReadOnly, ServerStopping

Result = TypeVar("Result")

RECOVERING = "The server is still recovering; management changes open when that is complete."


class Gate:
    """Closed until the boot is complete. A change that has passed runs to its end, even where the client that asked has gone.

    Changes that come while the server is recovering wait for it, `patience` seconds at most: scripts that are written for MMS
    take an open port for a server that has started.
    """

    def __init__(self, patience: float = 0.0) -> None:
        self._patience = patience
        self._closed: str | None = RECOVERING
        self._stopping = False
        self._decided = asyncio.Event()  # set unless the gate is closed only until the server has recovered
        self._locks: dict[str, asyncio.Lock] = {}
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def open(self) -> None:
        """Let changes in: the boot is complete."""
        self._closed = None
        self._decided.set()

    def close(self, reason: str) -> None:
        """Refuse changes from now on, for `reason`."""
        self._closed = reason
        if reason == RECOVERING:
            self._decided.clear()
        else:
            self._decided.set()

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

    async def enter(self) -> None:
        """Wait while the server is recovering, as long as patience lasts; then as `check`."""
        if self._closed == RECOVERING and not self._stopping:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._decided.wait(), self._patience)
        self.check()

    async def change(self, name: str, verb: Callable[[], Awaitable[Result]]) -> Result:
        """Run one change of one model, after those of the same model that came before it. Raises as `enter` and `verb` do."""
        await self.enter()
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
        self._decided.set()
        await self._idle.wait()

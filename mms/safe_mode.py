"""Safe mode: everything is known, nothing is loaded, management is open; `resume` ends it by loading what was left out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mms.errors import ServerStopping
from mms.gate import RECOVERING, Gate
from mms.replay import Replay
from mms.status import ServerStatus

logger = logging.getLogger(__name__)


class SafeMode:
    """Of one boot; `begin` is called once the boot is complete. A server that is not in safe mode has nothing to resume."""

    def __init__(self, gate: Gate, status: ServerStatus, enter_running: Callable[[], Awaitable[bool]]) -> None:
        """`enter_running` steps the incarnation's row, since from then on the boot counts as finished."""
        self._gate = gate
        self._status = status
        self._enter_running = enter_running
        self._replay: Replay | None = None
        self._resuming: asyncio.Task[None] | None = None

    def begin(self, replay: Replay) -> None:
        """The boot is complete, in safe mode."""
        self._replay = replay

    async def resume(self) -> None:
        """Load what was left out and become an ordinary running server; returns once every model has its first outcome.

        Said again, it waits for the first one. Raises ManagementReadOnly while the server boots, ServerStopping.
        """
        self._gate.check()
        if self._replay is None:
            return
        if self._resuming is None:
            self._resuming = asyncio.create_task(self._run(self._replay))
        try:
            await asyncio.shield(self._resuming)
        except asyncio.CancelledError:
            if self._resuming.cancelled():
                raise ServerStopping("The server is stopping; the models are not loaded.") from None
            raise

    async def _run(self, replay: Replay) -> None:
        logger.warning("Leaving safe mode: the models are being loaded.")
        await self._gate.pause(RECOVERING)
        self._status.resuming()
        await replay.resume()
        self._replay = None
        await self._enter_running()
        self._status.complete()
        self._gate.open()
        logger.info("Safe mode is over after %.3f s.", self._status.recovered_in)

    async def close(self) -> None:
        """The server stops: end a resumption that is under way."""
        if self._resuming is not None:
            self._resuming.cancel()
            await asyncio.gather(self._resuming, return_exceptions=True)

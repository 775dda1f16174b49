"""How a life ends: not ready, accept no more, drain, stop the workers, and last of all, if all went well, the clean mark."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from mms.failpoints import reached
from mms.gate import Gate
from mms.inference.registry import Registry
from mms.life import Life
from mms.parts import Parts
from mms.records import IncarnationState, StoreHealth
from mms.safe_mode import SafeMode
from mms.status import ServerStatus
from mms.store.store import Store

logger = logging.getLogger(__name__)

EXIT_CLEAN = 0
EXIT_UNCLEAN = 1
EXIT_FENCED = 75


class Shutdown:
    """Stops what a server life started; each way out returns the exit code."""

    def __init__(
        self,
        store: Store,
        life: Life,
        parts: Parts,
        registry: Registry,
        gate: Gate,
        status: ServerStatus,
        safe_mode: SafeMode,
        *,
        drain_timeout: float,
    ) -> None:
        self._store = store
        self._life = life
        self._parts = parts
        self._registry = registry
        self._gate = gate
        self._status = status
        self._safe_mode = safe_mode
        self._drain_timeout = drain_timeout

    async def interrupt(self, boot: asyncio.Task[None], reason: str) -> int:
        """An orderly stop while booting: stays dirty, so the next boot repeats the decision; counts as no failed boot."""
        logger.info("Stopping while booting (%s); the next boot repeats the decision.", reason)
        self._status.stopping()
        boot.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await boot
        await self._life.interrupt_boot(reason)
        await self._gate.drain()  # changes that wait for the boot are refused
        await self._parts.listeners.close()
        await self._end_workers()
        await self._store.close()
        return EXIT_CLEAN

    async def run(self, reason: str, hurry: asyncio.Event) -> int:
        """An orderly stop of a server that runs; `hurry` (a second signal) gives up what is still to be drained."""
        logger.info("Stopping (%s).", reason)
        reached("stop.begun")
        fenced = self._store.health is StoreHealth.FENCED
        self._status.stopping()
        await self._safe_mode.close()
        settled = await self._drain(reason, hurry)
        reached("stop.drained")
        await self._end_workers()
        reached("stop.workers_gone")
        left = self._parts.state.api_registrations
        orderly = settled and not fenced and not hurry.is_set()
        clean = orderly and await self._life.enter(IncarnationState.CLEAN, reason)
        if not self._life.running:
            await self._life.interrupt_boot(reason)
        reached("stop.marked")
        if clean and left:
            logger.warning("%d API registrations will not return without --recover.", len(left))
        await self._store.close()
        logger.info("Model server stopped%s.", "" if clean else ", without the clean-shutdown mark")
        if fenced:
            return EXIT_FENCED
        return EXIT_CLEAN if clean or not self._life.running else EXIT_UNCLEAN

    async def _drain(self, reason: str, hurry: asyncio.Event) -> bool:
        """Finish what was accepted, within `drain_timeout`; True where every management change is settled."""
        deadline = asyncio.get_running_loop().time() + self._drain_timeout
        entered = self._life.running and await self._life.enter(IncarnationState.STOPPING, reason)
        await self._parts.listeners.stop_accepting()
        hurried = asyncio.create_task(hurry.wait())
        changes = asyncio.create_task(self._settle_changes())
        requests = asyncio.create_task(self._parts.inference.drain(self._drain_timeout))
        both = asyncio.gather(changes, requests, return_exceptions=True)
        await asyncio.wait((hurried, both), timeout=self._drain_timeout, return_when=asyncio.FIRST_COMPLETED)
        settled = changes.done() and not changes.cancelled() and changes.exception() is None
        for task in (hurried, both):
            task.cancel()
        if not hurry.is_set():  # answers that are on their way still reach their clients
            await self._parts.listeners.drain(max(0.0, deadline - asyncio.get_running_loop().time()))
        await self._parts.listeners.close()
        return entered and settled

    async def _settle_changes(self) -> None:
        """Every accepted management change has its outcome, and the store has recorded it."""
        await self._gate.drain()
        await self._parts.changes.close()
        await self._parts.state.flush()

    async def _end_workers(self) -> None:
        await self._registry.close()  # else the pools would replace the workers that the engine ends
        await self._parts.engine.close()

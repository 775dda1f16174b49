"""The states of this incarnation's row, one step at a time; a store that is away leaves it dirty, which is the safe side."""

from __future__ import annotations

import logging

from mms.errors import NotCommitted, OutcomeUnknown
from mms.records import IncarnationState
from mms.store.store import Store

logger = logging.getLogger(__name__)


class Life:
    """`running` is True once the store knows that the boot has finished: only then may the stop end in the clean mark."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.running = False

    async def enter(self, state: IncarnationState, reason: str = "") -> bool:
        """Step the row; False where the store did not take it."""
        try:
            await self._store.advance(state, reason)
        except (NotCommitted, OutcomeUnknown) as error:
            logger.warning("The state %s is not recorded: %s", state.value, error.message)
            return False
        return True

    async def enter_running(self) -> bool:
        """The boot has finished."""
        self.running = await self.enter(IncarnationState.RUNNING)
        return self.running

    async def interrupt_boot(self, reason: str) -> None:
        """The boot did not finish, by order and not by a crash."""
        try:
            await self._store.interrupt_boot(reason)
        except (NotCommitted, OutcomeUnknown) as error:
            logger.warning("The stop while booting is not recorded: %s", error.message)

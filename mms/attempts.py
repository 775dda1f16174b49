"""Load attempts: committed before a load and closed after it, so that whoever kills the server while loading is known by name."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mms.errors import NotCommitted, OutcomeUnknown
from mms.failpoints import reached
from mms.records import ModelKey
from mms.store.store import Store

logger = logging.getLogger(__name__)


class Attempts:
    """A store that is away must keep no model from being loaded: that load then goes without this guard."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def open(self, key: ModelKey, sha256: str) -> None:
        """The load of this archive begins now."""
        try:
            await self._store.open_attempts([(key, sha256)])
        except (NotCommitted, OutcomeUnknown) as lost:
            logger.warning("The attempt to load %s is not recorded: %s", key.name, lost.message)
        reached("attempt.opened")

    async def close(self, key: ModelKey) -> None:
        """The load has ended, well or badly."""
        try:
            await self._store.close_attempts([key])
        except (NotCommitted, OutcomeUnknown) as lost:
            logger.warning("The end of the attempt to load %s is not recorded: %s", key.name, lost.message)

    @asynccontextmanager
    async def around(self, key: ModelKey, sha256: str) -> AsyncIterator[None]:
        """Both, around one load."""
        await self.open(key, sha256)
        try:
            yield
        finally:
            await self.close(key)

"""Outcomes of durable changes that the store could not take yet; tried again until it does."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from mms.errors import NotCommitted, OutcomeUnknown
from mms.records import Begun, ChangeOutcome, Registration
from mms.store.store import Store

logger = logging.getLogger(__name__)


class _Outcome(NamedTuple):
    begun: Begun
    outcome: ChangeOutcome
    response: Mapping[str, Any]
    row: Registration | None


class Unsettled:
    """A short queue in memory. If the server dies first, the next boot finds these changes pending and settles them itself."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._outcomes: list[_Outcome] = []

    def __len__(self) -> int:
        return len(self._outcomes)

    def add(self, begun: Begun, outcome: ChangeOutcome, response: Mapping[str, Any], row: Registration | None) -> None:
        """Keep an outcome for the next `flush`."""
        self._outcomes.append(_Outcome(begun, outcome, response, row))

    async def flush(self) -> None:
        """Record what the store now takes, in order; stops at the first that it does not."""
        while self._outcomes:
            waiting = self._outcomes[0]
            try:
                await self._store.finish(waiting.begun, waiting.outcome, waiting.response, waiting.row)
            except (NotCommitted, OutcomeUnknown):
                return
            del self._outcomes[0]
            logger.info("The outcome of change %d is recorded now.", waiting.begun.seq)

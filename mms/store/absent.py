"""What stands in for a store that could not be opened, where the operator prefers a server without one: it refuses every change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from mms.errors import NotCommitted
from mms.records import (
    Begun,
    BootDecision,
    BootFacts,
    Caller,
    Change,
    ChangeOutcome,
    Decision,
    Incarnation,
    IncarnationState,
    JournalEntry,
    ModelKey,
    ProcessIdentity,
    Registration,
    Replayed,
    StoreHealth,
)
from mms.store.counts import StoreCounts
from mms.store.store import Store


class AbsentStore(Store):
    """`on_store_failure=manifest`: the boot is a manifest boot whatever was stored, nothing is written, nothing is acknowledged.

    It never comes back by itself: what the store holds is replayed by a boot that can read it.
    """

    def __init__(self, trouble: str) -> None:
        self._trouble = trouble

    def _refuse(self) -> NoReturn:
        raise NotCommitted(f"The server runs without its store (on_store_failure=manifest): {self._trouble}")

    async def claim(
        self, decide: Callable[[BootFacts], BootDecision], identity: ProcessIdentity, flags: Sequence[str]
    ) -> tuple[Incarnation, BootDecision, BootFacts]:
        """A manifest boot that leaves no trace."""
        reason = f"on_store_failure=manifest, and the store cannot be used: {self._trouble}"
        decision = BootDecision(Decision.MANIFEST, reason, warnings=("Management is read-only until a restart.",))
        incarnation = Incarnation(
            0, 0, IncarnationState.BOOTING, Decision.MANIFEST, reason, identity, tuple(flags), datetime.now(UTC)
        )
        return incarnation, decision, BootFacts(None)

    async def advance(self, state: IncarnationState, reason: str = "") -> None:
        """There is no row to mark."""

    async def interrupt_boot(self, reason: str) -> None:
        """Nothing was claimed."""

    async def snapshot(self, generation: int | None = None) -> list[Registration]:
        """Nothing is known."""
        return []

    async def answered(self, caller: Caller) -> Replayed | None:
        """Nothing is known."""
        return None

    async def begin(self, change: Change) -> Begun | Replayed:
        """Refused."""
        self._refuse()

    async def finish(
        self, begun: Begun, outcome: ChangeOutcome, response: Mapping[str, Any], row: Registration | None = None
    ) -> None:
        """Refused."""
        self._refuse()

    async def pending(self) -> list[Begun]:
        """Nothing is known."""
        return []

    async def settle(self, row: Registration) -> None:
        """There is no row to settle."""

    async def open_attempts(self, models: Sequence[tuple[ModelKey, str]]) -> None:
        """There is nowhere to count them."""

    async def close_attempts(self, keys: Sequence[ModelKey]) -> None:
        """Nothing was opened."""

    async def heartbeat(self, requests_seen: Mapping[ModelKey, int]) -> None:
        """There is no row to touch."""

    async def pack(self) -> None:
        """There is nothing to pack."""

    async def journal(self, *, model: str | None = None, after: int = 0, limit: int = 100) -> list[JournalEntry]:
        """Refused: an empty journal would be a lie."""
        self._refuse()

    async def snapshot_at(
        self, *, seq: int | None = None, generation: int | None = None, before: datetime | None = None
    ) -> list[Registration]:
        """Refused."""
        self._refuse()

    async def incarnations(self, limit: int = 100) -> list[Incarnation]:
        """Refused."""
        self._refuse()

    async def referenced_digests(self) -> set[str]:
        """Refused: what is named is not known, so nothing may be swept."""
        self._refuse()

    async def backup(self, target: Path) -> None:
        """Refused."""
        self._refuse()

    @property
    def health(self) -> StoreHealth:
        """For the whole of this life."""
        return StoreHealth.UNREACHABLE

    @property
    def counts(self) -> StoreCounts:
        """None."""
        return StoreCounts()

    @property
    def epoch(self) -> int:
        """No epoch was taken."""
        return 0

    @property
    def generation(self) -> int:
        """None is current."""
        return 0

    @property
    def store_uuid(self) -> str:
        """No store, no identity; the name only keeps this life's leftovers apart."""
        return "no-store"

    @property
    def last_seq(self) -> int:
        """None."""
        return 0

    async def close(self) -> None:
        """Nothing is open."""

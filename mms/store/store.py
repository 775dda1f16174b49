"""The one door to the store: async verbs, each run whole on the store's own thread; no SQL here, no decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mms.records import (
    Begun,
    BootDecision,
    BootFacts,
    Caller,
    Change,
    ChangeOutcome,
    Incarnation,
    IncarnationState,
    JournalEntry,
    ModelKey,
    ProcessIdentity,
    Registration,
    Replayed,
    StoreHealth,
)


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Where the store is and how long to wait for it (seconds)."""

    url: str  # sqlite:///ABSOLUTE or postgresql://...
    server_id: str
    data_dir: Path
    witness_path: Path | None = None
    boot_store_timeout: float = 60.0
    store_lock_wait: float = 0.0
    store_auto_upgrade: bool = False
    accept_store_loss: int | None = None
    clean_start: bool = False  # a damaged file is moved aside, never deleted


class Store:
    """An open, locked, verified store. Every change of it carries this life's epoch; a stale one raises Fenced."""

    @classmethod
    async def open(cls, config: StoreConfig) -> Store:
        """Connect (retrying up to `boot_store_timeout`), take the lock, check or upgrade the schema, verify witness and rows.

        Raises StoreUnreachable, StoreInUse, StoreDamaged, StoreNewer, StoreOutdated.
        """
        raise NotImplementedError

    async def claim(
        self, decide: Callable[[BootFacts], BootDecision], identity: ProcessIdentity, flags: Sequence[str]
    ) -> tuple[Incarnation, BootDecision, BootFacts]:
        """One transaction: read the facts, decide, take the next epoch, write this incarnation's row as BOOTING; then the witness."""
        raise NotImplementedError

    async def advance(self, state: IncarnationState, reason: str = "") -> None:
        """Guarded step of this incarnation's own row (BOOTING to RUNNING to STOPPING to CLEAN; any other raises ValueError)."""
        raise NotImplementedError

    async def interrupt_boot(self, reason: str) -> None:
        """An orderly stop while BOOTING: stays dirty, closes the open load attempts, does not count as a failed boot."""
        raise NotImplementedError

    async def snapshot(self, generation: int | None = None) -> list[Registration]:
        """The rows of a generation (default: the current one), tombstones included, by seq."""
        raise NotImplementedError

    async def begin(self, change: Change) -> Begun | Replayed:
        """First transaction of a change {epoch, idempotency key, row, journal entry pending}, then the witness: now it is durable.

        Raises NotCommitted, OutcomeUnknown, Fenced, IdempotencyMismatch, StillRunning.
        """
        raise NotImplementedError

    async def answered(self, caller: Caller) -> Replayed | None:
        """The stored answer to an earlier, finished request with the caller's Idempotency-Key, or None; writes nothing.

        Raises IdempotencyMismatch (another digest) and StillRunning (begun in this life and not finished).
        """
        raise NotImplementedError

    async def pending(self) -> list[Begun]:
        """Changes of the current generation that an earlier life left without an outcome, by seq."""
        raise NotImplementedError

    async def finish(
        self,
        begun: Begun,
        outcome: ChangeOutcome,
        response: Mapping[str, Any],
        row: Registration | None = None,
    ) -> None:
        """Second transaction {outcome, stored answer, row}; FAILED puts the row back as it was before the change, tombstone included.

        `row`, where given, is the row to leave behind instead (state ACTIVE, version or digest learnt while loading, ...).
        """
        raise NotImplementedError

    async def settle(self, row: Registration) -> None:
        """Record what replay found out about a row (state, last_error) without a journal entry; the wish itself is unchanged."""
        raise NotImplementedError

    async def open_attempts(self, models: Sequence[tuple[ModelKey, str]]) -> None:
        """Commit that these loads (key, sha256) begin: before the risk, since the counter must outlive it."""
        raise NotImplementedError

    async def close_attempts(self, keys: Sequence[ModelKey]) -> None:
        """These loads ended, well or badly."""
        raise NotImplementedError

    async def heartbeat(self, requests_seen: Mapping[ModelKey, int]) -> None:
        """Every 5 s: heartbeat_at, and how many requests each model has seen. Never raises: sets `health`."""
        raise NotImplementedError

    async def journal(self, *, model: str | None = None, after: int = 0, limit: int = 100) -> list[JournalEntry]:
        """Entries with seq > after, ascending."""
        raise NotImplementedError

    async def snapshot_at(
        self, *, seq: int | None = None, generation: int | None = None, before: datetime | None = None
    ) -> list[Registration]:
        """The rows as they were at a journal number, at the end of a generation, or at a time: what a restore goes back to."""
        raise NotImplementedError

    async def incarnations(self, limit: int = 100) -> list[Incarnation]:
        """Newest first."""
        raise NotImplementedError

    async def referenced_digests(self) -> set[str]:
        """SHA-256 of every archive that a restorable registration names: what the archive sweep must keep."""
        raise NotImplementedError

    @property
    def health(self) -> StoreHealth:
        """How the store answered last; comes back to OK by itself."""
        raise NotImplementedError

    @property
    def epoch(self) -> int:
        """This life's epoch (0 before the claim)."""
        raise NotImplementedError

    @property
    def store_uuid(self) -> str:
        """Identity of the store: names leftovers together with the epoch."""
        raise NotImplementedError

    @property
    def last_seq(self) -> int:
        """The newest journal number known to this server."""
        raise NotImplementedError

    async def close(self) -> None:
        """Checkpoint, close, release the lock. The clean mark is `advance(CLEAN)`, not this."""
        raise NotImplementedError

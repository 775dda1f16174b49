"""The verbs of the store as plain functions on its thread: each is one transaction made of the tables' own steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from mms.errors import BadInput, NotCommitted
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
from mms.store import attempts, backup, changes, history, incarnations, journal, meta, packing, retention, snapshot
from mms.store.changes import Life
from mms.store.config import StoreConfig
from mms.store.counts import StoreCounts
from mms.store.database import Transaction, now
from mms.store.meta import Meta, counted
from mms.store.opening import Opened
from mms.store.trouble import Trouble
from mms.store.writer import Answer, Writer

T = TypeVar("T")

RETENTION_EVERY = 3600.0
"""Seconds between two looks at the journal's retention."""
KEPT_INCARNATIONS = 10_000


class Verbs:
    """Used by one thread; the properties may be read from any."""

    def __init__(self, config: StoreConfig, opened: Opened) -> None:
        self._config = config
        self._server = config.server_id
        self._database = opened.database
        self._writer = Writer(config.server_id, opened)
        self._opened_uuid = opened.meta.store_uuid if opened.meta else ""
        self._epoch = 0
        self._working_on: dict[int, Change] = {}
        self._requests_saved: dict[ModelKey, int] = {}
        self._retained_at: float | None = None
        self._packs_from = 0

    # --- what is known without asking -------------------------------------------------------------------------------

    @property
    def health(self) -> StoreHealth:
        """How the store answered last."""
        return self._writer.health

    @property
    def counts(self) -> StoreCounts:
        """What is counted of it."""
        return self._writer.counts

    @property
    def epoch(self) -> int:
        """This life's epoch, 0 before the claim."""
        return self._epoch

    @property
    def generation(self) -> int:
        """The current generation, 0 before the claim."""
        return self._writer.known.generation if self._epoch and self._writer.known else 0

    @property
    def store_uuid(self) -> str:
        """The store's identity; empty before the claim of a store without a history."""
        return self._writer.known.store_uuid if self._writer.known else self._opened_uuid

    @property
    def last_seq(self) -> int:
        """The newest journal number."""
        return self._writer.known.last_seq if self._writer.known else 0

    # --- lives -------------------------------------------------------------------------------------------------------

    def claim(
        self, decide: Callable[[BootFacts], BootDecision], identity: ProcessIdentity, flags: Sequence[str]
    ) -> tuple[Incarnation, BootDecision, BootFacts]:
        """See `Store.claim`."""
        if self._epoch:
            raise ValueError(f"this store is claimed already, as epoch {self._epoch}")
        made = self._writer.claim(decide, identity, flags)
        self._epoch = made.meta.epoch
        return made.incarnation, made.decision, made.facts

    def advance(self, state: IncarnationState, reason: str) -> None:
        """See `Store.advance`."""

        def work(tx: Transaction, found: Meta) -> tuple[None, Meta]:
            blocking = incarnations.step(tx, self._server, self._epoch, state, reason, now(tx))
            if blocking is not None:
                raise ValueError(f"an incarnation that is {blocking} cannot become {state}")
            return None, counted(found)

        self._durable(work, essential=True, place=state.value)
        if state is IncarnationState.CLEAN:
            self._writer.block("The server has stopped; nothing is changed any more.")

    def interrupt_boot(self, reason: str) -> None:
        """See `Store.interrupt_boot`."""

        def work(tx: Transaction, found: Meta) -> tuple[None, Meta]:
            at = now(tx)
            incarnations.mark_interrupted(tx, self._server, self._epoch, reason, at)
            attempts.close_epoch(tx, self._server, self._epoch, at)
            return None, counted(found)

        self._durable(work, essential=True)

    # --- changes -----------------------------------------------------------------------------------------------------

    def answered(self, caller: Caller) -> Replayed | None:
        """See `Store.answered`."""
        return self._read(lambda tx: changes.answered(tx, self._server, self.generation, caller, self._runs))

    def begin(self, change: Change) -> Begun | Replayed:
        """See `Store.begin`."""

        def work(tx: Transaction, found: Meta) -> tuple[Begun | Replayed, Meta]:
            stored = changes.answered(tx, self._server, found.generation, change.caller, self._runs)
            if stored is not None:
                raise Answer(stored)
            begun = changes.begin(tx, self._life(tx, found), found.last_seq + 1, change, self._runs)
            return begun, counted(found, last_seq=begun.seq, entries=(found.entries or 0) + 1)

        begun = self._durable(work, essential=not change.after.wanted, promise=True, place="begin")
        if isinstance(begun, Begun):
            self._working_on[begun.seq] = change
        return begun

    def finish(
        self, begun: Begun, outcome: ChangeOutcome, response: Mapping[str, Any], row: Registration | None
    ) -> None:
        """See `Store.finish`."""

        def work(tx: Transaction, found: Meta) -> tuple[None, Meta]:
            if not changes.finish(tx, self._life(tx, found), begun, outcome, response, row):
                raise Answer(None)
            return None, counted(found)

        self._durable(work, essential=True, place="finish")
        self._working_on.pop(begun.seq, None)

    def forsake(self, change: Change) -> None:
        """Whoever asked for the change has gone before it knew its number: nobody works on it."""
        for seq in [seq for seq, each in self._working_on.items() if each is change]:
            del self._working_on[seq]

    def pending(self) -> list[Begun]:
        """See `Store.pending`."""
        found = self._read(lambda tx: journal.pending(tx, self._server, self.generation))
        return [each.begun for each in found if not self._runs(each.entry.seq)]

    def settle(self, row: Registration) -> None:
        """See `Store.settle`."""

        def work(tx: Transaction, found: Meta) -> tuple[None, Meta]:
            if not snapshot.settle(tx, self._server, replace(row, generation=found.generation)):
                raise Answer(None)
            return None, counted(found)

        self._durable(work)

    def _runs(self, seq: int) -> bool:
        return seq in self._working_on

    # --- load attempts -----------------------------------------------------------------------------------------------

    def open_attempts(self, models: Sequence[tuple[ModelKey, str]]) -> None:
        """See `Store.open_attempts`."""

        def work(tx: Transaction, found: Meta) -> tuple[None, Meta]:
            at = now(tx)
            for key, sha256 in models:
                attempts.open_now(tx, self._server, self._epoch, key, sha256, at)
            return None, counted(found)

        if models:
            self._durable(work)

    def close_attempts(self, keys: Sequence[ModelKey]) -> None:
        """See `Store.close_attempts`."""

        def work(tx: Transaction, found: Meta) -> tuple[None, Meta]:
            at = now(tx)
            for key in keys:
                attempts.close(tx, self._server, key, at)
            return None, counted(found)

        if keys:
            self._durable(work, essential=True)

    # --- upkeep ------------------------------------------------------------------------------------------------------

    def heartbeat(self, requests_seen: Mapping[ModelKey, int]) -> None:
        """See `Store.heartbeat`."""
        if not self._epoch:
            return
        self._writer.check_lock()
        news = {key: count for key, count in requests_seen.items() if self._requests_saved.get(key) != count}

        def work(tx: Transaction) -> None:
            incarnations.beat(tx, self._server, self._epoch, now(tx))
            snapshot.count_requests(tx, self._server, self.generation, news)

        self._writer.fenced(work)
        self._requests_saved.update(news)
        if self._writer.ballast is not None:
            self._writer.ballast.renew()
        self._retain()

    def _retain(self) -> None:
        if self._retained_at is not None and time.monotonic() - self._retained_at < RETENTION_EVERY:
            return
        self._retained_at = time.monotonic()

        def work(tx: Transaction, found: Meta) -> tuple[None, Meta]:
            horizon, removed = retention.prune(
                tx,
                self._server,
                found,
                keep_entries=self._config.journal_keep_entries,
                older_than=retention.keep_from(now(tx), self._config.journal_keep_days),
                segment_size=self._config.journal_segment,
            )
            gone = incarnations.prune(tx, self._server, keep=KEPT_INCARNATIONS, current=self._epoch)
            gone += attempts.prune(tx, self._server, before_epoch=self._epoch)
            if horizon == found.pruned_seq and not gone:
                raise Answer(None)
            return None, counted(found, pruned_seq=horizon, entries=(found.entries or 0) - removed)

        self._durable(work)

    def pack(self) -> None:
        """See `Store.pack`."""
        if not self._epoch or self.last_seq < self._packs_from:
            return

        def work(tx: Transaction, found: Meta) -> tuple[int, Meta]:
            loose, size = self._config.journal_loose, self._config.journal_segment
            missing = packing.pack_oldest(tx, self._server, found.last_seq, loose=loose, size=size)
            if missing:
                raise Answer(missing)
            return 0, counted(found)

        # Not looked at again before as many more entries could have become old.
        self._packs_from = self.last_seq + self._durable(work, place="pack")

    def revive(self) -> bool:
        """One probe of a store that is away; True where no further one is needed."""
        return self._writer.revive()

    def close(self) -> None:
        """Close database, witness and lock."""
        self._writer.close()

    # --- reading -----------------------------------------------------------------------------------------------------

    def snapshot(self, generation: int | None) -> list[Registration]:
        """See `Store.snapshot`."""
        return self._read(lambda tx: snapshot.rows(tx, self._server, generation or self.generation))

    def journal(self, model: str | None, after: int, limit: int) -> tuple[list[JournalEntry], int | None]:
        """See `journal.read`."""
        return self._read(lambda tx: journal.read(tx, self._server, model=model, after=after, limit=limit))

    def snapshot_at(self, seq: int | None, generation: int | None, before: datetime | None) -> list[Registration]:
        """See `Store.snapshot_at`."""
        known = self._writer.meta
        if seq is not None and generation is None and before is None:
            return self._read(lambda tx: history.at_seq(tx, self._server, known, seq))
        if generation is not None and seq is None and before is None:
            return self._read(lambda tx: history.at_generation(tx, self._server, generation))
        if before is not None and seq is None and generation is None:
            return self._read(lambda tx: history.before_time(tx, self._server, known, before))
        raise BadInput("A point to go back to is named by exactly one of seq, generation and before")

    def incarnations(self, limit: int) -> list[Incarnation]:
        """See `Store.incarnations`."""
        return self._read(lambda tx: incarnations.recent(tx, self._server, limit))

    def referenced_digests(self) -> set[str]:
        """See `Store.referenced_digests`."""
        return self._read(lambda tx: snapshot.digests(tx, self._server) | journal.digests(tx, self._server))

    def backup(self, target: Path) -> None:
        """See `Store.backup`."""
        if not self._database.location.sqlite:
            raise BadInput("A Postgres store is backed up with pg_dump or with the database's own means")
        try:
            backup.copy(self._database, target)
        except Trouble as trouble:
            raise NotCommitted(f"The store was not copied: {trouble.message}") from trouble

    # --- helpers -----------------------------------------------------------------------------------------------------

    def _life(self, tx: Transaction, found: Meta) -> Life:
        return Life(self._server, self._epoch, found.generation, now(tx))

    def _durable(
        self,
        work: Callable[[Transaction, meta.Meta], tuple[T, meta.Meta]],
        *,
        essential: bool = False,
        promise: bool = False,
        place: str = "",
    ) -> T:
        if not self._epoch:
            raise NotCommitted("The store has not been claimed by this server.")
        return self._writer.durable(work, essential=essential, promise=promise, place=place)

    def _read(self, work: Callable[[Transaction], T]) -> T:
        return self._writer.read(work)

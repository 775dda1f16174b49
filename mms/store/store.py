"""The one door to the store: async verbs, each run whole on the store's own thread; no SQL here, no decisions."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mms.errors import NotCommitted, OutcomeUnknown, StoreInUse, StoreUnreachable
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
from mms.store import location
from mms.store.config import StoreConfig
from mms.store.counts import StoreCounts
from mms.store.opening import Opened, open_once
from mms.store.trouble import Kind, Trouble
from mms.store.verbs import Verbs
from mms.store.wire import Wire

__all__ = ["Store", "StoreConfig"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

CALL_LIMIT = 6.0
"""Seconds until a call is cut off that Postgres does not answer; its own statement_timeout (5 s) comes first."""
CUT_AGAIN = 1.5


class Store:
    """An open, locked, verified store. Every change of it carries this life's epoch; a stale one raises Fenced."""

    def __init__(self, thread: ThreadPoolExecutor, verbs: Verbs, wire: Wire) -> None:
        self._thread = thread
        self._wire = wire
        self._verbs = verbs
        self._probe: asyncio.Task[None] | None = None
        self._closing = False

    @classmethod
    async def open(cls, config: StoreConfig) -> Store:
        """Connect (retrying up to `boot_store_timeout`), take the lock, check or upgrade the schema, verify witness and rows.

        Raises UsageError, StoreUnreachable, StoreInUse, StoreDamaged, StoreNewer, StoreOutdated.
        """
        # One thread for ever: SQLite's connection belongs to it.
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        try:
            opened = await _open(thread, config)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(thread, Verbs(config, opened), opened.wire)

    async def claim(
        self, decide: Callable[[BootFacts], BootDecision], identity: ProcessIdentity, flags: Sequence[str]
    ) -> tuple[Incarnation, BootDecision, BootFacts]:
        """One transaction: read the facts, decide, take the next epoch, write this incarnation's row as BOOTING; then the witness.

        Raises StoreInUse, StoreUnreachable, and whatever `decide` raises (then nothing is written).
        """
        return await self._call(partial(self._verbs.claim, decide, identity, flags))

    async def advance(self, state: IncarnationState, reason: str = "") -> None:
        """Guarded step of this incarnation's own row (BOOTING to RUNNING to STOPPING to CLEAN; any other raises ValueError).

        CLEAN is the last durable write: every later change raises NotCommitted.
        """
        await self._call(partial(self._verbs.advance, state, reason))

    async def interrupt_boot(self, reason: str) -> None:
        """An orderly stop while BOOTING: stays dirty, closes the open load attempts, does not count as a failed boot."""
        await self._call(partial(self._verbs.interrupt_boot, reason))

    async def snapshot(self, generation: int | None = None) -> list[Registration]:
        """The rows of a generation (default: the current one), tombstones included, by seq."""
        return await self._call(partial(self._verbs.snapshot, generation))

    async def answered(self, caller: Caller) -> Replayed | None:
        """The stored answer to an earlier request with the caller's Idempotency-Key, None where it is new; changes nothing.

        Raises IdempotencyMismatch, StillRunning, NotCommitted (the store cannot be read).
        """
        if caller.idempotency_key is None:
            return None
        return await self._call(partial(self._verbs.answered, caller))

    async def begin(self, change: Change) -> Begun | Replayed:
        """First transaction of a change {epoch, idempotency key, row, journal entry pending}, then the witness: now it is durable.

        Raises NotCommitted, OutcomeUnknown, Fenced, IdempotencyMismatch, StillRunning.
        """
        try:
            return await self._call(partial(self._verbs.begin, change))
        except asyncio.CancelledError:
            self.forsake(change)
            raise

    def forsake(self, change: Change) -> None:
        """Nobody works on a change that may be durable: a repetition under its key, or the next boot, takes it up."""
        self._thread.submit(self._verbs.forsake, change)

    async def finish(
        self,
        begun: Begun,
        outcome: ChangeOutcome,
        response: Mapping[str, Any],
        row: Registration | None = None,
    ) -> None:
        """Second transaction {outcome, stored answer, row}; FAILED puts the row back as it was before the change, tombstone included.

        `row`, where given, is the row to leave behind instead (state ACTIVE, version or digest learnt while loading, ...).
        Said again with the same outcome, it does nothing. Raises NotCommitted, OutcomeUnknown, Fenced, and ValueError for
        an outcome that contradicts the one that is stored.
        """
        await self._call(partial(self._verbs.finish, begun, outcome, response, row))

    async def pending(self) -> list[Begun]:
        """Changes of the current generation without an outcome that nobody works on: their server died, or was cut off.

        By seq. The boot applies them by its replay and calls `finish`; rows and images are those that `begin` wrote.
        """
        return await self._call(self._verbs.pending)

    async def settle(self, row: Registration) -> None:
        """Record what replay found out about a row (state, last_error, charges) without a journal entry; the wish is unchanged.

        A row that a change has written since (another `seq`) is left alone.
        """
        await self._call(partial(self._verbs.settle, row))

    async def open_attempts(self, models: Sequence[tuple[ModelKey, str]]) -> None:
        """Commit that these loads (key, sha256) begin: before the risk, since the counter must outlive it.

        An attempt that was open for the same model before is closed by it.
        """
        await self._call(partial(self._verbs.open_attempts, models))

    async def close_attempts(self, keys: Sequence[ModelKey]) -> None:
        """These loads ended, well or badly."""
        await self._call(partial(self._verbs.close_attempts, keys))

    async def heartbeat(self, requests_seen: Mapping[ModelKey, int]) -> None:
        """Every 5 s: heartbeat_at, and how many requests each model has seen. Never raises: sets `health`.

        It also looks after the lock, the ballast and the journal's retention.
        """
        try:
            await self._call(partial(self._verbs.heartbeat, requests_seen))
        except (NotCommitted, OutcomeUnknown) as error:
            logger.debug("No heartbeat: %s", error.message)

    async def pack(self) -> None:
        """Move the oldest settled entries of the journal into one segment, where there are enough of them: about 20 ms.

        Raises NotCommitted where the store did not take it, and Altered (one of these) where one of them was changed.
        """
        await self._call(self._verbs.pack)

    async def journal(self, *, model: str | None = None, after: int = 0, limit: int = 100) -> list[JournalEntry]:
        """Entries with seq > after, ascending. Raises NotCommitted, also for older ones that are not what was written.

        Of older ones only some are unpacked at once, and changes take their turn in between.
        """
        found: list[JournalEntry] = []
        reached: int | None = after
        while reached is not None and len(found) < limit:
            more, reached = await self._call(partial(self._verbs.journal, model, reached, limit - len(found)))
            found += more
        return found

    async def snapshot_at(
        self, *, seq: int | None = None, generation: int | None = None, before: datetime | None = None
    ) -> list[Registration]:
        """The rows as they were at a journal number, at the end of a generation, or at a time: what a restore goes back to.

        Raises BadInput for none or several of them, and for a point that the journal does not reach.
        """
        return await self._call(partial(self._verbs.snapshot_at, seq, generation, before))

    async def incarnations(self, limit: int = 100) -> list[Incarnation]:
        """Newest first."""
        return await self._call(partial(self._verbs.incarnations, limit))

    async def referenced_digests(self) -> set[str]:
        """SHA-256 of every archive that a restorable registration names: what the archive sweep must keep."""
        return await self._call(self._verbs.referenced_digests)

    async def backup(self, target: Path) -> None:
        """Copy a live SQLite store to a new file. Raises BadInput for Postgres, NotCommitted where the copy failed."""
        await self._call(partial(self._verbs.backup, target))

    @property
    def health(self) -> StoreHealth:
        """How the store answered last; comes back to OK by itself."""
        return self._verbs.health

    @property
    def counts(self) -> StoreCounts:
        """Commits and failures since the server began."""
        return self._verbs.counts

    @property
    def epoch(self) -> int:
        """This life's epoch (0 before the claim)."""
        return self._verbs.epoch

    @property
    def generation(self) -> int:
        """The current generation (0 before the claim)."""
        return self._verbs.generation

    @property
    def store_uuid(self) -> str:
        """Identity of the store: names leftovers together with the epoch."""
        return self._verbs.store_uuid

    @property
    def last_seq(self) -> int:
        """The newest journal number known to this server."""
        return self._verbs.last_seq

    async def close(self) -> None:
        """Checkpoint, close, release the lock. The clean mark is `advance(CLEAN)`, not this."""
        if self._closing:
            return
        self._closing = True
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._verbs.close)
        self._thread.shutdown(wait=True)

    async def _call(self, job: Callable[[], T]) -> T:
        """Hop to the store's thread and back. A caller that is cancelled leaves the job to finish there."""
        if self._closing:
            raise NotCommitted("The store is closed.")
        if self.health is StoreHealth.UNREACHABLE and self._probe is not None and not self._probe.done():
            # At once: the thread may be waiting for a connection, on behalf of the probe.
            raise NotCommitted("The store cannot be used at the moment; nothing was changed.")
        loop = asyncio.get_running_loop()
        try:
            return await _cut_short(loop.run_in_executor(self._thread, job), self._wire, CALL_LIMIT)
        finally:
            if self.health is StoreHealth.UNREACHABLE and (self._probe is None or self._probe.done()):
                self._probe = asyncio.create_task(self._probe_until_back())

    async def _probe_until_back(self) -> None:
        """Look every 1 to 5 s, at random so that many servers do not come back as one."""
        loop = asyncio.get_running_loop()
        longest = 1.0
        while not self._closing:
            await asyncio.sleep(random.uniform(1.0, longest))
            longest = min(5.0, longest * 1.5)
            if await _cut_short(loop.run_in_executor(self._thread, self._verbs.revive), self._wire, CALL_LIMIT):
                return


async def _open(thread: ThreadPoolExecutor, config: StoreConfig) -> Opened:
    """Try until it is open, or until the wait for the database or for the lock is over."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    wait = 0.1
    told = False
    while True:
        wire = Wire()
        attempt = loop.run_in_executor(thread, open_once, config, wire)
        try:
            return await _cut_short(asyncio.shield(attempt), wire, max(CALL_LIMIT, config.boot_store_timeout))
        except asyncio.CancelledError:
            wire.cut()
            await asyncio.wait([attempt])  # a migration that has begun is not left behind half awake
            if attempt.exception() is None:
                await loop.run_in_executor(thread, attempt.result().close)
            raise
        except StoreInUse:
            if loop.time() - began >= config.store_lock_wait:
                raise
        except Trouble as trouble:
            shown = location.parse(config.url).shown
            if trouble.kind is Kind.WRONG:  # no permission, for example: waiting does not help
                raise StoreUnreachable(f"The store {shown} cannot be used: {trouble.message}") from trouble
            if loop.time() - began >= config.boot_store_timeout:
                raise StoreUnreachable(
                    f"The store {shown} cannot be reached within {config.boot_store_timeout:g} s "
                    f"(boot_store_timeout): {trouble.message}"
                ) from trouble
            if not told:
                logger.warning("The store cannot be reached yet: %s", trouble.message)
                told = True
        await asyncio.sleep(wait)
        wait = min(2.0, wait * 1.5)


async def _cut_short(answer: asyncio.Future[T], wire: Wire, limit: float) -> T:
    """Wait for a job of the store's thread; one that hangs on a silent server is cut off, again and again if need be."""
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []

    def cut() -> None:
        wire.cut()
        timers[:] = [loop.call_later(CUT_AGAIN, cut)]

    timers.append(loop.call_later(limit, cut))
    try:
        return await answer
    finally:
        timers[0].cancel()

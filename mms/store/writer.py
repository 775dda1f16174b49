"""The one writer of an open store, on the store's thread: fence, commit, witness, and what is true after a failure."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from mms import failpoints
from mms.errors import Fenced, NotCommitted, OutcomeUnknown, StoreInUse, StoreUnreachable
from mms.records import BootDecision, BootFacts, ProcessIdentity, StoreHealth
from mms.store import meta, verification
from mms.store.ballast import Ballast
from mms.store.claim import Claim, claim
from mms.store.counts import StoreCounts
from mms.store.custody import Custody
from mms.store.database import Transaction
from mms.store.meta import Meta, OtherEpoch
from mms.store.opening import Opened
from mms.store.trouble import Kind, Trouble

logger = logging.getLogger(__name__)

T = TypeVar("T")

RESOLVE_WITHIN = 2.5
"""Seconds in which a lost COMMIT must be cleared up before the caller is told that its outcome is unknown."""
RESOLVE_FILE_WITHIN = 1.0
"""The same for SQLite: a disk that fails does not come back by waiting for it."""


class Answer(Exception):
    """Ends a transaction with no change, and this as its result."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value


class Writer:
    """Knows how far the store has come (`known`), and never writes to one that stands elsewhere."""

    def __init__(self, server_id: str, opened: Opened) -> None:
        self.server_id = server_id
        self.health = StoreHealth.OK
        self.counts = StoreCounts()
        self.known: Meta | None = opened.meta
        self._opened = opened
        self._database = opened.database
        where = opened.database.location
        self.ballast = Ballast(where.file(".ballast")) if where.sqlite else None
        self._uncertain: Meta | None = None
        self._blocked = ""
        self._custody = Custody(opened.lock, opened.witness)
        self._pause = threading.Event()

    @property
    def meta(self) -> Meta:
        """The row of this life. Raises NotCommitted before the claim."""
        if self.known is None:
            raise NotCommitted("The store has not been claimed by this server.")
        return self.known

    # --- transactions ------------------------------------------------------------------------------------------------

    def claim(
        self, decide: Callable[[BootFacts], BootDecision], identity: ProcessIdentity, flags: Sequence[str]
    ) -> Claim:
        """Raises StoreInUse, StoreUnreachable, and whatever `decide` raises; then nothing is written."""
        try:
            try:
                made = self._claim(decide, identity, flags)
            except Trouble as trouble:
                if trouble.kind is not Kind.FULL or self.ballast is None or not self.ballast.release():
                    raise
                made = self._claim(decide, identity, flags)
        except OtherEpoch as other:
            raise StoreInUse("Another server has claimed the store while this one was starting.") from other
        except (Trouble, NotCommitted, OutcomeUnknown) as error:
            raise StoreUnreachable(f"The store could not be claimed: {error.message}") from error
        self._committed(made.meta, "claim")
        self._custody.describe(made.meta.epoch)
        if self.ballast is not None:
            self.ballast.renew()
        return made

    def _claim(
        self, decide: Callable[[BootFacts], BootDecision], identity: ProcessIdentity, flags: Sequence[str]
    ) -> Claim:
        made: Claim | None = None
        try:
            with self._database.transaction() as tx:
                made = claim(tx, self.server_id, self._opened.meta, self._opened.lost, decide, identity, flags)
                failpoints.reached("claim.before_commit")
        except Trouble as trouble:
            if made is None or not trouble.uncertain or not self._landed(made.meta):
                raise
        assert made is not None
        return made

    def durable(
        self,
        work: Callable[[Transaction, Meta], tuple[T, Meta]],
        *,
        essential: bool = False,
        promise: bool = False,
        place: str = "",
    ) -> T:
        """Run `work` in one fenced transaction and write the witness; it returns its result and the row as it shall be.

        `essential` work may use the ballast; of a `promise` somebody is told, and without the witness its outcome is unknown;
        `place` names its failpoints. Raises NotCommitted, OutcomeUnknown, Fenced, and whatever `work` raises.
        """
        self._gate()
        try:
            return self._attempt(work, promise, place)
        except Trouble as trouble:
            if trouble.kind is not Kind.FULL or not essential or self.ballast is None or not self.ballast.release():
                raise self._refusal(trouble) from trouble
        try:
            return self._attempt(work, promise, place)
        except Trouble as trouble:
            raise self._refusal(trouble) from trouble

    def fenced(self, work: Callable[[Transaction], None]) -> None:
        """Run work that is no promise to anyone (heartbeat, retention): fenced, but not counted and not witnessed."""
        self._gate()
        try:
            with self._database.transaction() as tx:
                self._fence(tx)
                work(tx)
        except OtherEpoch as other:
            raise self._other(other) from other
        except Trouble as trouble:
            raise self._refusal(trouble) from trouble
        self._recovered_space()

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Run work that reads. Raises NotCommitted where the store is away."""
        if self.health is StoreHealth.UNREACHABLE:
            raise NotCommitted("The store cannot be reached at the moment.")
        try:
            with self._database.transaction(read_only=True) as tx:
                return work(tx)
        except Trouble as trouble:
            raise self._refusal(trouble) from trouble

    def _attempt(self, work: Callable[[Transaction, Meta], tuple[T, Meta]], promise: bool, place: str) -> T:
        began = time.perf_counter()
        after: Meta | None = None
        try:
            self._database.check_file()
            with self._database.transaction() as tx:
                found = self._fence(tx)
                result, after = work(tx, found)
                meta.save(tx, self.server_id, after, epoch=found.epoch)
                if place:
                    failpoints.reached(f"{place}.before_commit")
        except Answer as answer:
            return answer.value  # type: ignore[return-value]
        except OtherEpoch as other:
            raise self._other(other) from other
        except Trouble as trouble:
            if not trouble.uncertain or after is None:
                raise
            if not self._landed(after):
                raise self._refusal(Trouble(trouble.kind, trouble.message)) from trouble
        assert after is not None
        proven = self._committed(after, place)
        self.counts.seconds += time.perf_counter() - began
        if promise and not proven:
            # A disk that breaks at this moment may take back what it has answered well.
            self.counts.failed("unknown")
            raise OutcomeUnknown("The store committed the change, but its witness cannot be written.")
        return result

    # --- guards ------------------------------------------------------------------------------------------------------

    def block(self, reason: str) -> None:
        """Refuse every write from now on, with this reason."""
        self._blocked = reason

    def _gate(self) -> None:
        if self.health is StoreHealth.FENCED:
            raise Fenced("Another server has claimed the store; this one changes nothing any more.")
        if self._blocked:
            raise NotCommitted(self._blocked)
        if self.health is StoreHealth.UNREACHABLE:
            raise NotCommitted("The store cannot be used at the moment; nothing was changed.")

    def _fence(self, tx: Transaction) -> Meta:
        """The row as this life left it, or as a transaction left it whose outcome was unknown."""
        known = self.meta
        found = meta.fence(tx, self.server_id, known)
        if self._uncertain is not None and found == self._uncertain:
            self.known, self._uncertain = found, None
        elif found != known:
            raise OtherEpoch(found.epoch, f"somebody else wrote to it ({meta.describe(found.mark)})")
        return found

    def _other(self, other: OtherEpoch) -> NotCommitted:
        if not other.missing:
            self.health = StoreHealth.FENCED
            logger.error(
                "Another server has claimed the store (epoch %d); this one changes nothing any more.", other.epoch
            )
            return Fenced("Another server has claimed the store; this one changes nothing any more.")
        return self._stop_writing(f"the store is not as this server left it: {other.missing}")

    def _stop_writing(self, what: str) -> NotCommitted:
        self.health = StoreHealth.READ_ONLY
        self._blocked = f"Management is read-only until a restart, since {what}."
        logger.error("%s", self._blocked)
        return NotCommitted(self._blocked)

    def _refusal(self, trouble: Trouble) -> NotCommitted:
        """What a failed transaction means for the caller and for the next ones."""
        self.counts.failed(trouble.kind)
        logger.warning("A transaction of the store failed (%s): %s", trouble.kind, trouble.message)
        if trouble.kind is Kind.AWAY:
            self.health = StoreHealth.UNREACHABLE
            return NotCommitted(f"The store cannot be written at the moment: {trouble.message}")
        if trouble.kind is Kind.FULL:
            self.health = StoreHealth.READ_ONLY
            return NotCommitted(f"The store's disk is full: {trouble.message}")
        if trouble.kind is Kind.DAMAGED:
            return self._stop_writing(trouble.message)
        if trouble.kind is Kind.IO:
            self._look_again()
        return NotCommitted(f"The store did not take the change: {trouble.message}")

    # --- after a failure ---------------------------------------------------------------------------------------------

    def _landed(self, after: Meta) -> bool:
        """Whether the transaction that would leave `after` was committed, asked on a new connection. Raises OutcomeUnknown."""
        within = RESOLVE_FILE_WITHIN if self._database.location.sqlite else RESOLVE_WITHIN
        deadline = time.monotonic() + within
        self._database.reopen()
        while True:
            try:
                self._database.end_lost_backend()
                found = self._verified_row()
            except Trouble as trouble:
                if time.monotonic() > deadline:
                    self.health = StoreHealth.UNREACHABLE
                    self._uncertain = after
                    self.counts.failed("unknown")
                    raise OutcomeUnknown(
                        f"The store was lost while it committed the change, which may or may not have happened: "
                        f"{trouble.message}"
                    ) from trouble
                self._database.reopen()
                self._pause.wait(0.25)
                continue
            if found == after:
                return True
            if found == self.known:
                return False
            raise self._other(OtherEpoch(found.epoch if found else 0, "" if _later(found, after) else "it changed"))

    def _look_again(self) -> None:
        """After a failed read, write or sync: nothing on the old handle is believed, so compare on a new one."""
        self._database.reopen()
        try:
            found = self._verified_row()
        except Trouble as trouble:
            self._refusal(Trouble(Kind.AWAY, trouble.message))
            return
        if found not in (self.known, self._uncertain):
            self._stop_writing("after an input/output error the store is not as this server left it")

    def _verified_row(self) -> Meta | None:
        """Our row, once no older session can change it any more; on SQLite once all is synced anew, and if it is whole."""
        self._database.empty_log()
        with self._database.transaction(read_only=True) as tx:
            if self._database.location.sqlite:
                found = verification.with_pages(tx, self.server_id)
                if found:
                    self._stop_writing(found[0])
            return meta.read(tx, self.server_id, lock=True)

    def revive(self) -> bool:
        """Try to reach a store that was away; True once it is back, or known to be lost to this life."""
        self._database.reopen()
        try:
            self._database.empty_log()
            self._custody.keep_lock(self.meta.epoch)
            with self._database.transaction() as tx:
                found = self._fence(tx)
                meta.save(tx, self.server_id, found, epoch=found.epoch)  # that it can be written again is the question
        except StoreInUse as error:
            self._lock_lost(error)
            return True
        except OtherEpoch as other:
            self._other(other)
            return True
        except Trouble as trouble:
            logger.debug("The store is still away: %s", trouble.message)
            return False
        if not self._custody.testify(self.meta.mark):
            return False
        self.health = StoreHealth.READ_ONLY if self._blocked else StoreHealth.OK
        logger.warning("The store is back (%s).", meta.describe(self.meta.mark))
        return True

    def check_lock(self) -> None:
        """See that the lock is still ours. Raises NotCommitted."""
        try:
            self._custody.keep_lock(self.meta.epoch)
        except StoreInUse as error:
            raise self._lock_lost(error) from error
        except Trouble as trouble:
            raise self._refusal(trouble) from trouble

    def _lock_lost(self, error: StoreInUse) -> Fenced:
        self.health = StoreHealth.FENCED
        logger.error("The store's lock was lost: %s", error.message)
        return Fenced(error.message)

    # --- after a commit ----------------------------------------------------------------------------------------------

    def _committed(self, after: Meta, place: str = "") -> bool:
        """Take note and write the witness; False where that fails: nothing more is taken then until it can be written."""
        self.counts.commits += 1
        self.known, self._uncertain = after, None
        self._recovered_space()
        if place:
            failpoints.reached(f"{place}.after_commit")
        proven = self._custody.testify(after.mark)
        if not proven:
            self.health = StoreHealth.UNREACHABLE
        if place:
            failpoints.reached(f"{place}.after_witness")
        return proven

    def _recovered_space(self) -> None:
        if self.health is StoreHealth.READ_ONLY and not self._blocked:
            self.health = StoreHealth.OK
            logger.warning("The store can be written again.")

    def close(self) -> None:
        """Close everything; the lock last."""
        self._opened.close()


def _later(found: Meta | None, ours: Meta) -> bool:
    return found is not None and found.epoch > ours.epoch

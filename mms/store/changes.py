"""The two transactions of a change, as steps within a transaction: snapshot row and journal entry always move together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from mms.errors import IdempotencyMismatch, ModelConflict, StillRunning
from mms.records import (
    Begun,
    Caller,
    Change,
    ChangeOutcome,
    JournalEntry,
    Operation,
    Registration,
    RegistrationState,
    Replayed,
)
from mms.store import attempts, journal, snapshot
from mms.store.database import Transaction

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Life:
    """Who writes: the server, its epoch and generation, and the time of the transaction."""

    server_id: str
    epoch: int
    generation: int
    at: datetime


def answered(
    tx: Transaction, server_id: str, generation: int, caller: Caller, running: Callable[[int], bool]
) -> Replayed | None:
    """The stored answer to an earlier request with the same Idempotency-Key, None where this one shall run.

    `running` tells whether the change with a journal number is being worked on by this life. A request whose life died
    before it knew its outcome runs again. Raises IdempotencyMismatch, StillRunning.
    """
    if caller.idempotency_key is None:
        return None
    earlier = journal.by_key(tx, server_id, generation, caller.idempotency_key)
    if earlier is None:
        return None
    if earlier.request_digest != caller.request_digest:
        raise IdempotencyMismatch(
            f"The Idempotency-Key {caller.idempotency_key} was used for another request (journal number {earlier.seq})"
        )
    if earlier.outcome is not ChangeOutcome.PENDING:
        return Replayed(earlier.seq, earlier.response or {})
    if running(earlier.seq):
        raise StillRunning(
            f"The first request with the Idempotency-Key {caller.idempotency_key} has not finished "
            f"(journal number {earlier.seq})"
        )
    return None


def begin(tx: Transaction, life: Life, seq: int, change: Change, running: Callable[[int], bool]) -> Begun:
    """Write the row as wanted and the journal entry, pending, under the next number."""
    key = change.after.key
    _supersede(tx, life, seq, key.name, running)
    before = snapshot.get(tx, life.server_id, life.generation, key)
    goes_on = before is not None and (before.wanted or not change.after.wanted)
    row = replace(
        change.after,
        generation=life.generation,
        revision=before.revision + 1 if before else 1,
        seq=seq,
        requests_seen=max(change.after.requests_seen, before.requests_seen if before else 0),
        created_at=before.created_at if before and goes_on else life.at,
        updated_at=life.at,
    )
    snapshot.put(tx, life.server_id, row)
    entry = JournalEntry(
        seq=seq,
        epoch=life.epoch,
        generation=life.generation,
        at=life.at,
        actor=change.caller.actor,
        request_id=change.caller.request_id,
        operation=change.operation,
        key=key,
        after=row,
        outcome=ChangeOutcome.PENDING,
        idempotency_key=change.caller.idempotency_key,
        request_digest=change.caller.request_digest,
    )
    journal.append(tx, life.server_id, entry, before)
    if change.loads:
        attempts.open_now(tx, life.server_id, life.epoch, key, change.after.sha256, life.at)
    if change.operation is Operation.CHARGE:
        # In one transaction with the charge: a crash between the two would charge the same death twice.
        attempts.close(tx, life.server_id, key, life.at)
    return Begun(seq, change.operation, row, before, change.loads)


def _supersede(tx: Transaction, life: Life, by: int, name: str, running: Callable[[int], bool]) -> None:
    """Fail this life's changes of a model that were committed without the server learning of it.

    What comes now was decided without them and overwrites them. Left pending, such an entry would pass at the next boot for
    a change that its server died in: its key would be answered as if it held, and a failed load would take back whatever
    was acknowledged since.
    """
    for earlier in journal.unknown(tx, life.server_id, life.generation, life.epoch, name):
        if not running(earlier):
            message = f"Nobody knew that this change was committed, and journal entry {by} has overwritten it."
            failure = {"error": ModelConflict.__name__, "message": message}
            journal.close(tx, life.server_id, earlier, ChangeOutcome.FAILED, failure)


def finish(
    tx: Transaction,
    life: Life,
    begun: Begun,
    outcome: ChangeOutcome,
    response: Mapping[str, Any],
    row: Registration | None,
) -> bool:
    """Write the outcome and what the change leaves behind; False where the same outcome was written before.

    A row that a later change has written since is left alone. Raises ValueError for an outcome that contradicts.
    """
    found = journal.get(tx, life.server_id, begun.seq)
    if found is None:
        raise ValueError(f"the journal has no entry {begun.seq}")
    if found.entry.outcome is outcome:
        return False
    if found.entry.outcome is not ChangeOutcome.PENDING or outcome is ChangeOutcome.PENDING:
        raise ValueError(f"journal entry {begun.seq} is {found.entry.outcome} and cannot become {outcome}")
    if begun.loads and (row is None or row.state is not RegistrationState.PENDING):  # pending: it still loads
        attempts.close(tx, life.server_id, begun.row.key, life.at)
    left = _leave(tx, life, found, outcome, row)
    journal.close(tx, life.server_id, begun.seq, outcome, response, left)
    return True


def _leave(
    tx: Transaction, life: Life, found: journal.Entry, outcome: ChangeOutcome, row: Registration | None
) -> Registration | None:
    """Bring the snapshot to what the outcome says; returns the row left in place of the after-image, if it differs."""
    entry = found.entry
    current = snapshot.get(tx, life.server_id, entry.generation, entry.key)
    if current is None or current.seq != entry.seq:
        return None
    if row is None:
        if outcome is ChangeOutcome.FAILED:
            _put_back(tx, life, found, current)
        return None
    left = replace(
        row,
        generation=entry.generation,
        revision=current.revision,
        seq=entry.seq,
        requests_seen=max(row.requests_seen, current.requests_seen),
        created_at=current.created_at,
        updated_at=life.at,
    )
    if left.key != entry.key:  # the version was learnt while loading
        _put_back(tx, life, found, current)
    snapshot.put(tx, life.server_id, left)
    return left


def _put_back(tx: Transaction, life: Life, found: journal.Entry, current: Registration) -> None:
    image = journal.image_before(tx, life.server_id, found)
    if image is None:
        snapshot.remove(tx, life.server_id, current.generation, current.key)
        return
    snapshot.put(tx, life.server_id, replace(image, requests_seen=max(image.requests_seen, current.requests_seen)))

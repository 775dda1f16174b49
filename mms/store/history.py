"""The past of the snapshot, from the journal: the rows as they were at a point, and how long the journal is kept."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, func, select

from mms.errors import BadInput, NotCommitted
from mms.records import ChangeOutcome, ModelKey, Registration
from mms.store import images, incarnations, snapshot
from mms.store.database import Transaction
from mms.store.meta import Meta
from mms.store.seal import intact
from mms.store.tables import journal

PRUNED_AT_ONCE = 2000


def at_generation(tx: Transaction, server_id: str, generation: int) -> list[Registration]:
    """The rows at the end of a generation. Raises BadInput for one that never was."""
    if generation not in incarnations.generations(tx, server_id):
        raise BadInput(f"generation: there is no generation {generation} in the store")
    return snapshot.rows(tx, server_id, generation)


def at_seq(tx: Transaction, server_id: str, meta: Meta, seq: int) -> list[Registration]:
    """The rows right after a journal number: of each model the latest image at or before it. Raises BadInput."""
    if not 0 <= seq <= meta.last_seq:
        raise BadInput(f"seq: expected a journal number from {meta.pruned_seq} to {meta.last_seq}, got {seq}")
    if seq < meta.pruned_seq:
        raise BadInput(f"seq: the journal is kept from number {meta.pruned_seq} on, got {seq}")
    return _at(tx, server_id, seq)


def before_time(tx: Transaction, server_id: str, meta: Meta, time: datetime) -> list[Registration]:
    """The rows right before a time, by the times in the journal. Raises BadInput."""
    if time.tzinfo is None:
        raise BadInput(f"before: expected a time with its zone, such as 2026-01-31T12:00:00Z, got {time.isoformat()}")
    where = (journal.c.server_id == server_id, journal.c.at < time)
    seq = tx.execute(select(func.max(journal.c.seq)).where(*where)).scalar() or 0
    if seq < meta.pruned_seq:
        raise BadInput(f"before: the journal is kept from number {meta.pruned_seq} on, {time.isoformat()} is earlier")
    return _at(tx, server_id, seq)


def _at(tx: Transaction, server_id: str, seq: int) -> list[Registration]:
    own = journal.c.server_id == server_id
    newest = select(journal.c.generation).where(own, journal.c.seq <= seq).order_by(journal.c.seq.desc()).limit(1)
    generation = tx.execute(newest).scalar()
    if generation is None:
        return []
    if generation < incarnations.history(tx, server_id).abandoned_below:
        raise BadInput(
            f"That point lies in generation {generation}, which a clean start abandoned: "
            f"only `mms restore --to-generation {generation}` brings it back"
        )
    statement = (
        select(journal)
        .where(own, journal.c.generation == generation, journal.c.seq <= seq)
        .where(journal.c.outcome != ChangeOutcome.FAILED.value)
        .order_by(journal.c.seq)
    )
    rows: dict[ModelKey, Registration] = {}
    for entry in tx.execute(statement).mappings():
        if not intact(journal, entry):  # a boot verifies only the newest entries of a long journal
            raise NotCommitted(
                f"Journal entry {entry['seq']} is not what was written: the store was changed behind the server's back. "
                "`mms store verify` shows all that is damaged."
            )
        row = images.from_image(entry["after"])
        rows[row.key] = row
    return sorted(rows.values(), key=lambda row: row.seq)


def prune(tx: Transaction, server_id: str, meta: Meta, *, keep_entries: int, older_than: datetime) -> int:
    """Remove entries that are neither among the newest `keep_entries` nor younger than `older_than`; returns the new horizon.

    The latest image of each model at or before the horizon stays, and so does whatever has no outcome yet: every point
    from the horizon on can still be restored.
    """
    own = journal.c.server_id == server_id
    young = select(func.min(journal.c.seq)).where(own, journal.c.at >= older_than)
    first_young = tx.execute(young).scalar() or meta.last_seq + 1
    horizon = min(first_young - 1, meta.last_seq - keep_entries, meta.pruned_seq + PRUNED_AT_ONCE)
    if horizon <= meta.pruned_seq:
        return meta.pruned_seq
    latest = (
        select(func.max(journal.c.seq))
        .where(own, journal.c.seq <= horizon, journal.c.outcome != ChangeOutcome.FAILED.value)
        .group_by(journal.c.generation, journal.c.name, journal.c.version)
    )
    tx.execute(
        delete(journal).where(
            own,
            journal.c.seq <= horizon,
            journal.c.outcome != ChangeOutcome.PENDING.value,
            journal.c.seq.not_in(latest.scalar_subquery()),
        )
    )
    return horizon


def keep_from(at: datetime, keep_days: float) -> datetime:
    """The time from which on entries are young; a day at least, since answers to repeated requests are kept there."""
    return at - timedelta(days=max(keep_days, 1.0))

"""The journal: every change with its images before and after, its outcome and the stored answer; loose rows and packed ones.

New entries are rows of the journal table; settled, older ones lie in segments. Whoever reads sees no difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, insert, select, update

from mms.records import Begun, ChangeOutcome, JournalEntry, ModelKey, Operation, Registration
from mms.store import images, segments
from mms.store.database import Transaction
from mms.store.images import clean
from mms.store.seal import sealed
from mms.store.tables import journal


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry together with the row that its change replaced."""

    entry: JournalEntry
    before: Registration | None

    @property
    def begun(self) -> Begun:
        """The change as its `begin` returned it."""
        return Begun(self.entry.seq, self.entry.operation, self.entry.after, self.before)


def append(tx: Transaction, server_id: str, entry: JournalEntry, before: Registration | None) -> None:
    """Add an entry; its number comes from `store_meta`, in commit order and without gaps."""
    tx.execute(insert(journal).values(sealed(journal, _values(server_id, entry, before))))


def close(
    tx: Transaction,
    server_id: str,
    seq: int,
    outcome: ChangeOutcome,
    response: Mapping[str, Any],
    after: Registration | None = None,
) -> None:
    """Write the outcome and the answer, and the after-image where loading has taught more about it."""
    row = tx.execute(select(journal).where(*_one(server_id, seq))).mappings().one()
    values = {str(name): value for name, value in row.items()}
    values |= {"outcome": outcome.value, "response": dict(response)}
    if after is not None:
        key = after.key
        values |= {"after": images.to_image(after), "name": key.name, "version": key.version, "sha256": after.sha256}
    tx.execute(update(journal).where(*_one(server_id, seq)).values(sealed(journal, values)))


def get(tx: Transaction, server_id: str, seq: int) -> Entry | None:
    """One entry."""
    row = tx.execute(select(journal).where(*_one(server_id, seq))).mappings().one_or_none()
    if row is not None:
        return _entry(row)
    head = segments.holding(tx, server_id, seq)
    return next(map(_entry, segments.entries(tx, server_id, head, {seq})), None) if head else None


def by_key(tx: Transaction, server_id: str, generation: int, idempotency_key: str) -> JournalEntry | None:
    """The newest entry of a generation with this Idempotency-Key: answers of another generation are true no longer."""
    where = (
        journal.c.server_id == server_id,
        journal.c.generation == generation,
        journal.c.idempotency_key == idempotency_key,
    )
    loose = tx.execute(select(journal).where(*where).order_by(journal.c.seq.desc()).limit(1)).mappings().one_or_none()
    beyond = loose["seq"] if loose else 0  # a loose one is nearly always newer than every packed one
    row = segments.by_key(tx, server_id, generation, idempotency_key, beyond=beyond) or loose
    return None if row is None else _entry(row).entry


def pending(tx: Transaction, server_id: str, generation: int) -> list[Entry]:
    """Entries of a generation that have no outcome, by seq; they are never packed."""
    where = (
        journal.c.server_id == server_id,
        journal.c.outcome == ChangeOutcome.PENDING.value,
    )
    # Neither asked for by generation nor in order: SQLite would then go through all entries to find the few that are pending.
    found = [
        _entry(row) for row in tx.execute(select(journal).where(*where)).mappings() if row["generation"] == generation
    ]
    return sorted(found, key=lambda found: found.entry.seq)


def read(
    tx: Transaction, server_id: str, *, model: str | None, after: int, limit: int
) -> tuple[list[JournalEntry], int | None]:
    """Entries with seq > `after`, ascending, and the number to go on after; None where there are no more.

    Few segments are opened at once: there may be fewer than `limit`, even none, and yet more to come.
    """
    packed, reached = segments.after(tx, server_id, model, after, limit)
    where = [journal.c.server_id == server_id, journal.c.seq > after]
    if model is not None:
        where.append(journal.c.name == model)
    if reached is not None:
        where.append(journal.c.seq <= reached)
    loose = tx.execute(select(journal).where(*where).order_by(journal.c.seq).limit(limit)).mappings()
    rows = sorted([*packed, *loose], key=lambda row: int(row["seq"]))[:limit]
    if len(rows) == limit:
        reached = rows[-1]["seq"] if rows else after
    return [_entry(row).entry for row in rows], reached


def image_before(tx: Transaction, server_id: str, failed: Entry) -> Registration | None:
    """What a failed change has to leave behind: the row that it replaced, or that one's own predecessor if it failed as well."""
    image = failed.before
    while image is not None:
        earlier = get(tx, server_id, image.seq) if image.seq < failed.entry.seq else None
        if earlier is None or earlier.entry.outcome is not ChangeOutcome.FAILED:
            return image
        image = earlier.before
    return None


def count(tx: Transaction, server_id: str) -> int:
    """How many entries there are, packed or not."""
    loose = select(func.count()).select_from(journal).where(journal.c.server_id == server_id)
    return tx.execute(loose).scalar_one() + segments.count(tx, server_id)


def unknown(tx: Transaction, server_id: str, generation: int, epoch: int, name: str) -> list[int]:
    """Numbers of a model's entries of one life that have no outcome, ascending; they are never packed."""
    where = (journal.c.server_id == server_id, journal.c.outcome == ChangeOutcome.PENDING.value)
    of_model = select(journal.c.seq, journal.c.generation, journal.c.epoch, journal.c.name).where(*where)
    return sorted(row.seq for row in tx.execute(of_model) if tuple(row)[1:] == (generation, epoch, name))


def digests(tx: Transaction, server_id: str) -> set[str]:
    """SHA-256 of every archive that an entry names whose change did not fail."""
    where = (journal.c.server_id == server_id, journal.c.outcome != ChangeOutcome.FAILED.value)
    loose = {found for found in tx.execute(select(journal.c.sha256).where(*where).distinct()).scalars() if found}
    return loose | segments.archives(tx, server_id)


def _one(server_id: str, seq: int) -> tuple[ColumnElement[bool], ...]:
    return (journal.c.server_id == server_id, journal.c.seq == seq)


def _values(server_id: str, entry: JournalEntry, before: Registration | None) -> dict[str, Any]:
    return {
        "server_id": server_id,
        "seq": entry.seq,
        "epoch": entry.epoch,
        "generation": entry.generation,
        "at": entry.at,
        "actor": clean(entry.actor),
        "request_id": clean(entry.request_id),
        "idempotency_key": entry.idempotency_key,
        "request_digest": entry.request_digest,
        "operation": entry.operation.value,
        "name": entry.key.name,
        "version": entry.key.version,
        "sha256": entry.after.sha256,
        "before": images.to_image(before),
        "after": images.to_image(entry.after),
        "outcome": entry.outcome.value,
        "response": None if entry.response is None else dict(entry.response),
    }


def _entry(row: Mapping[Any, Any]) -> Entry:
    at: datetime = row["at"]
    record = JournalEntry(
        seq=row["seq"],
        epoch=row["epoch"],
        generation=row["generation"],
        at=at,
        actor=row["actor"],
        request_id=row["request_id"],
        operation=Operation(row["operation"]),
        key=ModelKey(row["name"], row["version"]),
        after=images.from_image(row["after"]),
        outcome=ChangeOutcome(row["outcome"]),
        idempotency_key=row["idempotency_key"],
        request_digest=row["request_digest"],
        response=row["response"],
    )
    return Entry(record, None if row["before"] is None else images.from_image(row["before"]))

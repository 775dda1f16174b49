"""The past of the snapshot, from the journal: the rows as they were at a point."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from sqlalchemy import func, select

from mms.errors import BadInput
from mms.records import ChangeOutcome, ModelKey, Registration
from mms.store import images, incarnations, segments, snapshot
from mms.store.database import Transaction
from mms.store.meta import Meta
from mms.store.seal import intact
from mms.store.segment import Altered, Row
from mms.store.tables import journal


def at_generation(tx: Transaction, server_id: str, generation: int) -> list[Registration]:
    """The rows at the end of a generation. Raises BadInput for one that never was."""
    if generation not in incarnations.generations(tx, server_id):
        raise BadInput(f"generation: there is no generation {generation} in the store")
    return snapshot.rows(tx, server_id, generation)


def at_seq(tx: Transaction, server_id: str, meta: Meta, seq: int) -> list[Registration]:
    """The rows right after a journal number: of each model the latest image at or before it. Raises BadInput, Altered."""
    if not 0 <= seq <= meta.last_seq:
        raise BadInput(f"seq: expected a journal number from {meta.pruned_seq} to {meta.last_seq}, got {seq}")
    if seq < meta.pruned_seq:
        raise BadInput(f"seq: the journal is kept from number {meta.pruned_seq} on, got {seq}")
    return _at(tx, server_id, seq)


def before_time(tx: Transaction, server_id: str, meta: Meta, time: datetime) -> list[Registration]:
    """The rows right before a time, by the times in the journal. Raises BadInput, Altered."""
    if time.tzinfo is None:
        raise BadInput(f"before: expected a time with its zone, such as 2026-01-31T12:00:00Z, got {time.isoformat()}")
    where = (journal.c.server_id == server_id, journal.c.at < time)
    loose = tx.execute(select(func.max(journal.c.seq)).where(*where)).scalar() or 0
    seq = max(loose, segments.newest_before(tx, server_id, time))
    if seq < meta.pruned_seq:
        raise BadInput(f"before: the journal is kept from number {meta.pruned_seq} on, {time.isoformat()} is earlier")
    return _at(tx, server_id, seq)


def _at(tx: Transaction, server_id: str, seq: int) -> list[Registration]:
    generation = _generation_at(tx, server_id, seq)
    if generation is None:
        return []
    if generation < incarnations.history(tx, server_id).abandoned_below:
        raise BadInput(
            f"That point lies in generation {generation}, which a clean start abandoned: "
            f"only `mms restore --to-generation {generation}` brings it back"
        )
    rows: dict[ModelKey, Registration] = {}
    # By number, since the few loose entries that are older than packed ones had no outcome when those were packed.
    entries = _packed(tx, server_id, generation, seq) + _loose(tx, server_id, generation, seq)
    for entry in sorted(entries, key=lambda entry: int(entry["seq"])):
        row = images.from_image(entry["after"])
        rows[row.key] = row
    return sorted(rows.values(), key=lambda row: row.seq)


def _generation_at(tx: Transaction, server_id: str, seq: int) -> int | None:
    """The generation of the newest entry at or before a number."""
    own = journal.c.server_id == server_id
    newest = select(journal.c.seq, journal.c.generation).where(own, journal.c.seq <= seq)
    loose = tx.execute(newest.order_by(journal.c.seq.desc()).limit(1)).one_or_none()
    found = [(loose.seq, loose.generation)] if loose else []
    head = segments.holding(tx, server_id, seq)
    for series in head.series if head else ():
        found += [(each, series.generation) for each in (*series.done, *series.failed) if each <= seq]
    return max(found)[1] if found else None


def _loose(tx: Transaction, server_id: str, generation: int, seq: int) -> list[Row]:
    statement = (
        select(journal)
        .where(journal.c.server_id == server_id, journal.c.generation == generation, journal.c.seq <= seq)
        .where(journal.c.outcome != ChangeOutcome.FAILED.value)
    )
    found: list[Row] = []
    for row in tx.execute(statement).mappings():
        if not intact(journal, row):  # a boot verified it, but that may be long ago
            raise Altered(f"Journal entry {row['seq']}")
        found.append(row)
    return found


def _packed(tx: Transaction, server_id: str, generation: int, seq: int) -> list[Row]:
    """The latest image of each model in the segments: of many entries, only those are unpacked."""
    latest: dict[tuple[str, str], tuple[int, int]] = {}
    heads = segments.heads(tx, server_id, up_to=seq)
    for place, head in enumerate(heads):
        for series in head.series:
            found = series.latest(seq) if series.generation == generation else None
            if found is not None:
                latest[series.name, series.version] = (place, found)
    wanted: dict[int, set[int]] = defaultdict(set)
    for place, found in latest.values():
        wanted[place].add(found)
    return [row for place, seqs in wanted.items() for row in segments.entries(tx, server_id, heads[place], seqs)]

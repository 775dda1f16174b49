"""Moves the oldest settled entries of the journal into a segment, so that what a boot verifies stays small."""

from __future__ import annotations

from sqlalchemy import ColumnElement, delete, select

from mms.records import ChangeOutcome
from mms.store import segments
from mms.store.database import Transaction
from mms.store.segment import line, pack
from mms.store.tables import journal


def pack_oldest(tx: Transaction, server_id: str, last_seq: int, *, loose: int, size: int) -> int:
    """Pack `size` settled entries that are not among the newest `loose`; returns how many too few there are, 0: it was done.

    An entry without an outcome stays where it is and does not hold up what follows: that of an abandoned generation never
    gets one. Where it gets one later, it stays loose as well, so that segments never overlap; there are but few of them.
    Raises Altered where an entry is not what was written.
    """
    where = _may_be_packed(tx, server_id, last_seq - loose)
    seqs = tx.execute(select(journal.c.seq).where(*where).order_by(journal.c.seq).limit(size)).scalars().all()
    if len(seqs) < size:
        return size - len(seqs)
    where = (*where, journal.c.seq <= seqs[-1])
    rows = tx.execute(select(journal).where(*where).order_by(journal.c.seq)).mappings().all()
    segments.add(tx, pack(server_id, rows, [line(row) for row in rows]))
    gone = tx.execute(delete(journal).where(*where)).rowcount
    if gone != len(rows):
        raise RuntimeError(f"{gone} journal entries were removed for the {len(rows)} that were packed")
    return 0


def _may_be_packed(tx: Transaction, server_id: str, up_to: int) -> tuple[ColumnElement[bool], ...]:
    return (
        journal.c.server_id == server_id,
        journal.c.seq > segments.packed_to(tx, server_id),
        journal.c.seq <= up_to,
        journal.c.outcome != ChangeOutcome.PENDING.value,
    )

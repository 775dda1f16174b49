"""The journal_segment table: which segments there are, what they hold, and their entries, verified as they are read."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, select

from mms.store.database import Transaction
from mms.store.seal import intact
from mms.store.segment import Altered, Head, Row, entry, holds_key, may_name, unpack
from mms.store.tables import journal_segment

OPENED_AT_ONCE = 2
"""Segments that one page of the journal opens: some milliseconds in which no change is taken."""

_KEYS = "keys of journal segments"
_HEAD = (journal_segment.c.first_seq, journal_segment.c.last_seq, journal_segment.c.models)


def packed_to(tx: Transaction, server_id: str) -> int:
    """The newest number that a segment holds; 0: there is none."""
    newest = select(journal_segment.c.last_seq).where(_own(server_id)).order_by(journal_segment.c.first_seq.desc())
    return tx.execute(newest.limit(1)).scalar() or 0


def heads(tx: Transaction, server_id: str, *, up_to: int) -> list[Head]:
    """Those that begin at or before a number, ascending."""
    statement = select(*_HEAD).where(_own(server_id), journal_segment.c.first_seq <= up_to)
    return [Head.of(row) for row in tx.execute(statement.order_by(journal_segment.c.first_seq)).mappings()]


def holding(tx: Transaction, server_id: str, seq: int) -> Head | None:
    """The last that begins at or before a number: no other one can hold it."""
    statement = select(*_HEAD).where(_own(server_id), journal_segment.c.first_seq <= seq)
    row = tx.execute(statement.order_by(journal_segment.c.first_seq.desc()).limit(1)).mappings().one_or_none()
    return None if row is None else Head.of(row)


def lines(tx: Transaction, server_id: str, head: Head, wanted: Collection[int]) -> list[bytes]:
    """The packed entries with these numbers, ascending. Raises Altered."""
    statement = select(journal_segment).where(_own(server_id), journal_segment.c.first_seq == head.first_seq)
    row = tx.execute(statement).mappings().one()
    if not intact(journal_segment, row):
        raise Altered(head.what.capitalize())
    return [line for seq, line in zip(head.seqs, unpack(row), strict=True) if seq in wanted]


def entries(tx: Transaction, server_id: str, head: Head, wanted: Collection[int]) -> list[Row]:
    """The entries with these numbers, ascending, as the journal table would give them. Raises Altered."""
    return [entry(line) for line in lines(tx, server_id, head, set(wanted))]


def after(tx: Transaction, server_id: str, model: str | None, seq: int, limit: int) -> tuple[list[Row], int | None]:
    """Entries beyond a number, ascending, and the number up to which these are all; None: there are no further ones.

    Few segments are opened, so there may be fewer than `limit`. Raises Altered.
    """
    found: list[Row] = []
    opened = 0
    for head in _from(tx, server_id, model, seq):
        wanted = [each for each in head.seqs_of(model) if each > seq]
        if not wanted:
            continue
        if opened == OPENED_AT_ONCE:
            return found, head.first_seq - 1
        found += entries(tx, server_id, head, wanted[: limit - len(found)])
        opened += 1
        if len(found) == limit:
            return found, int(found[-1]["seq"])
    return found, None


def by_key(tx: Transaction, server_id: str, generation: int, idempotency_key: str, *, beyond: int) -> Row | None:
    """The newest entry of a generation with this Idempotency-Key, in segments that begin beyond a number. Raises Altered."""
    for first_seq, keys in _keys(tx, server_id):
        if first_seq <= beyond or not holds_key(keys, idempotency_key):
            continue
        head = holding(tx, server_id, first_seq)
        for each in reversed(entries(tx, server_id, head, head.seqs) if head else ()):
            if each["idempotency_key"] == idempotency_key and each["generation"] == generation:
                return each
    return None


def newest_before(tx: Transaction, server_id: str, time: datetime) -> int:
    """The newest number of an entry from before a time, 0 for none. Raises Altered."""
    of_time = select(*_HEAD, journal_segment.c.last_at).where(_own(server_id), journal_segment.c.first_at < time)
    row = tx.execute(of_time.order_by(journal_segment.c.first_seq.desc()).limit(1)).mappings().one_or_none()
    if row is None:
        return 0
    head = Head.of(row)
    if row["last_at"] < time:
        return head.last_seq
    return max(int(each["seq"]) for each in entries(tx, server_id, head, head.seqs) if each["at"] < time)


def oldest_from(tx: Transaction, server_id: str, time: datetime) -> int | None:
    """The oldest number of an entry from a time on, None for none. Raises Altered."""
    of_time = select(*_HEAD, journal_segment.c.first_at).where(_own(server_id), journal_segment.c.last_at >= time)
    row = tx.execute(of_time.order_by(journal_segment.c.first_seq).limit(1)).mappings().one_or_none()
    if row is None:
        return None
    head = Head.of(row)
    if row["first_at"] >= time:
        return head.first_seq
    return min(int(each["seq"]) for each in entries(tx, server_id, head, head.seqs) if each["at"] >= time)


def archives(tx: Transaction, server_id: str) -> set[str]:
    """SHA-256 of every archive that an entry in a segment names whose change did not fail."""
    named = tx.execute(select(journal_segment.c.archives).where(_own(server_id)).distinct()).scalars()
    return {sha256 for text in named for sha256 in text.split("\n") if sha256}


def count(tx: Transaction, server_id: str) -> int:
    """How many entries all segments hold."""
    return int(tx.execute(select(func.sum(journal_segment.c.entries)).where(_own(server_id))).scalar() or 0)


def add(tx: Transaction, values: dict[str, Any]) -> None:
    """Write a segment."""
    tx.info.pop(_KEYS, None)
    tx.execute(insert(journal_segment).values(values))


def remove(tx: Transaction, server_id: str, head: Head) -> None:
    """Take a segment out."""
    tx.info.pop(_KEYS, None)
    tx.execute(delete(journal_segment).where(_own(server_id), journal_segment.c.first_seq == head.first_seq))


def _keys(tx: Transaction, server_id: str) -> list[tuple[int, bytes]]:
    """The first number of each segment with the keys in it, newest first; kept with the connection, the only one that writes.

    Each change with a key asks for them, and reading them from the database is felt (2 ms for 500 segments).
    """
    known: dict[str, list[tuple[int, bytes]]] = tx.info.setdefault(_KEYS, {})
    if server_id not in known:
        statement = select(journal_segment.c.first_seq, journal_segment.c.idempotency_keys).where(_own(server_id))
        found = tx.execute(statement.order_by(journal_segment.c.first_seq.desc()))
        known[server_id] = [(first_seq, keys) for first_seq, keys in found if keys]
    return known[server_id]


def _from(tx: Transaction, server_id: str, model: str | None, seq: int) -> Iterator[Head]:
    """Those that may hold entries of a model beyond a number, ascending; of all models, no more than a page opens."""
    begins = select(func.max(journal_segment.c.first_seq)).where(_own(server_id), journal_segment.c.first_seq <= seq)
    statement = select(*_HEAD).where(_own(server_id), journal_segment.c.last_seq > seq)
    statement = statement.where(journal_segment.c.first_seq >= func.coalesce(begins.scalar_subquery(), 0))
    if model is None:
        statement = statement.limit(OPENED_AT_ONCE + 1)
    for row in tx.execute(statement.order_by(journal_segment.c.first_seq)).mappings():
        if model is None or may_name(row["models"], model):
            yield Head.of(row)


def _own(server_id: str) -> ColumnElement[bool]:
    return journal_segment.c.server_id == server_id

"""Whether a store is whole: the database's own check, every row's hash, and the numbers against each other."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import RowMapping, Table, func, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError, StatementError

from mms.store import journal as entries
from mms.store import meta, segment, segments
from mms.store.database import Transaction
from mms.store.seal import intact
from mms.store.tables import (
    incarnation,
    journal,
    journal_segment,
    load_attempt,
    metadata,
    registration,
    store_meta,
)
from mms.store.trouble import Kind, classify

MOST_FINDINGS = 20
READ_AT_ONCE = 20  # rows: a segment has some tens of kilobytes

_NAMED_BY = {
    store_meta: ("server_id",),
    incarnation: ("epoch",),
    registration: ("generation", "name", "version"),
    load_attempt: ("epoch", "name", "version"),
    journal: ("seq",),
    journal_segment: ("first_seq", "last_seq"),
}

_NOT_IN_INDEX = text(
    "SELECT there.first_seq FROM journal_segment AS there NOT INDEXED WHERE NOT EXISTS ("
    " SELECT 1 FROM journal_segment AS led INDEXED BY sqlite_autoindex_journal_segment_1"
    " WHERE led.server_id = there.server_id AND led.first_seq = there.first_seq AND led.rowid = there.rowid)"
)
"""What an integrity check of the table would find of its index; but that reads every segment whole, once more."""


def findings(tx: Transaction, server_id: str, *, within: bool = False) -> list[str]:
    """Everything that is wrong with one server's rows, at most MOST_FINDINGS, one sentence each; empty: the store is whole.

    Every row is compared with its hash, a journal segment's over all that it holds; `within` also unpacks the segments and
    compares each entry. Raises what the database raises where that says nothing about the content (it went away).
    """
    found: list[str] = []
    for finding in _findings(tx, server_id, within):
        found.append(finding)
        if len(found) == MOST_FINDINGS:
            break
    return found


def with_pages(tx: Transaction, server_id: str, *, within: bool = False) -> list[str]:
    """What `findings` finds, and on SQLite before it what the database's own full check does."""
    try:
        found = [f"SQLite: {line}" for line in pages(tx, quick=False)] if tx.dialect.name == "sqlite" else []
    except SQLAlchemyError as error:
        return [_unreadable("the database", error)]
    return [*found, *findings(tx, server_id, within=within)][:MOST_FINDINGS]


def _findings(tx: Transaction, server_id: str, within: bool) -> Iterator[str]:
    readable = True
    for table in metadata.sorted_tables:
        for finding in _altered(tx, table, server_id, within):
            readable = False
            yield finding
    if readable:
        yield from _numbers(tx, server_id)
        yield from _overlaps(tx, server_id)
        yield from _missing(tx, server_id)


def pages(tx: Transaction, *, quick: bool) -> list[str]:
    """What SQLite itself finds; empty: nothing. `quick` leaves out what grows with the journal: its rows are hashed anyway."""
    checks = [f"integrity_check({MOST_FINDINGS})"]
    there: set[str] = set()
    if quick:
        there = set(inspect(tx).get_table_names())  # none yet where the first boot of all was killed
        small = there & {table.name for table in metadata.sorted_tables} - {journal.name, journal_segment.name}
        checks = [f"quick_check({MOST_FINDINGS})", *(f"integrity_check({name})" for name in sorted(small))]
    lines = [line for check in checks for line in tx.execute(text(f"PRAGMA {check}")).scalars()]
    found = [str(line) for line in lines if line != "ok"]
    if journal_segment.name in there:
        lost = tx.execute(_NOT_IN_INDEX).scalars()
        found += [f"table journal_segment: the index does not lead to the segment that begins at {seq}" for seq in lost]
    return found


def loose_entries(tx: Transaction, server_id: str) -> int:
    """How many journal entries are not packed: what a boot verifies one by one."""
    return tx.execute(select(func.count()).where(journal.c.server_id == server_id)).scalar_one()


def _not_as_written(table: Table, row: RowMapping) -> str:
    name = ", ".join(f"{column} {row[column]}" for column in _NAMED_BY[table])
    return f"table {table.name}, {name}: the row is not what was written (its SHA-256 differs)"


def _altered(tx: Transaction, table: Table, server_id: str, within: bool) -> Iterator[str]:
    statement = select(table).where(table.c.server_id == server_id)
    # A few at a time: memory that is used again is faster than fresh memory for a whole journal.
    statement = statement.execution_options(yield_per=READ_AT_ONCE)
    try:
        for row in tx.execute(statement).mappings():
            if not intact(table, row):
                yield _not_as_written(table, row)
            elif within and table is journal_segment:
                yield from segment.contradictions(row)
    except (SQLAlchemyError, ValueError, TypeError, AttributeError) as error:
        yield _unreadable(f"table {table.name}", error)


def _unreadable(what: str, error: Exception) -> str:
    """A value that cannot be decoded is damage; a database that cannot be reached is not."""
    if isinstance(error, SQLAlchemyError) and not isinstance(error, StatementError):
        raise error
    trouble = classify(error)
    if trouble.kind in (Kind.AWAY, Kind.BUSY, Kind.IO):
        raise error
    return f"{what}: a row cannot be read ({trouble.message})"


def _numbers(tx: Transaction, server_id: str) -> Iterator[str]:
    """The row of store_meta against what the other tables hold."""
    own = meta.read(tx, server_id)
    if own is None:
        for table in (incarnation, registration, journal, journal_segment):
            if tx.execute(select(func.count()).select_from(table).where(table.c.server_id == server_id)).scalar_one():
                yield f"table {table.name} has rows of server {server_id}, but table store_meta has none"
        return
    newest = tx.execute(
        select(incarnation.c.epoch, incarnation.c.generation)
        .where(incarnation.c.server_id == server_id)
        .order_by(incarnation.c.epoch.desc())
        .limit(1)
    ).first()
    if newest is None or tuple(newest) != (own.epoch, own.generation):
        yield f"store_meta is at epoch {own.epoch}, generation {own.generation}; the newest incarnation is {newest}"
    for numbers in (registration.c.seq, journal.c.seq, journal_segment.c.last_seq):
        table = numbers.table
        top = tx.execute(select(func.max(numbers)).where(table.c.server_id == server_id)).scalar() or 0
        if top > own.last_seq:
            yield f"table {table.name} reaches journal number {top}, store_meta only {own.last_seq}"


def _overlaps(tx: Transaction, server_id: str) -> Iterator[str]:
    """An entry is in one place only: in a row of its own or in one segment."""
    own = journal_segment.c.server_id == server_id
    ranges = select(journal_segment.c.first_seq, journal_segment.c.last_seq).where(own)
    packed_to = 0
    for first, last in tx.execute(ranges.order_by(journal_segment.c.first_seq)):
        if first <= packed_to or last < first:
            yield f"table journal_segment: the segment {first} to {last} overlaps the one before it, which ends at {packed_to}"
        packed_to = last
    # The few that had no outcome when what surrounds them was packed.
    between = select(journal.c.seq).where(journal.c.server_id == server_id, journal.c.seq <= packed_to)
    for seq in tx.execute(between.order_by(journal.c.seq)).scalars().all():
        head = segments.holding(tx, server_id, seq)
        if head is not None and seq in head.seqs:
            yield f"journal entry {seq} is there twice: in table journal and in the {head.what}"


def _missing(tx: Transaction, server_id: str) -> Iterator[str]:
    """Every entry has a hash, and so has their number: a removed one is missed as well."""
    own = meta.read(tx, server_id)
    held = entries.count(tx, server_id)
    if own is not None and own.entries not in (None, held):
        yield f"the journal has {held} entries, and should have {own.entries}"

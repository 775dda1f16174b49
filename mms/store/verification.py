"""Whether a store is whole: the database's own check, every row's hash, and the numbers against each other."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import RowMapping, Table, func, inspect, or_, select, text
from sqlalchemy.exc import SQLAlchemyError, StatementError

from mms.records import ChangeOutcome
from mms.store import meta
from mms.store.database import Transaction
from mms.store.seal import intact
from mms.store.tables import incarnation, journal, load_attempt, metadata, registration, store_meta
from mms.store.trouble import Kind, classify

MOST_FINDINGS = 20

AT_BOOT = 1000
"""Journal entries that a boot looks at, the newest, and every pending one: it believes no older, and their number must not be felt."""

OLDER_AT_ONCE = 20
"""Entries that are verified in one go beside the work: about two milliseconds in which no change is taken."""

_NAMED_BY = {
    store_meta: ("server_id",),
    incarnation: ("epoch",),
    registration: ("generation", "name", "version"),
    load_attempt: ("epoch", "name", "version"),
    journal: ("seq",),
}


def findings(tx: Transaction, server_id: str, *, newest: int | None = None) -> list[str]:
    """Everything that is wrong with one server's rows, at most MOST_FINDINGS, one sentence each; empty: the store is whole.

    With `newest`, only so many closed journal entries are read, and the database's own check is left to `pages`.
    Raises what the database raises where that says nothing about the content (it went away).
    """
    found: list[str] = []
    for finding in _findings(tx, server_id, newest):
        found.append(finding)
        if len(found) == MOST_FINDINGS:
            break
    return found


def _findings(tx: Transaction, server_id: str, newest: int | None) -> Iterator[str]:
    if tx.dialect.name == "sqlite" and newest is None:
        try:
            for line in pages(tx, quick=False):
                yield f"SQLite: {line}"
        except SQLAlchemyError as error:
            yield _unreadable("the database", error)
            return
    readable = True
    for table in metadata.sorted_tables:
        for finding in _altered(tx, table, server_id, newest):
            readable = False
            yield finding
    if readable:
        yield from _numbers(tx, server_id)


def pages(tx: Transaction, *, quick: bool) -> list[str]:
    """What SQLite itself finds; empty: nothing. `quick` leaves out the journal's indexes, which grow with it."""
    checks = [f"integrity_check({MOST_FINDINGS})"]
    if quick:
        there = set(inspect(tx).get_table_names())  # none yet where the first boot of all was killed
        small = [table.name for table in metadata.sorted_tables if table is not journal and table.name in there]
        checks = [f"quick_check({MOST_FINDINGS})", *(f"integrity_check({name})" for name in small)]
    lines = [line for check in checks for line in tx.execute(text(f"PRAGMA {check}")).scalars()]
    return [str(line) for line in lines if line != "ok"]


def older_entries(tx: Transaction, server_id: str, below: int | None) -> tuple[list[str], int]:
    """The entries that a boot leaves out, a few at a time from the newest down: what is wrong with them, and where to go on.

    `below` is the number that the last call gave back, None for the first; 0 means that there are no more.
    """
    numbers = select(journal.c.seq).where(journal.c.server_id == server_id).order_by(journal.c.seq.desc())
    if below is None:
        below = tx.execute(numbers.offset(AT_BOOT - 1).limit(1)).scalar()
    if not below:
        return [], 0
    statement = select(journal).where(journal.c.server_id == server_id, journal.c.seq < below)
    read = list(tx.execute(statement.order_by(journal.c.seq.desc()).limit(OLDER_AT_ONCE)).mappings())
    found = [_not_as_written(journal, row) for row in read if not intact(journal, row)]
    return found, int(read[-1]["seq"]) if len(read) == OLDER_AT_ONCE else 0


def _not_as_written(table: Table, row: RowMapping) -> str:
    name = ", ".join(f"{column} {row[column]}" for column in _NAMED_BY[table])
    return f"table {table.name}, {name}: the row is not what was written (its SHA-256 differs)"


def _altered(tx: Transaction, table: Table, server_id: str, newest: int | None) -> Iterator[str]:
    statement = select(table).where(table.c.server_id == server_id)
    if table is journal and newest is not None:
        last = select(func.max(journal.c.seq)).where(journal.c.server_id == server_id).scalar_subquery()
        pending = journal.c.outcome == ChangeOutcome.PENDING.value
        statement = statement.where(or_(journal.c.seq > last - newest, pending))
    try:
        for row in tx.execute(statement).mappings():
            if not intact(table, row):
                yield _not_as_written(table, row)
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
        for table in (incarnation, registration, journal):
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
    for table in (registration, journal):
        top = tx.execute(select(func.max(table.c.seq)).where(table.c.server_id == server_id)).scalar() or 0
        if top > own.last_seq:
            yield f"table {table.name} reaches journal number {top}, store_meta only {own.last_seq}"

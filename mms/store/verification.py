"""Whether a store is whole: the database's own check, every row's hash, and the numbers against each other."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Table, func, select, text
from sqlalchemy.exc import SQLAlchemyError, StatementError

from mms.store import meta
from mms.store.database import Transaction
from mms.store.seal import intact
from mms.store.tables import incarnation, journal, load_attempt, metadata, registration, store_meta
from mms.store.trouble import Kind, classify

MOST_FINDINGS = 20

_NAMED_BY = {
    store_meta: ("server_id",),
    incarnation: ("epoch",),
    registration: ("generation", "name", "version"),
    load_attempt: ("epoch", "name", "version"),
    journal: ("seq",),
}


def findings(tx: Transaction, server_id: str) -> list[str]:
    """Everything that is wrong with one server's rows, at most MOST_FINDINGS, one sentence each; empty: the store is whole.

    Raises what the database raises where that says nothing about the content (it went away).
    """
    found: list[str] = []
    for finding in _findings(tx, server_id):
        found.append(finding)
        if len(found) == MOST_FINDINGS:
            break
    return found


def _findings(tx: Transaction, server_id: str) -> Iterator[str]:
    if tx.dialect.name == "sqlite":
        try:
            for line in tx.execute(text(f"PRAGMA integrity_check({MOST_FINDINGS})")).scalars():
                if line != "ok":
                    yield f"SQLite: {line}"
        except SQLAlchemyError as error:
            yield _unreadable("the database", error)
            return
    readable = True
    for table in metadata.sorted_tables:
        for finding in _altered(tx, table, server_id):
            readable = False
            yield finding
    if readable:
        yield from _numbers(tx, server_id)


def _altered(tx: Transaction, table: Table, server_id: str) -> Iterator[str]:
    try:
        for row in tx.execute(select(table).where(table.c.server_id == server_id)).mappings():
            if not intact(table, row):
                name = ", ".join(f"{column} {row[column]}" for column in _NAMED_BY[table])
                yield f"table {table.name}, {name}: the row is not what was written (its SHA-256 differs)"
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

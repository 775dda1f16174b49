"""The connection to the database: one engine with one connection, its transactions, its clock; no table by name."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, event, func, select, text
from sqlalchemy import create_engine as sqlalchemy_engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from mms.errors import UsageError
from mms.store.location import Location
from mms.store.trouble import Kind, Trouble, classify
from mms.store.wire import Wire

Transaction = Connection
"""What the functions of this room take: a connection with a transaction open; the caller began it and ends it."""

PAGE_SIZE = 8192
"""Bytes of a page of a store that is made new; an older one keeps its own. A boot reads every page: larger ones are fewer."""

SQLITE_PRAGMAS = (
    "PRAGMA busy_timeout = 5000",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA wal_autocheckpoint = 200",
    "PRAGMA mmap_size = 0",
    f"PRAGMA page_size = {PAGE_SIZE}",
)

POSTGRES_CONNECT = {
    "connect_timeout": 3,
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
    "target_session_attrs": "read-write",
}

POSTGRES_SESSION = (
    "SET synchronous_commit = on",
    "SET statement_timeout = '5s'",
    "SET lock_timeout = '3s'",
    "SET idle_in_transaction_session_timeout = '10s'",
    "SET timezone = 'UTC'",
)


class Database:
    """One database with one connection, used by one thread."""

    def __init__(self, location: Location, wire: Wire | None = None, *, read_only: bool = False) -> None:
        self.location = location
        self._mode = "ro" if read_only else "rwc"
        self._engine = create_engine(location, lambda: self._mode)
        if wire is not None and not location.sqlite:
            # First of all: the session's own set-up can hang, too.
            event.listen(self._engine, "connect", lambda made, _record: wire.attach("store", made), insert=True)
        self._inode: tuple[int, int] | None = None
        self._backend: tuple[int, datetime] | None = None

    @contextmanager
    def transaction(self, *, read_only: bool = False) -> Iterator[Transaction]:
        """BEGIN (IMMEDIATE on SQLite) to COMMIT, or ROLLBACK where the block raises or `read_only` is set.

        Raises Trouble for anything that the database or the way to it did wrong; `uncertain` once COMMIT was sent.
        """
        committing = False
        try:
            with self._engine.connect() as connection, connection.begin() as transaction:
                self._note_backend(connection)
                yield connection
                if read_only:
                    transaction.rollback()
                else:
                    committing = True
                    transaction.commit()
        except (DBAPIError, PoolTimeout) as error:
            trouble = self.trouble(error)
            # A full disk, a lock or a time limit at COMMIT is a clear no: the commit record was not written.
            trouble.uncertain = committing and trouble.kind not in (Kind.BUSY, Kind.FULL)
            raise trouble from error

    def trouble(self, error: SQLAlchemyError) -> Trouble:
        """The trouble behind an error, with no password in its words."""
        found = classify(error)
        found.message = self.location.redacted(found.message)
        return found

    def execute_outside_transaction(self, statement: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
        """SQLite: run a statement that no transaction may hold, such as VACUUM; returns its first row. Raises Trouble."""
        try:
            connection = self._engine.raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute(statement, values)
                row: tuple[Any, ...] | None = cursor.fetchone()
                cursor.close()
            finally:
                connection.close()
        except (sqlite3.Error, SQLAlchemyError) as error:
            raise classify(error) from error
        return row

    def empty_log(self) -> None:
        """SQLite: bring everything from the write-ahead log into the database file and sync that. Raises Trouble.

        After a failed sync this is the only proof there is: reading back proves nothing, since it reads from memory, and a
        second sync of the same pages succeeds without writing them. Copied pages are written, and synced, anew.
        """
        if not self.location.sqlite:
            return
        answer = self.execute_outside_transaction("PRAGMA wal_checkpoint(TRUNCATE)")
        if not answer or answer[0] != 0:
            raise Trouble(Kind.BUSY, "another process reads the store, so that its log cannot be emptied")

    def reopen(self, *, create: bool = False) -> None:
        """Close every handle; the next transaction opens anew. After a failed sync, nothing on the old handle can be believed.

        An SQLite file that is gone by then is not made again, unless `create` is set.
        """
        self._engine.dispose()
        self._inode = None
        self._mode = "rwc" if create else "rw"

    def close(self) -> None:
        """Close; SQLite checkpoints and removes its write-ahead log."""
        self._engine.dispose()

    def end_lost_backend(self) -> None:
        """Postgres: end the session that we lost while it may still be committing, so that its outcome becomes definite."""
        if self._backend is None:
            return
        pid, started = self._backend
        self._backend = None
        statement = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = :pid AND backend_start = :started"
        )
        with self.transaction(read_only=True) as tx:
            tx.execute(statement, {"pid": pid, "started": started})

    def check_file(self) -> None:
        """SQLite: raise Trouble where the open file is no longer the file at its place (commits to it would be lost)."""
        path = self.location.path
        if path is None:
            return
        try:
            found = path.stat()
        except OSError as error:
            raise Trouble(Kind.DAMAGED, f"the file {path} is gone ({error.strerror})") from error
        inode = (found.st_dev, found.st_ino)
        if self._inode is None:
            self._inode = inode
        elif self._inode != inode:
            raise Trouble(Kind.DAMAGED, f"the file {path} was replaced while it was open")

    def _note_backend(self, connection: Connection) -> None:
        """Remember which session of the server is ours, once for each connection."""
        if self.location.sqlite or "backend" in connection.info:
            return
        row = connection.execute(
            text("SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()")
        ).one()
        connection.info["backend"] = self._backend = (int(row[0]), row[1])


def now(tx: Transaction) -> datetime:
    """The time: the database's own clock on Postgres, UTC on SQLite. For people; nothing is decided by it."""
    if tx.dialect.name == "sqlite":
        return datetime.now(UTC)
    found: datetime = tx.execute(select(func.clock_timestamp())).scalar_one()
    return found.astimezone(UTC)


def create_engine(location: Location, mode: Callable[[], str]) -> Engine:
    """An engine with at most one connection. `mode` gives SQLite's: `ro` neither writes nor checkpoints, `rwc` creates."""
    if location.path is None:
        return _postgres_engine(location)
    engine = sqlalchemy_engine(
        "sqlite+pysqlite://",
        poolclass=QueuePool,
        creator=lambda: _connect_sqlite(location, mode()),
        pool_size=1,
        max_overflow=0,
        pool_timeout=5,
    )

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if mode() == "ro" else "BEGIN IMMEDIATE")

    event.listen(engine, "begin", begin)
    return engine


def _connect_sqlite(location: Location, mode: str) -> sqlite3.Connection:
    path = location.path
    assert path is not None
    # isolation_level None: the module begins nothing by itself, so that the "begin" event above is the only BEGIN.
    connection = sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, isolation_level=None)
    try:
        if mode == "ro":
            connection.execute("PRAGMA busy_timeout = 5000")
            return connection
        for pragma in SQLITE_PRAGMAS:
            connection.execute(pragma)
        found = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if str(found).lower() != "wal":
            raise UsageError(
                f"store: {path} cannot use write-ahead logging (it stays in {found}): move it to a local disk"
            )
    except BaseException:
        connection.close()
        raise
    return connection


def _postgres_engine(location: Location) -> Engine:
    # What the URL says itself wins over our defaults.
    said = {name: value for name, value in POSTGRES_CONNECT.items() if name not in location.url.query}
    engine = sqlalchemy_engine(
        location.url,
        pool_size=1,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=True,
        connect_args={**said, "application_name": "mms store"},
    )
    event.listen(engine, "connect", _set_up_session)
    return engine


def _set_up_session(connection: Any, _record: Any) -> None:
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in POSTGRES_SESSION:
            cursor.execute(statement)
    connection.autocommit = False

"""What can go wrong between us and a database, in five kinds that both dialects share; no policy."""

from __future__ import annotations

import sqlite3
import sys
from enum import StrEnum

from sqlalchemy import exc


class Kind(StrEnum):
    """What a failure asks of the store."""

    AWAY = "away"  # cannot be reached or opened: refuse at once, probe until it is back
    FULL = "full"  # no space: the ballast may let essential writes through
    IO = "io"  # a read, write or sync failed: never again on the same handle
    BUSY = "busy"  # a lock or time limit: this one transaction failed, no more
    DAMAGED = "damaged"  # the database itself says that it is not whole
    WRONG = "wrong"  # anything else: a statement or value that the database does not take


class Trouble(Exception):
    """A transaction that failed. `uncertain` is True where COMMIT was sent and not answered with yes."""

    def __init__(self, kind: Kind, message: str, *, uncertain: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.uncertain = uncertain


_SQLITE_KINDS = {
    sqlite3.SQLITE_BUSY: Kind.BUSY,
    sqlite3.SQLITE_LOCKED: Kind.BUSY,
    sqlite3.SQLITE_READONLY: Kind.AWAY,
    sqlite3.SQLITE_CANTOPEN: Kind.AWAY,
    sqlite3.SQLITE_PERM: Kind.AWAY,
    sqlite3.SQLITE_IOERR: Kind.IO,
    sqlite3.SQLITE_FULL: Kind.FULL,
    sqlite3.SQLITE_CORRUPT: Kind.DAMAGED,
    sqlite3.SQLITE_NOTADB: Kind.DAMAGED,
    sqlite3.SQLITE_SCHEMA: Kind.DAMAGED,
}

_POSTGRES_KINDS = {
    "25006": Kind.AWAY,  # read-only: we talk to a standby
    "53100": Kind.FULL,
    "53200": Kind.AWAY,
    "53300": Kind.AWAY,
    "55P03": Kind.BUSY,  # lock_timeout
    "57014": Kind.BUSY,  # statement_timeout
    "40001": Kind.BUSY,
    "40P01": Kind.BUSY,
    "42P01": Kind.DAMAGED,  # a table or a column is gone
    "42703": Kind.DAMAGED,
    "58030": Kind.IO,
    "XX001": Kind.DAMAGED,
    "XX002": Kind.DAMAGED,
}


def classify(error: Exception) -> Trouble:
    """The trouble behind an error of SQLAlchemy or of a driver."""
    cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    lost = isinstance(error, exc.DBAPIError) and error.connection_invalidated
    text = first_line(cause)
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)
        if code is None:  # raised by the module itself: bytes that are no UTF-8, a row that cannot be read
            return Trouble(Kind.DAMAGED if isinstance(cause, sqlite3.OperationalError) else Kind.WRONG, text)
        return Trouble(_SQLITE_KINDS.get(code & 0xFF, Kind.WRONG), text)
    # With SQLite nothing has imported the driver, which takes a tenth of a boot: then no error can be its own.
    psycopg = sys.modules.get("psycopg")
    if psycopg is not None and isinstance(cause, psycopg.Error):
        state: str | None = cause.sqlstate
        if lost or (state is None and isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)):
            return Trouble(Kind.AWAY, text)
        if state is not None:
            away = state.startswith(("08", "28", "3D", "57P"))
            return Trouble(Kind.AWAY if away else _POSTGRES_KINDS.get(state, Kind.WRONG), text)
    if isinstance(error, exc.TimeoutError):
        return Trouble(Kind.AWAY, text)
    return Trouble(Kind.WRONG, text)


def first_line(error: BaseException) -> str:
    """One line of an error's text, for logs and answers."""
    text = str(error).strip()
    return " ".join(text.split())[:300] if text else type(error).__name__

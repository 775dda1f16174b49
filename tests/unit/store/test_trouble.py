from __future__ import annotations

import sqlite3

import psycopg
import pytest
from psycopg import errors
from sqlalchemy.exc import DBAPIError

from mms.store.trouble import Kind, classify


def from_sqlite(code: int) -> DBAPIError:
    cause = sqlite3.OperationalError("said so")
    cause.sqlite_errorcode = code
    return DBAPIError("SELECT 1", {}, cause)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_BUSY, Kind.BUSY),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Kind.BUSY),
        (sqlite3.SQLITE_FULL, Kind.FULL),
        (sqlite3.SQLITE_IOERR_FSYNC, Kind.IO),
        (sqlite3.SQLITE_IOERR_WRITE, Kind.IO),
        (sqlite3.SQLITE_READONLY_DBMOVED, Kind.AWAY),
        (sqlite3.SQLITE_CANTOPEN, Kind.AWAY),
        (sqlite3.SQLITE_CORRUPT_INDEX, Kind.DAMAGED),
        (sqlite3.SQLITE_NOTADB, Kind.DAMAGED),
        (sqlite3.SQLITE_ERROR, Kind.WRONG),
    ],
)
def test_sqlite_errors_fall_into_kinds_by_their_primary_code(code: int, kind: Kind) -> None:
    assert classify(from_sqlite(code)).kind is kind


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (psycopg.OperationalError("no answer"), Kind.AWAY),
        (errors.AdminShutdown("57P01"), Kind.AWAY),
        (errors.ConnectionFailure("08006"), Kind.AWAY),
        (errors.ReadOnlySqlTransaction("a standby"), Kind.AWAY),
        (errors.DiskFull("53100"), Kind.FULL),
        (errors.QueryCanceled("57014"), Kind.BUSY),
        (errors.LockNotAvailable("55P03"), Kind.BUSY),
        (errors.UndefinedTable("42P01"), Kind.DAMAGED),
        (errors.IoError("58030"), Kind.IO),
        (errors.InsufficientPrivilege("42501"), Kind.WRONG),
    ],
)
def test_postgres_errors_fall_into_the_same_kinds(cause: Exception, kind: Kind) -> None:
    assert classify(DBAPIError("SELECT 1", {}, cause)).kind is kind


def test_a_connection_that_was_lost_is_away_whatever_it_said() -> None:
    lost = DBAPIError("SELECT 1", {}, errors.UndefinedTable("x"), connection_invalidated=True)
    assert classify(lost).kind is Kind.AWAY


def test_the_message_is_one_line() -> None:
    assert classify(ValueError("two\n  lines")).message == "two lines"

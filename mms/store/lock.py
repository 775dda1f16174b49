"""Who owns the store: a kernel lock beside an SQLite file, a session lock in Postgres; never a pid, a time or a heartbeat."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, event, text
from sqlalchemy import create_engine as sqlalchemy_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from mms.errors import StoreInUse
from mms.store.database import POSTGRES_CONNECT
from mms.store.location import Location
from mms.store.trouble import Kind, Trouble, classify
from mms.store.wire import Wire

logger = logging.getLogger(__name__)


SERVER_KEEPALIVES = (
    "SET statement_timeout = '5s'",
    "SET tcp_keepalives_idle = 2",
    "SET tcp_keepalives_interval = 1",
    "SET tcp_keepalives_count = 3",
    "SET tcp_user_timeout = 5000",
)
"""The server's end of the connection: a holder whose machine died frees the lock in about 6 s."""


class Lock(Protocol):
    """Held from before anything is read until after everything is written; the kernel or the database frees it at death."""

    def acquire(self) -> None:
        """Take it, without waiting. Raises StoreInUse, naming the holder, or Trouble."""

    def describe(self, epoch: int) -> None:
        """Leave word of who holds it, for the message that others get; nothing is decided by it."""

    def held(self) -> bool:
        """False once somebody else has it or could have it. Raises Trouble where that cannot be asked."""

    def release(self) -> None:
        """Give it back."""


class FileLock:
    """`flock` on a file beside the store, which is never removed. The handle is not inherited by workers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def acquire(self) -> None:
        """Take it, without waiting."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _os_trouble(error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 4096, 0)
            os.close(fd)
            raise StoreInUse(f"The store's lock {self.path} is held by {_holder(holder)}.") from None
        except OSError as error:
            os.close(fd)
            raise _os_trouble(error) from error
        self.release()  # a handle on a file that was replaced
        self._fd = fd

    def describe(self, epoch: int) -> None:
        """Write host, pid and epoch into the file."""
        content = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "epoch": epoch}).encode() + b"\n"
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, content, 0)
        except OSError as error:  # a full disk: the lock itself holds without words
            logger.warning("The lock file %s could not be written: %s", self.path, error.strerror)

    def held(self) -> bool:
        """A held flock is lost by nobody else's doing, but the file could be replaced: then others lock another one."""
        try:
            return self._fd >= 0 and os.path.samestat(self.path.stat(), os.fstat(self._fd))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _os_trouble(error) from error

    def release(self) -> None:
        """Closing the handle frees the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class SessionLock:
    """A session advisory lock, keyed by server, on a connection of its own."""

    def __init__(self, location: Location, server_id: str, wire: Wire) -> None:
        self._location = location
        self._server_id = server_id
        digest = hashlib.sha256(f"mms store lock\n{server_id}".encode()).digest()
        self._key = int.from_bytes(digest[:8], "big", signed=True)
        said = {name: value for name, value in POSTGRES_CONNECT.items() if name not in location.url.query}
        name = f"mms lock of {socket.gethostname()} pid {os.getpid()}"[:63]
        self._engine = sqlalchemy_engine(
            location.url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={**said, "application_name": name},
        )
        event.listen(self._engine, "connect", lambda made, _record: wire.attach("lock", made), insert=True)
        self._connection: Connection | None = None
        self._session: tuple[int, datetime] | None = None

    def acquire(self) -> None:
        """Take it, without waiting."""
        self.release()
        try:
            connection = self._engine.connect()
            try:
                self._set_up(connection)
                if not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": self._key}).scalar_one():
                    raise StoreInUse(
                        f"The store {self._location.shown} (server_id {self._server_id}) is in use: "
                        f"{self._holder(connection)}."
                    )
            except BaseException:
                connection.close()
                raise
        except DBAPIError as error:
            raise self._trouble(error) from error
        self._connection = connection

    def _set_up(self, connection: Connection) -> None:
        """Let the server notice a dead holder within seconds, and end our own earlier session if it has not noticed that one."""
        for statement in SERVER_KEEPALIVES:
            connection.execute(text(statement))
        if self._session is not None:
            end = (
                "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity "
                "WHERE pid = :pid AND backend_start = :started"
            )
            connection.execute(text(end), {"pid": self._session[0], "started": self._session[1]})
        own = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        row = connection.execute(text(own)).one()
        self._session = (int(row[0]), row[1])

    def _holder(self, connection: Connection) -> str:
        statement = text(
            "SELECT a.application_name, a.client_addr FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
            "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database()) "
            "AND ((l.classid::bigint << 32) | l.objid::bigint) = :key"
        )
        row = connection.execute(statement, {"key": self._key}).first()
        if row is None:
            return "its lock was held a moment ago"
        return f"it is held by the {row[0]}" + (f", connected from {row[1]}" if row[1] else "")

    def describe(self, epoch: int) -> None:
        """Put the epoch into the session's name."""
        name = f"mms lock of {socket.gethostname()} pid {os.getpid()} epoch {epoch}"[:63]
        if self._connection is None:
            return
        try:
            self._connection.execute(text("SELECT set_config('application_name', :name, false)"), {"name": name})
        except DBAPIError as error:
            raise self._trouble(error) from error

    def held(self) -> bool:
        """Ask on the lock's own connection: with the connection, the lock is lost."""
        if self._connection is None:
            return False
        try:
            self._connection.execute(text("SELECT 1"))
        except DBAPIError as error:
            logger.warning("The connection that holds the store's lock is lost: %s", self._trouble(error).message)
            self.release()
            return False
        return True

    def release(self) -> None:
        """Free it and end the session. That would free it too, but only once the server comes to it: the next one may be there."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            try:
                if not connection.invalidated:  # one that was lost has no lock any more
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": self._key})
            except DBAPIError:
                logger.debug("The lock's connection was lost before the lock was given back.", exc_info=True)
            try:
                connection.close()
            except DBAPIError:
                logger.debug("The lock's connection was lost before it was closed.", exc_info=True)

    def _trouble(self, error: DBAPIError) -> Trouble:
        trouble = classify(error)
        trouble.message = self._location.redacted(trouble.message)
        return trouble


def _holder(content: bytes) -> str:
    try:
        said = json.loads(content)
        epoch = said["epoch"]
        return f"host {said['host']}, pid {said['pid']}, " + (f"epoch {epoch}" if epoch else "still starting")
    except (ValueError, KeyError, TypeError):
        return "a server that is just starting"


def _os_trouble(error: OSError) -> Trouble:
    return Trouble(Kind.AWAY, f"{error.filename or 'lock file'}: {error.strerror}")

"""Where a store is: reads `store` URLs, checks the file system, and names the files that go with a store; opens nothing."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from mms.errors import UsageError

# f_type of statfs(2). Their locks or their syncs do not do what SQLite needs.
NETWORK_FILE_SYSTEMS = {
    0x6969: "nfs",
    0x517B: "smb",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x01021997: "9p",
}


@dataclass(frozen=True, slots=True)
class Location:
    """A parsed store URL. `path` is the absolute file of an SQLite store and None for Postgres."""

    url: URL
    path: Path | None
    password: str

    @property
    def sqlite(self) -> bool:
        """True for SQLite, False for Postgres."""
        return self.path is not None

    @property
    def shown(self) -> str:
        """The URL as it may be shown: no password, no query."""
        if self.path is not None:
            return f"sqlite:///{self.path}"
        return self.url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)

    def redacted(self, text: str) -> str:
        """The text with the password taken out, should a library have put it in."""
        if not self.password:
            return text
        # As a word of its own: a short password is also a part of ordinary words.
        return re.sub(rf"(?<![A-Za-z0-9]){re.escape(self.password)}(?![A-Za-z0-9])", "***", text)

    def file(self, suffix: str) -> Path:
        """A file that goes with an SQLite store, such as `-wal` or `.lock`."""
        if self.path is None:
            raise ValueError("only an SQLite store has files")
        return self.path.with_name(self.path.name + suffix)


def parse(url: str) -> Location:
    """Read a store URL. Raises UsageError, without repeating the URL: it may hold a password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise UsageError("store: not a URL; expected sqlite:////absolute/path or postgresql://host/database") from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:" or parsed.query or parsed.host:
            raise UsageError("store: an SQLite URL names a file and nothing else: sqlite:////absolute/path")
        return Location(parsed, Path(parsed.database).expanduser().resolve(), "")
    if backend in ("postgresql", "postgres"):
        password = parsed.query.get("password", "") or parsed.password or ""
        return Location(parsed.set(drivername="postgresql+psycopg"), None, str(password))
    raise UsageError(
        f"store: {backend} is not supported; expected sqlite:////absolute/path or postgresql://host/database"
    )


def witness_file(location: Location, server_id: str, data_dir: Path) -> Path:
    """The default place of the witness: one file for each server and store, in `data_dir`."""
    if location.path is not None:
        root = data_dir.resolve()
        inside = location.path.is_relative_to(root)
        # Relative where it can be, so that a data_dir that moves takes its witness along.
        identity = str(location.path.relative_to(root) if inside else location.path)
    else:
        query = location.url.query
        host = location.url.host or query.get("host") or ""
        port = location.url.port or query.get("port") or 5432
        identity = f"{host}:{port}/{location.url.database}"
    mark = hashlib.sha256(f"{server_id}\n{identity}".encode()).hexdigest()[:12]
    name = re.sub(r"[^A-Za-z0-9._-]", "_", server_id)[:64] or "server"
    return data_dir / f"{name}-{mark}.witness"


def network_file_system(folder: Path) -> str | None:
    """Name of the network file system that a folder lies on, None for a local one or where it cannot be told."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "statfs"):
        return None
    answer = (ctypes.c_long * 64)()
    if libc.statfs(os.fsencode(folder), ctypes.byref(answer)) != 0:
        return None
    return NETWORK_FILE_SYSTEMS.get(answer[0] & 0xFFFFFFFF)

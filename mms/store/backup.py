"""Whole copies of an SQLite store, made with VACUUM INTO and synced before they get their name."""

from __future__ import annotations

import os
from pathlib import Path

from mms.store.database import Database
from mms.store.trouble import Kind, Trouble
from mms.store.witness import sync_folder


def copy(database: Database, target: Path) -> None:
    """Copy the store as it is now to a new file; needs no lock, and works on a read-only database. Raises Trouble."""
    partial = target.with_name(target.name + ".partial")
    try:
        if target.exists():
            raise Trouble(Kind.WRONG, f"{target} exists already")
        partial.unlink(missing_ok=True)
        database.execute_outside_transaction("VACUUM INTO ?", (str(partial),))
        fd = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        partial.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        raise Trouble(Kind.IO, f"{error.filename or target}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def free_name(path: Path, suffix: str) -> Path:
    """The first name of the form `path.suffix`, `path.suffix-2`, ... that nothing has."""
    name, number = path.with_name(f"{path.name}.{suffix}"), 1
    while name.exists():
        number += 1
        name = path.with_name(f"{path.name}.{suffix}-{number}")
    return name

"""The store without a running server, for the command line: look at it, check it, upgrade it, copy it; synchronous."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mms.errors import BadInput, NotCommitted, StoreUnreachable
from mms.records import Incarnation, JournalEntry, Registration
from mms.store import backup as copies
from mms.store import incarnations as lives
from mms.store import journal as entries
from mms.store import location, meta, snapshot, upgrade, verification
from mms.store.config import StoreConfig
from mms.store.database import Database, Transaction
from mms.store.opening import make_witness, missing, open_once
from mms.store.trouble import Trouble
from mms.store.upgrade import Schema


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What an upgrade did: the schema's revision before (None: there was no store) and after."""

    before: str | None
    after: str


def verify(config: StoreConfig) -> list[str]:
    """Check schema, witness, pages and rows, and change nothing; one sentence for each finding, empty: the store is whole.

    Needs no lock: it reads one consistent state, also of a store in use. Raises StoreUnreachable, UsageError.
    """
    where = location.parse(config.url)
    witness = make_witness(where, config)
    try:
        reading = witness.read()
    except OSError as error:
        raise StoreUnreachable(f"The witness {witness.path} cannot be read: {error.strerror}") from error
    if where.path is not None and not where.path.exists():
        return [missing(None, reading.mark)] if reading.mark else [f"there is no store at {where.shown}"]
    found: list[str] = []
    # The witness is read first: a running server may go on meanwhile, but only ever ahead of what was read.
    with reader(config) as tx:
        schema = upgrade.inspect(tx)
        if schema is not Schema.CURRENT:
            return [f"the schema is {schema} (revision {upgrade.current(tx)}, this version has {upgrade.head()})"]
        found += verification.with_pages(tx, config.server_id, within=True)
        mark = meta.read_mark(tx, config.server_id)
    seen = reading.mark
    if seen is None and mark is not None:
        found.append(f"the witness {witness.path} is missing or cannot be read")
    if seen is not None and (mark is None or mark.store_uuid != seen.store_uuid or mark.behind(seen)):
        found.append(missing(mark, seen))
    return found


def upgrade_store(config: StoreConfig) -> Upgraded:
    """Bring the schema up to date under the store's lock; SQLite is copied first. Raises as opening a store does."""
    where = location.parse(config.url)
    before = None
    if where.path is None or where.path.exists():
        with reader(config) as tx:
            before = upgrade.current(tx)
    try:
        opened = open_once(replace(config, store_auto_upgrade=True, clean_start=False))
    except Trouble as trouble:
        raise StoreUnreachable(f"The store {where.shown} cannot be upgraded: {trouble.message}") from trouble
    opened.close()
    return Upgraded(before, upgrade.head())


def backup(config: StoreConfig, target: Path) -> None:
    """Copy an SQLite store, in use or not, to a new file. Raises BadInput, NotCommitted, StoreUnreachable."""
    where = location.parse(config.url)
    if where.path is None:
        raise BadInput("A Postgres store is backed up with pg_dump or with the database's own means")
    _must_exist(where.path, where.shown)
    if target.exists():
        raise BadInput(f"{target} exists already")
    database = Database(where, read_only=True)
    try:
        copies.copy(database, target.resolve())
    except Trouble as trouble:
        raise NotCommitted(f"The store was not copied: {trouble.message}") from trouble
    finally:
        database.close()


def incarnations(config: StoreConfig, limit: int = 100) -> list[Incarnation]:
    """The lives of the server, newest first."""
    with reader(config) as tx:
        return lives.recent(tx, config.server_id, limit)


def journal(config: StoreConfig, *, model: str | None = None, after: int = 0, limit: int = 100) -> list[JournalEntry]:
    """Entries with seq > after, ascending. Raises NotCommitted for a segment that is not what was written."""
    found: list[JournalEntry] = []
    with reader(config) as tx:
        reached: int | None = after
        while reached is not None and len(found) < limit:
            more, reached = entries.read(tx, config.server_id, model=model, after=reached, limit=limit - len(found))
            found += more
    return found


def registrations(config: StoreConfig, generation: int | None = None) -> list[Registration]:
    """The rows of a generation (default: the current one), tombstones included, by seq."""
    with reader(config) as tx:
        if generation is None:
            own = meta.read(tx, config.server_id)
            generation = own.generation if own else 0
        return snapshot.rows(tx, config.server_id, generation)


@contextmanager
def reader(config: StoreConfig) -> Iterator[Transaction]:
    """One consistent look at a store that may be in use; neither writes nor checkpoints. Raises StoreUnreachable."""
    where = location.parse(config.url)
    if where.path is not None:
        _must_exist(where.path, where.shown)
    database = Database(where, read_only=True)
    try:
        with database.transaction(read_only=True) as tx:
            yield tx
    except Trouble as trouble:
        raise StoreUnreachable(f"The store {where.shown} cannot be read: {trouble.message}") from trouble
    finally:
        database.close()


def _must_exist(path: Path, shown: str) -> None:
    if not path.is_file():
        raise StoreUnreachable(f"There is no store at {shown}.")

"""Opening a store: lock, witness, schema, rows, in this order; nothing is written to a store that is not understood."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import inspect as inspector
from sqlalchemy import text, update

from mms.errors import StoreDamaged, StoreNewer, StoreOutdated, UsageError
from mms.store import backup, location, meta, upgrade, verification
from mms.store.config import StoreConfig
from mms.store.database import Database, Transaction
from mms.store.location import Location
from mms.store.lock import FileLock, Lock, SessionLock
from mms.store.tables import metadata
from mms.store.trouble import Kind, Trouble
from mms.store.upgrade import Schema
from mms.store.wire import Wire
from mms.store.witness import Mark, Reading, Witness, sync_folder

logger = logging.getLogger(__name__)

MANY_LOOSE = 5000
"""Journal entries of their own that are felt at a boot, which verifies them one by one: then it says what it waits for."""


@dataclass(slots=True)
class Opened:
    """A locked and verified store. `meta` None: it has no history. `lost`: what the witness had seen of an accepted loss."""

    database: Database
    lock: Lock
    witness: Witness
    meta: meta.Meta | None
    lost: Mark | None
    wire: Wire

    def close(self) -> None:
        """Close everything; the lock last."""
        self.witness.close()
        self.database.close()
        self.lock.release()
        self.wire.close()


def make_lock(where: Location, server_id: str, wire: Wire) -> Lock:
    """The lock of a store."""
    return FileLock(where.file(".lock")) if where.sqlite else SessionLock(where, server_id, wire)


def make_witness(where: Location, config: StoreConfig) -> Witness:
    """The witness of a store, at its default or configured place."""
    default = location.witness_file(where, config.server_id, config.data_dir)
    return Witness(config.witness_path or default)


def open_once(config: StoreConfig, wire: Wire | None = None) -> Opened:
    """One try. Raises StoreInUse, StoreDamaged, StoreNewer, StoreOutdated, UsageError; Trouble where trying again may help."""
    where = location.parse(config.url)
    _prepare_folder(where)
    witness = make_witness(where, config)
    _prepare_witness(witness)
    wire = wire or Wire()
    lock = make_lock(where, config.server_id, wire)
    database = Database(where, wire)
    try:
        lock.acquire()
        lock.describe(0)
        return _Opening(config, where, database, lock, witness, wire).run()
    except BaseException:
        database.close()
        lock.release()
        wire.close()
        raise


def _prepare_witness(witness: Witness) -> None:
    """A witness that could never be written would be missed only when it is needed."""
    folder = witness.path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Trouble(Kind.AWAY, f"the witness's folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Trouble(Kind.AWAY, f"the witness's folder {folder} cannot be written (data_dir, or witness_path)")


def _prepare_folder(where: Location) -> None:
    if where.path is None:
        return
    folder = where.path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Trouble(Kind.AWAY, f"{folder}: {error.strerror}") from error
    network = location.network_file_system(folder)
    if network is not None:
        raise UsageError(
            f"store: {where.path} lies on a network file system ({network}), whose locks cannot be relied on; "
            "use a local disk or Postgres"
        )


class _Opening:
    """The steps of one try, with what they share."""

    def __init__(
        self, config: StoreConfig, where: Location, database: Database, lock: Lock, witness: Witness, wire: Wire
    ) -> None:
        self.config = config
        self.where = where
        self.database = database
        self.lock = lock
        self.witness = witness
        self.wire = wire
        self.reading = _read(witness)

    def run(self) -> Opened:
        """Examine, and with `clean_start` set aside what cannot be believed."""
        try:
            return self._examine()
        except StoreDamaged as damage:
            if not self.config.clean_start:
                raise
            logger.warning("%s", damage.message)
            self._set_aside()
        self._create_schema()
        return self._opened(None, lost=self.reading.mark)

    def _examine(self) -> Opened:
        if self._no_file():
            lost = self._compare(None)
            self._create_schema()
            return self._opened(None, lost)
        try:
            with self.database.transaction(read_only=True) as tx:
                self._check_server(tx)
                schema = self._schema(tx)
                self._check_pages(tx)
                mark = None if schema is Schema.EMPTY else meta.read_mark(tx, self.config.server_id)
            lost = self._compare(mark)
            self._bring_up_to_date(schema)
            with self.database.transaction(read_only=True) as tx:
                if not self.where.sqlite:  # a long journal may take longer to read than a management write
                    tx.execute(text("SET LOCAL statement_timeout = '60s'"))
                self._check_rows(tx)
                found = meta.read(tx, self.config.server_id)
        except Trouble as trouble:
            if trouble.kind is Kind.DAMAGED or (trouble.kind is Kind.WRONG and self.where.sqlite):
                raise self._damaged(trouble.message) from trouble
            raise
        return self._opened(found, lost)

    def _opened(self, found: meta.Meta | None, lost: Mark | None) -> Opened:
        return Opened(self.database, self.lock, self.witness, found, lost, self.wire)

    # --- schema ------------------------------------------------------------------------------------------------------

    def _check_server(self, tx: Transaction) -> None:
        """What a Postgres is set to that makes its word worth less."""
        if self.where.sqlite:
            return
        settings = text("SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes')")
        for name, setting in tx.execute(settings):
            if setting != "on":
                logger.warning("Postgres runs with %s=%s: a power cut can lose what was acknowledged.", name, setting)

    def _schema(self, tx: Transaction) -> Schema:
        schema = upgrade.inspect(tx)
        if schema is Schema.NEWER:
            raise StoreNewer(
                f"The store {self.where.shown} has schema {upgrade.current(tx)}, which this version does not know "
                f"(it knows up to {upgrade.head()}): start the newer version, or restore the backup taken before the upgrade."
            )
        if schema is Schema.EMPTY:
            ours = set(metadata.tables)
            found = set(inspector(tx).get_table_names())
            if found & ours or (self.where.sqlite and found):
                raise self._damaged("it holds tables, but no record of their version")
        return schema

    def _bring_up_to_date(self, schema: Schema) -> None:
        if schema is Schema.BEHIND:
            if self.where.path is not None:
                with self.database.transaction(read_only=True) as tx:
                    old = upgrade.current(tx)
                copy = backup.free_name(self.where.path, f"before-upgrade-from-{old}")
                backup.copy(self.database, copy)
                logger.warning("The store %s is upgraded from schema %s; a copy is in %s.", self.where.shown, old, copy)
            elif not self.config.store_auto_upgrade:
                raise StoreOutdated(
                    f"The store {self.where.shown} has an older schema than this version needs: make a backup and run "
                    "`mms store upgrade`, or set store_auto_upgrade=true."
                )
        if schema is not Schema.CURRENT:
            self._create_schema()

    def _create_schema(self) -> None:
        self.wire.patient = True
        try:
            with self.database.transaction() as tx:
                upgrade.upgrade(tx)
        finally:
            self.wire.patient = False
        if self.where.path is not None:
            sync_folder(self.where.path.parent)

    # --- damage ------------------------------------------------------------------------------------------------------

    def _no_file(self) -> bool:
        """True for an SQLite store that is not there; looked at before connecting, which would create it."""
        if self.where.path is None:
            return False
        if _size(self.where.path) > 0:
            return False
        if _size(self.where.file("-wal")) > 0:
            raise self._damaged("its write-ahead log is there, but the database itself is gone")
        return True

    def _check_pages(self, tx: Transaction) -> None:
        if self.where.sqlite:
            found = verification.pages(tx, quick=True)
            if found:
                raise self._damaged("; ".join(found[:3]))

    def _check_rows(self, tx: Transaction) -> None:
        loose = verification.loose_entries(tx, self.config.server_id)
        if loose > MANY_LOOSE:
            logger.warning(
                "Verifying %d journal entries that are not packed yet, as after an upgrade: that takes some seconds. "
                "The server packs them while it runs.", loose
            )  # fmt: skip
        found = verification.findings(tx, self.config.server_id)
        if found:
            more = f" (and {len(found) - 1} more; `mms store verify` lists them)" if len(found) > 1 else ""
            raise self._damaged(found[0] + more)

    def _damaged(self, what: str) -> StoreDamaged:
        return StoreDamaged(
            f"The store {self.where.shown} is damaged: {what}. Restore a backup, or start empty with --clean-start, "
            "which moves the damaged store aside and deletes nothing."
        )

    def _set_aside(self) -> None:
        """Move the files away, or rename the server's rows: everything stays readable for whoever wants to look."""
        mark = self.reading.mark
        suffix = f"lost-{mark.epoch if mark else 0}"
        if self.where.path is None:
            name = f"{self.config.server_id}.{suffix}"
            with self.database.transaction() as tx:
                for table in metadata.sorted_tables:
                    tx.execute(update(table).where(table.c.server_id == self.config.server_id).values(server_id=name))
            logger.warning("The rows of server %s are kept as those of %s.", self.config.server_id, name)
            return
        self.database.reopen(create=True)
        kept = backup.free_name(self.where.path, suffix)
        for extra in ("-wal", "-shm", ""):
            part = self.where.file(extra)
            if part.exists():
                part.rename(kept.with_name(kept.name + extra))
        sync_folder(self.where.path.parent)
        logger.warning("The store %s is kept as %s.", self.where.shown, kept)

    # --- witness -----------------------------------------------------------------------------------------------------

    def _compare(self, mark: Mark | None) -> Mark | None:
        """The store against its witness; returns what an accepted loss had been. Raises StoreDamaged."""
        seen = self.reading.mark
        if seen is None:
            if self.reading.present and mark is None:
                raise StoreDamaged(
                    f"The store {self.where.shown} is empty or gone, and its witness {self.witness.path}, which says that "
                    "there was one, cannot be read. Restore a backup, or start empty with --clean-start."
                )
            if mark is not None:
                state = "cannot be read" if self.reading.present else "is missing"
                logger.warning(
                    "The witness %s of the store %s %s: a store that went back in time would not be noticed this once. "
                    "It is made anew.", self.witness.path, self.where.shown, state
                )  # fmt: skip
            return None
        if mark is not None and mark.store_uuid == seen.store_uuid and not mark.behind(seen):
            return None
        return self._accept(mark, seen)

    def _accept(self, mark: Mark | None, seen: Mark) -> Mark:
        what = missing(mark, seen)
        if self.config.accept_store_loss == seen.last_seq:
            logger.warning("A loss of the store %s is accepted: %s.", self.where.shown, what)
            return seen
        given = self.config.accept_store_loss
        other = "" if given is None else f" (--accept-store-loss {given} accepts another loss than this one)"
        raise StoreDamaged(
            f"The store {self.where.shown} has lost what its witness {self.witness.path} saw: {what}. Put the right store "
            f"back, or accept just this loss with --accept-store-loss {seen.last_seq}{other}, or start empty with "
            "--clean-start, which moves the store aside and deletes nothing."
        )


def missing(mark: Mark | None, seen: Mark) -> str:
    """What a store that stands at `mark` (None: empty or gone) lacks of what its witness saw, in words."""
    if mark is None:
        return f"the store is empty or gone; the witness saw {meta.describe(seen)}"
    if mark.store_uuid != seen.store_uuid:
        return (
            f"it is another store ({mark.store_uuid}, {meta.describe(mark)}); the witness knows {seen.store_uuid}, "
            f"{meta.describe(seen)}"
        )
    where = f"the witness saw {meta.describe(seen)}, the store holds {meta.describe(mark)}"
    if mark.last_seq < seen.last_seq:
        return f"journal numbers {mark.last_seq + 1} to {seen.last_seq} are missing ({where})"
    return f"outcomes, or the record of a start or a stop, are missing after journal number {seen.last_seq} ({where})"


def _read(witness: Witness) -> Reading:
    try:
        return witness.read()
    except OSError as error:
        raise Trouble(Kind.AWAY, f"the witness {witness.path}: {error.strerror}") from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise Trouble(Kind.AWAY, f"{path}: {error.strerror}") from error

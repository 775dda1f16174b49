"""The schema's version: finds the migrations, says how the store stands to them, and runs what is missing."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import alembic.command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from mms.store.database import Transaction

UPGRADE_LOCK = 0x6D6D73_73636865
"""Advisory lock of a Postgres schema: several servers that share a database upgrade it one after the other."""


class Schema(StrEnum):
    """How a store's schema stands to this code."""

    EMPTY = "empty"
    CURRENT = "current"
    BEHIND = "behind"
    NEWER = "newer"


def migrations_folder() -> Path:
    """`mms/migrations` in an installed wheel, `migrations` at the top of a working copy."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "migrations", package.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise FileNotFoundError(
        f"The migrations are neither in {package} nor in {package.parent}: the installation is broken"
    )


def head(folder: Path | None = None) -> str:
    """The newest revision that this code knows."""
    found = ScriptDirectory.from_config(_config(folder)).get_current_head()
    if found is None:
        raise FileNotFoundError(f"There is no migration in {folder or migrations_folder()}")
    return found


def current(tx: Transaction) -> str | None:
    """The revision that the store's schema is at, None for an empty database."""
    return MigrationContext.configure(tx).get_current_revision()


def inspect(tx: Transaction, folder: Path | None = None) -> Schema:
    """Compare the store's schema with this code."""
    revision = current(tx)
    if revision is None:
        return Schema.EMPTY
    script = ScriptDirectory.from_config(_config(folder))
    if revision == script.get_current_head():
        return Schema.CURRENT
    known = {each.revision for each in script.walk_revisions()}
    return Schema.BEHIND if revision in known else Schema.NEWER


def upgrade(tx: Transaction, folder: Path | None = None, revision: str = "head") -> None:
    """Run the migrations that are missing, all in the caller's transaction: half-way there is nothing."""
    if tx.dialect.name == "postgresql":
        # A migration may take longer than a management write.
        tx.execute(text("SET LOCAL statement_timeout = '10min'"))
        tx.execute(text("SET LOCAL lock_timeout = '1min'"))
        tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
    config = _config(folder)
    config.attributes["connection"] = tx
    alembic.command.upgrade(config, revision)


def _config(folder: Path | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(folder or migrations_folder()).replace("%", "%%"))
    return config

"""The schema's version: finds the migrations, says how the store stands to them, and runs what is missing.

Alembic is imported only where something is to be run: most boots find the schema current, and it takes a tenth of theirs.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect as inspect_database
from sqlalchemy import text

from mms.store.database import Transaction

if TYPE_CHECKING:
    from alembic.config import Config

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


def revisions(folder: Path | None = None) -> list[str]:
    """The revisions that this code knows, oldest first: their files are called `REVISION_words.py`, numbered in order."""
    found = sorted(
        file.name.partition("_")[0] for file in ((folder or migrations_folder()) / "versions").glob("*_*.py")
    )
    if not found:
        raise FileNotFoundError(f"There is no migration in {folder or migrations_folder()}")
    return found


def head(folder: Path | None = None) -> str:
    """The newest revision that this code knows."""
    return revisions(folder)[-1]


def current(tx: Transaction) -> str | None:
    """The revision that the store's schema is at, None for an empty database."""
    if not inspect_database(tx).has_table("alembic_version"):
        return None
    revision: str | None = tx.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return revision


def inspect(tx: Transaction, folder: Path | None = None) -> Schema:
    """Compare the store's schema with this code."""
    revision = current(tx)
    if revision is None:
        return Schema.EMPTY
    known = revisions(folder)
    if revision == known[-1]:
        return Schema.CURRENT
    return Schema.BEHIND if revision in known else Schema.NEWER


def upgrade(tx: Transaction, folder: Path | None = None, revision: str = "head") -> None:
    """Run the migrations that are missing, all in the caller's transaction: half-way there is nothing."""
    if tx.dialect.name == "postgresql":
        # A migration may take longer than a management write.
        tx.execute(text("SET LOCAL statement_timeout = '10min'"))
        tx.execute(text("SET LOCAL lock_timeout = '1min'"))
        tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
    import alembic.command

    config = _config(folder)
    config.attributes["connection"] = tx
    alembic.command.upgrade(config, revision)


def _config(folder: Path | None) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder or migrations_folder()).replace("%", "%%"))
    return config

"""Migrations on both databases: they end in the tables' own schema, all or nothing, and never go back."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import alembic.command
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine, event, inspect, text

from mms.errors import StoreOutdated
from mms.store import meta, opening, upgrade
from mms.store.config import StoreConfig
from mms.store.database import Database
from mms.store.location import parse
from mms.store.tables import metadata
from mms.store.upgrade import Schema
from tests.store_life import life, registered

NEXT = """
from alembic import op
import sqlalchemy as sa

revision = "0003"
down_revision = "0002"

def upgrade():
    op.add_column("registration", sa.Column("note", sa.Text))
    op.create_table("extra", sa.Column("id", sa.Integer, primary_key=True))
    op.add_column("journal", sa.Column("note", sa.Text))
"""


@pytest.fixture(params=["sqlite", "postgres"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> StoreConfig:
    url = f"sqlite:///{tmp_path}/store.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    return StoreConfig(url=url, server_id="one", data_dir=tmp_path)


@pytest.fixture
def database(config: StoreConfig) -> Database:
    return Database(parse(config.url))


@pytest.fixture
def with_next(tmp_path: Path) -> Path:
    """The migrations, and one more that a later version could bring."""
    folder = tmp_path / "migrations"
    shutil.copytree(upgrade.migrations_folder(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "0003_next.py").write_text(NEXT)
    return folder


def tables(database: Database) -> set[str]:
    with database.transaction(read_only=True) as tx:
        return set(inspect(tx).get_table_names())


def test_the_migrations_end_in_the_schema_of_the_tables(database: Database) -> None:
    with database.transaction() as tx:
        assert upgrade.inspect(tx) is Schema.EMPTY
        upgrade.upgrade(tx)
    with database.transaction(read_only=True) as tx:
        context = MigrationContext.configure(tx, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        assert upgrade.inspect(tx) is Schema.CURRENT
        found = inspect(tx)
        for table in metadata.sorted_tables:
            primary = found.get_pk_constraint(table.name)
            assert primary["constrained_columns"] == [column.name for column in table.primary_key]
            for column in found.get_columns(table.name):
                assert column["nullable"] == table.c[column["name"]].nullable, f"{table.name}.{column['name']}"
    database.close()


def test_there_is_one_line_of_revisions_and_none_goes_back(database: Database) -> None:
    with database.transaction() as tx:
        upgrade.upgrade(tx)
    with database.transaction(read_only=True) as tx:
        settings = upgrade._config(None)
        settings.attributes["connection"] = tx
        with pytest.raises(CommandError, match="never downgraded"):
            alembic.command.downgrade(settings, "base")
    assert tables(database) >= set(metadata.tables)
    database.close()


def test_the_files_are_called_after_their_revisions_in_order(with_next: Path) -> None:
    for folder in (upgrade.migrations_folder(), with_next):
        script = ScriptDirectory(str(folder))
        assert upgrade.revisions(folder) == [each.revision for each in script.walk_revisions()][::-1]
        assert upgrade.head(folder) == script.get_current_head()


def test_a_current_schema_is_found_without_alembic(config: StoreConfig, database: Database) -> None:
    with database.transaction() as tx:
        upgrade.upgrade(tx)
    database.close()
    program = (
        "import sys; from pathlib import Path; from mms.store.config import StoreConfig; from mms.store.opening import open_once\n"
        f"open_once(StoreConfig({config.url!r}, {config.server_id!r}, Path({str(config.data_dir)!r}))).lock.release()\n"
        "assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_migrations_are_not_run_past_the_store(config: StoreConfig) -> None:
    with pytest.raises(CommandError, match="mms store upgrade"):
        alembic.command.upgrade(upgrade._config(None), "head")


@pytest.mark.parametrize(("old", "new", "brings"), [("0001", "0002", "journal_segment"), ("0002", "0003", "extra")])
def test_a_migration_killed_at_any_statement_leaves_the_old_schema(
    config: StoreConfig, database: Database, with_next: Path, old: str, new: str, brings: str
) -> None:
    with database.transaction() as tx:
        upgrade.upgrade(tx, with_next, old)
    before = tables(database)
    assert brings not in before
    database.close()
    statement, killed = 0, True
    while killed:
        statement += 1
        killed = upgraded_until(config, with_next, statement, new)
        with database.transaction(read_only=True) as tx:
            assert upgrade.current(tx) == (old if killed else new), f"statement {statement}"
        if killed:
            assert tables(database) == before
        database.close()
    assert statement > 3
    assert brings in tables(database)
    database.close()


def upgraded_until(config: StoreConfig, folder: Path, statement: int, revision: str) -> bool:
    """Upgrade in a process that is killed after its n-th statement; False if it came through."""
    pid = os.fork()
    if pid == 0:
        left = statement

        def count(*_arguments: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(Engine, "after_cursor_execute", count)
        database = Database(parse(config.url))
        with database.transaction() as tx:
            upgrade.upgrade(tx, folder, revision)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def test_a_postgres_that_is_behind_stops_the_boot_unless_it_may_be_upgraded(
    postgres_url: str, with_next: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = StoreConfig(url=postgres_url, server_id="one", data_dir=tmp_path)
    opening.open_once(config).close()
    monkeypatch.setattr(upgrade, "migrations_folder", lambda: with_next)
    with pytest.raises(StoreOutdated, match=r"`mms store upgrade`.*store_auto_upgrade=true"):
        opening.open_once(config)
    opening.open_once(replace(config, store_auto_upgrade=True)).close()
    opening.open_once(config).close()


async def test_the_entries_of_a_store_without_segments_are_kept_verified_and_packed_while_the_server_runs(
    config: StoreConfig, database: Database
) -> None:
    config = replace(config, journal_loose=1, journal_segment=2)
    async with life(config) as store:
        for name in "abcde":
            await registered(store, name)
        written = await store.journal()
    with database.transaction() as tx:  # all that the second revision brought
        tx.execute(text("DROP TABLE journal_segment"))
        counted = meta.read(tx, config.server_id)
        assert counted is not None
        meta.save(tx, config.server_id, replace(counted, entries=None), epoch=counted.epoch)
        tx.execute(text("ALTER TABLE store_meta DROP COLUMN entries"))
        tx.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    database.close()
    async with life(replace(config, store_auto_upgrade=True)) as store:
        assert await store.journal() == written
        for _ in range(3):
            await store.pack()
        assert await store.journal() == written
        with database.transaction(read_only=True) as tx:
            assert tx.execute(text("SELECT first_seq, last_seq FROM journal_segment ORDER BY 1")).all() == [
                (1, 2),
                (3, 4),
            ]
            assert tx.execute(text("SELECT seq FROM journal")).scalars().all() == [5]
    database.close()
    async with life(config) as store:
        assert await store.journal() == written
        assert [row.key.name for row in await store.snapshot_at(seq=3)] == ["a", "b", "c"]


def test_an_sqlite_store_is_copied_before_it_is_upgraded(
    with_next: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = StoreConfig(url=f"sqlite:///{tmp_path}/store.db", server_id="one", data_dir=tmp_path)
    opening.open_once(config).close()
    monkeypatch.setattr(upgrade, "migrations_folder", lambda: with_next)
    opening.open_once(config).close()
    copy = sqlite3.connect(tmp_path / "store.db.before-upgrade-from-0002")
    assert copy.execute("SELECT version_num FROM alembic_version").fetchall() == [("0002",)]
    copy.close()
    upgraded = sqlite3.connect(tmp_path / "store.db")
    assert upgraded.execute("SELECT version_num FROM alembic_version").fetchall() == [("0003",)]
    upgraded.close()

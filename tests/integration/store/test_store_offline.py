"""The command line's look at a store, in use or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from mms.errors import BadInput, StoreDamaged, StoreInUse, StoreUnreachable
from mms.records import ChangeOutcome
from mms.store import offline
from mms.store.store import Store, StoreConfig
from tests.store_life import life, registered


async def test_a_store_in_use_is_read_and_found_whole(config: StoreConfig) -> None:
    async with life(config) as store:
        await registered(store, "a")
        assert offline.verify(config) == []
        assert [row.key.name for row in offline.registrations(config)] == ["a"]
        assert [entry.outcome for entry in offline.journal(config)] == [ChangeOutcome.DONE]
        assert [each.epoch for each in offline.incarnations(config)] == [store.epoch]
        await registered(store, "b")
    assert offline.verify(config) == []
    assert [entry.key.name for entry in offline.journal(config, after=1)] == ["b"]


async def test_reading_a_crashed_store_leaves_its_log_for_the_next_boot(
    sqlite_config: StoreConfig, tmp_path: Path
) -> None:
    import shutil

    async with life(sqlite_config) as store:
        await registered(store, "a")
        crashed = tmp_path / "crashed"
        crashed.mkdir()
        for part in ("store.db", "store.db-wal"):
            shutil.copy(tmp_path / part, crashed / part)
    copy = StoreConfig(url=f"sqlite:///{crashed}/store.db", server_id="one", data_dir=crashed)
    log = (crashed / "store.db-wal").read_bytes()
    assert [row.key.name for row in offline.registrations(copy)] == ["a"]
    assert (crashed / "store.db-wal").read_bytes() == log
    assert offline.verify(copy) == [f"the witness {next(iter(_witness_names(copy)))} is missing or cannot be read"]


def _witness_names(config: StoreConfig) -> list[Path]:
    from mms.store.location import parse, witness_file

    return [witness_file(parse(config.url), config.server_id, config.data_dir)]


async def test_a_live_backup_is_a_whole_store_and_going_back_to_it_must_be_accepted(
    sqlite_config: StoreConfig, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    async with life(sqlite_config) as store:
        await registered(store, "a")
        offline.backup(sqlite_config, copy)
        await registered(store, "b")
        with pytest.raises(BadInput, match="exists already"):
            offline.backup(sqlite_config, copy)
        with pytest.raises(StoreInUse):
            offline.upgrade_store(sqlite_config)
    assert not partial_copies(tmp_path)
    copy.replace(tmp_path / "store.db")
    assert "journal numbers 2 to 2 are missing" in offline.verify(sqlite_config)[0]
    with pytest.raises(StoreDamaged, match="--accept-store-loss 2"):
        await Store.open(sqlite_config)


def partial_copies(folder: Path) -> list[Path]:
    return list(folder.glob("*.partial"))


def test_a_postgres_store_is_copied_by_its_own_tools(postgres_url: str, tmp_path: Path) -> None:
    config = StoreConfig(url=postgres_url, server_id="one", data_dir=tmp_path)
    with pytest.raises(BadInput, match="pg_dump"):
        offline.backup(config, tmp_path / "copy")


def test_a_store_that_is_not_there_is_not_made_by_looking(sqlite_config: StoreConfig, tmp_path: Path) -> None:
    assert offline.verify(sqlite_config) == [f"there is no store at sqlite:///{tmp_path}/store.db"]
    with pytest.raises(StoreUnreachable, match="There is no store"):
        offline.journal(sqlite_config)
    assert not (tmp_path / "store.db").exists()


def test_an_upgrade_makes_a_new_store_and_then_finds_nothing_to_do(config: StoreConfig) -> None:
    first = offline.upgrade_store(config)
    assert first.before is None
    assert offline.upgrade_store(config).before == first.after

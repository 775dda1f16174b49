"""Who may open a store, and where."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from mms.errors import NotCommitted, StoreInUse, StoreUnreachable, UsageError
from mms.store import location
from mms.store.lock import SessionLock
from mms.store.store import Store, StoreConfig
from mms.store.wire import Wire
from tests.store_life import life, registered


async def test_a_server_waits_for_the_lock_as_long_as_it_is_told(config: StoreConfig) -> None:
    patient = replace(config, store_lock_wait=20)
    async with life(config):
        with pytest.raises(StoreInUse):
            await Store.open(config)
        waiting = asyncio.create_task(Store.open(patient))
        done, _ = await asyncio.wait([waiting], timeout=0.5)
        assert not done
    await (await waiting).close()


def started_with_all_handles() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)


async def test_a_process_that_outlives_the_server_does_not_hold_its_lock(config: StoreConfig) -> None:
    async with life(config):
        orphan = started_with_all_handles()
    try:
        async with life(config) as store:
            assert store.epoch == 2
        assert orphan.poll() is None
    finally:
        orphan.communicate(b"\n", timeout=20)


async def test_a_removed_lock_file_is_made_and_locked_again(sqlite_config: StoreConfig, tmp_path: Path) -> None:
    async with life(sqlite_config) as store:
        (tmp_path / "store.db.lock").unlink()
        await store.heartbeat({})
        with pytest.raises(StoreInUse, match="epoch 1"):
            await Store.open(sqlite_config)


async def test_an_sqlite_store_on_a_network_file_system_is_refused(
    sqlite_config: StoreConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(location, "network_file_system", lambda _folder: "nfs")
    with pytest.raises(UsageError, match=r"network file system \(nfs\).*local disk or Postgres"):
        await Store.open(sqlite_config)
    assert not (tmp_path / "store.db").exists()


async def test_a_witness_that_cannot_be_written_is_found_before_anything_is(tmp_path: Path) -> None:
    config = StoreConfig(
        url=f"sqlite:///{tmp_path}/store.db", server_id="one", data_dir=Path("/proc/mms"), boot_store_timeout=0
    )
    with pytest.raises(StoreUnreachable, match="the witness's folder /proc/mms"):
        await Store.open(config)
    assert not (tmp_path / "store.db").exists()


async def test_a_store_that_vanished_is_not_made_anew_by_looking_for_it(
    sqlite_config: StoreConfig, tmp_path: Path
) -> None:
    async with life(sqlite_config) as store:
        await registered(store)
        (tmp_path / "store.db").rename(tmp_path / "elsewhere.db")
        store._verbs._database.reopen()
        with pytest.raises(NotCommitted):
            await store.snapshot()
        assert not (tmp_path / "store.db").exists()


async def test_a_database_that_refuses_us_is_not_waited_for(postgres_url: str, tmp_path: Path) -> None:
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE reader LOGIN")
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    try:
        url = postgres_url.replace("postgres@", "reader@")
        config = StoreConfig(url=url, server_id="one", data_dir=tmp_path, boot_store_timeout=60)
        with pytest.raises(StoreUnreachable, match="cannot be used: permission denied"):
            await asyncio.wait_for(Store.open(config), 20)
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("DROP ROLE reader")


async def test_a_lock_that_was_given_back_is_free_before_its_session_has_ended(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy database takes its time over the end of a session."""
    where = location.parse(postgres_url)
    sessions: list[psycopg.Connection] = []
    with closing(Wire()) as wire, closing(Wire()) as other:
        first, second = SessionLock(where, "one", wire), SessionLock(where, "one", other)
        first.acquire()
        with monkeypatch.context() as patch:
            patch.setattr(psycopg.Connection, "close", lambda session: sessions.append(session))
            first.release()
        second.acquire()
        second.release()
        for session in sessions:
            session.close()
    assert sessions

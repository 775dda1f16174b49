"""The database goes away while the server runs: nothing half done, honest answers, and back without a restart."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mms.errors import Fenced, NotCommitted, OutcomeUnknown, StoreUnreachable
from mms.records import Begun, ChangeOutcome, IncarnationState, StoreHealth
from mms.store.store import Store, StoreConfig
from tests.postgres_proxy import Fault, PostgresProxy
from tests.postgres_server import PostgresServer
from tests.store_life import WHO, auto, begun, change, life, registered, wish


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[PostgresProxy]:
    proxy = PostgresProxy(postgres_server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def behind_proxy(proxy: PostgresProxy, postgres_url: str, tmp_path: Path) -> StoreConfig:
    return StoreConfig(url=proxy.url(postgres_url), server_id="one", data_dir=tmp_path, boot_store_timeout=5)


async def becomes(store: Store, health: StoreHealth, within: float = 15.0) -> None:
    deadline = time.monotonic() + within
    while store.health is not health:
        assert time.monotonic() < deadline, f"still {store.health}"
        await asyncio.sleep(0.02)


async def test_a_commit_that_arrived_is_answered_as_done_though_its_answer_was_lost(
    behind_proxy: StoreConfig, proxy: PostgresProxy
) -> None:
    async with life(behind_proxy) as store:
        proxy.arm(Fault.CUT_AFTER_COMMIT)
        first = await begun(store, wish())
        assert proxy.struck.is_set()
        assert [entry.seq for entry in await store.journal()] == [first.seq]
        await store.finish(first, ChangeOutcome.DONE, {})
        assert store.health is StoreHealth.OK


async def test_a_commit_that_never_arrived_is_answered_as_not_committed(
    behind_proxy: StoreConfig, proxy: PostgresProxy
) -> None:
    async with life(behind_proxy) as store:
        proxy.arm(Fault.CUT_BEFORE_COMMIT)
        with pytest.raises(NotCommitted):
            await begun(store, wish("lost"))
        assert proxy.struck.is_set()
        await becomes(store, StoreHealth.OK)
        assert await store.journal() == []
        await registered(store, "next")


async def test_a_finish_whose_answer_was_lost_is_not_done_twice(
    behind_proxy: StoreConfig, proxy: PostgresProxy
) -> None:
    async with life(behind_proxy) as store:
        first = await begun(store, wish())
        proxy.arm(Fault.CUT_AFTER_COMMIT)
        await store.finish(first, ChangeOutcome.FAILED, {"n": 1})
        assert proxy.struck.is_set()
        assert await store.snapshot() == []


async def test_a_claim_whose_answer_was_lost_is_a_claim_and_one_that_never_arrived_is_none(
    behind_proxy: StoreConfig, proxy: PostgresProxy
) -> None:
    store = await Store.open(behind_proxy)
    try:
        proxy.arm(Fault.CUT_BEFORE_COMMIT)
        with pytest.raises(StoreUnreachable, match="could not be claimed"):
            await store.claim(auto, WHO, ())
    finally:
        await store.close()
    store = await Store.open(behind_proxy)
    try:
        proxy.arm(Fault.CUT_AFTER_COMMIT)
        incarnation, _, facts = await store.claim(auto, WHO, ())
        assert proxy.struck.is_set()
        assert (incarnation.epoch, facts.last) == (1, None)
        await registered(store)
    finally:
        await store.close()


async def test_changes_are_refused_at_once_while_the_store_is_away_and_it_comes_back_by_itself(
    behind_proxy: StoreConfig, proxy: PostgresProxy
) -> None:
    async with life(behind_proxy) as store:
        await registered(store, "before")
        proxy.arm(Fault.REFUSE)
        with pytest.raises(NotCommitted):
            await begun(store, wish("lost"))
        assert store.health is StoreHealth.UNREACHABLE
        began = time.monotonic()
        with pytest.raises(NotCommitted, match="cannot be used"):
            await begun(store, wish("lost"))
        await store.heartbeat({})
        assert time.monotonic() - began < 0.5
        proxy.arm(Fault.NONE)
        await becomes(store, StoreHealth.OK)
        await registered(store, "after")
        assert [row.key.name for row in await store.snapshot()] == ["before", "after"]


@pytest.mark.slow
async def test_an_unanswered_commit_is_unknown_and_found_out_when_the_store_is_back(
    behind_proxy: StoreConfig, proxy: PostgresProxy
) -> None:
    async with life(behind_proxy) as store:
        proxy.arm(Fault.SILENT_FROM_COMMIT)
        began = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            await store.begin(change(wish("perhaps"), key="k"))
        assert time.monotonic() - began < 12
        proxy.arm(Fault.REFUSE)
        proxy.arm(Fault.NONE)
        await becomes(store, StoreHealth.OK, within=40)
        again = await store.begin(change(wish("perhaps"), key="k"))
        assert isinstance(again, Begun)


async def test_a_killed_database_is_used_again_once_it_is_back(
    postgres_url: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    config = StoreConfig(url=postgres_url, server_id="one", data_dir=tmp_path)
    async with life(config) as store:
        await registered(store, "before")
        postgres_server.kill()
        with pytest.raises(NotCommitted):
            await begun(store, wish("lost"))
        assert store.health is StoreHealth.UNREACHABLE
        await asyncio.to_thread(postgres_server.start)
        await becomes(store, StoreHealth.OK)
        await registered(store, "after")
        assert [row.key.name for row in await store.snapshot()] == ["before", "after"]
        with pytest.raises(Exception, match="is in use"):  # the lock was taken again
            await Store.open(config)


async def test_a_server_that_took_the_store_meanwhile_keeps_it(
    behind_proxy: StoreConfig, proxy: PostgresProxy, postgres_url: str
) -> None:
    async with life(behind_proxy) as store:
        proxy.arm(Fault.REFUSE)
        with pytest.raises(NotCommitted):
            await begun(store, wish("lost"))
        direct = replace(behind_proxy, url=postgres_url, store_lock_wait=10, data_dir=behind_proxy.data_dir / "2")
        async with life(direct) as successor:
            proxy.arm(Fault.NONE)
            await becomes(store, StoreHealth.FENCED)
            with pytest.raises(Fenced):
                await begun(store, wish("late"))
            await registered(successor)


@pytest.mark.slow
async def test_a_database_that_hangs_is_given_up_and_used_again_when_it_goes_on(
    postgres_url: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    config = StoreConfig(url=postgres_url, server_id="one", data_dir=tmp_path)
    async with life(config) as store:
        await registered(store, "before")
        for pid in (postgres_server.pid, *postgres_server.children()):
            os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises((NotCommitted, OutcomeUnknown)):
                await begun(store, wish("lost"))
            assert time.monotonic() - began < 15
            assert store.health is StoreHealth.UNREACHABLE
        finally:
            for pid in (*postgres_server.children(), postgres_server.pid):
                os.kill(pid, signal.SIGCONT)
        await becomes(store, StoreHealth.OK, within=30)
        await registered(store, "after")


async def test_a_database_that_is_away_at_boot_is_waited_for(
    postgres_url: str, proxy: PostgresProxy, tmp_path: Path
) -> None:
    config = StoreConfig(url=proxy.url(postgres_url), server_id="one", data_dir=tmp_path, boot_store_timeout=20)
    proxy.arm(Fault.REFUSE)
    with pytest.raises(StoreUnreachable, match=r"within 0 s \(boot_store_timeout\)"):
        await Store.open(replace(config, boot_store_timeout=0))
    opening = asyncio.create_task(Store.open(config))
    await asyncio.sleep(0.3)
    assert not opening.done()
    proxy.arm(Fault.NONE)
    await (await opening).close()


async def test_waiting_for_the_database_can_be_cancelled(
    proxy: PostgresProxy, postgres_url: str, tmp_path: Path
) -> None:
    config = StoreConfig(url=proxy.url(postgres_url), server_id="one", data_dir=tmp_path)
    proxy.arm(Fault.REFUSE)
    opening = asyncio.create_task(Store.open(config))
    await asyncio.sleep(0.2)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening


# --- SQLite ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_more_space() -> Iterator[None]:
    """No file of this process may grow any more; SIGXFSZ would end it, so it is ignored."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def allow(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


async def test_a_write_that_fails_is_refused_and_the_next_one_starts_on_a_new_handle(
    sqlite_config: StoreConfig, no_more_space: None
) -> None:
    async with life(sqlite_config) as store:
        await registered(store, "before")
        allow(4096)
        try:
            with pytest.raises((NotCommitted, OutcomeUnknown)):
                await begun(store, wish("lost"))
        finally:
            allow(resource.RLIM_INFINITY)
        await becomes(store, StoreHealth.OK)
        await registered(store, "after")
        assert [row.key.name for row in await store.snapshot()] == ["before", "after"]
        assert [entry.seq for entry in await store.journal()] == [1, 2]
        await store.advance(IncarnationState.RUNNING)


@pytest.mark.slow
async def test_while_the_store_is_away_nobody_waits_for_the_probe(
    behind_proxy: StoreConfig, proxy: PostgresProxy
) -> None:
    async with life(behind_proxy) as store:
        await registered(store)
        proxy.arm(Fault.REFUSE)
        with pytest.raises(NotCommitted):
            await begun(store, wish("lost"))
        proxy.arm(Fault.HOLD)  # connections are accepted, and then nothing is said: the probe waits
        assert await asyncio.to_thread(proxy.struck.wait, 10)
        for _ in range(20):
            began = time.monotonic()
            with pytest.raises(NotCommitted, match="cannot be used"):
                await begun(store, wish("lost"))
            await store.heartbeat({})
            assert time.monotonic() - began < 0.3
            await asyncio.sleep(0.05)
        proxy.arm(Fault.REFUSE)
        proxy.arm(Fault.NONE)
        await becomes(store, StoreHealth.OK, within=30)

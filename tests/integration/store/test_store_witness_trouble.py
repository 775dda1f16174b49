"""The witness cannot be written while the server runs: nothing is acknowledged without its proof, and it comes back by itself."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable

import pytest

from mms.errors import NotCommitted, OutcomeUnknown
from mms.records import Begun, ChangeOutcome, Operation, Replayed, StoreHealth
from mms.store import witness
from mms.store.store import Store, StoreConfig
from tests.store_life import begun, change, life, registered, replay, wish


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Lets the witness's syncs fail, and no longer. SQLite's own are calls of its library."""
    sync = os.fdatasync

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    return lambda fails: monkeypatch.setattr(witness.os, "fdatasync", fail if fails else sync)


async def back(store: Store) -> None:
    deadline = time.monotonic() + 15
    while store.health is not StoreHealth.OK:
        assert time.monotonic() < deadline, f"still {store.health}"
        await asyncio.sleep(0.02)


async def test_a_change_that_is_committed_without_its_witness_is_not_acknowledged(
    config: StoreConfig, broken: Callable[[bool], None]
) -> None:
    async with life(config) as store:
        await registered(store, "before")
        broken(True)
        with pytest.raises(OutcomeUnknown, match="witness"):
            await store.begin(change(wish("perhaps"), key="k"))
        assert store.health is StoreHealth.UNREACHABLE
        with pytest.raises(NotCommitted):
            await begun(store, wish("refused"))
        broken(False)
        await back(store)
        again = await store.begin(change(wish("perhaps"), key="k"))
        assert isinstance(again, Begun)
        await store.finish(again, ChangeOutcome.DONE, {})
        assert sorted(row.key.name for row in await store.snapshot()) == ["before", "perhaps"]
    async with life(config) as store:
        assert sorted(row.key.name for row in await store.snapshot()) == ["before", "perhaps"]


async def test_an_outcome_that_is_recorded_without_its_witness_stays_recorded(
    config: StoreConfig, broken: Callable[[bool], None]
) -> None:
    async with life(config) as store:
        first = await begun(store, wish("one"))
        broken(True)
        await store.finish(first, ChangeOutcome.DONE, {})
        assert store.health is StoreHealth.UNREACHABLE
        broken(False)
        await back(store)
        assert [entry.outcome for entry in await store.journal()] == [ChangeOutcome.DONE]


async def test_a_server_that_dies_before_its_witness_is_back_holds_what_it_committed(
    config: StoreConfig, broken: Callable[[bool], None]
) -> None:
    async with life(config) as store:
        broken(True)
        with pytest.raises(OutcomeUnknown):
            await store.begin(change(wish("perhaps"), key="k"))
    broken(False)
    async with life(config) as store:
        assert [row.key.name for row in await store.snapshot()] == ["perhaps"]


async def test_a_change_that_nobody_knew_of_gives_way_to_what_is_decided_without_it(
    config: StoreConfig, broken: Callable[[bool], None]
) -> None:
    """Else the next boot would take it for unfinished, and take back the later one, which was acknowledged."""
    async with life(config) as store:
        broken(True)
        with pytest.raises(OutcomeUnknown):
            await store.begin(change(wish("model", overrides={"batch_size": 2}), key="k"))
        broken(False)
        await back(store)
        acknowledged = await begun(store, wish("model", overrides={"batch_size": 3}))
        await store.finish(acknowledged, ChangeOutcome.DONE, {})
        first, second = await store.journal()
        assert (first.outcome, second.outcome) == (ChangeOutcome.FAILED, ChangeOutcome.DONE)
        repeated = await store.begin(change(wish("model", overrides={"batch_size": 2}), key="k"))
        assert isinstance(repeated, Replayed)
        assert repeated.response["error"] == "ModelConflict"
    async with life(config, replay) as store:
        assert await store.pending() == []
        assert [row.overrides for row in await store.snapshot()] == [{"batch_size": 3}]


async def test_a_failed_change_puts_back_what_was_there_before_the_one_that_nobody_knew_of(
    config: StoreConfig, broken: Callable[[bool], None]
) -> None:
    async with life(config) as store:
        await registered(store, "model", batch_size=1)
        broken(True)
        with pytest.raises(OutcomeUnknown):
            await begun(store, wish("model", overrides={"batch_size": 2}), Operation.UPDATE)
        broken(False)
        await back(store)
        failed = await begun(store, wish("model", overrides={"batch_size": 3}), Operation.UPDATE)
        await store.finish(failed, ChangeOutcome.FAILED, {})
        assert [row.overrides for row in await store.snapshot()] == [{"batch_size": 1}]

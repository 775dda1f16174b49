"""Lives of a server on the real store: claim, states, facts, load attempts, heartbeat, fence."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from mms.errors import Fenced, StoreInUse, UsageError
from mms.records import (
    BootDecision,
    BootFacts,
    ChangeOutcome,
    Decision,
    GenerationSummary,
    IncarnationState,
    ModelKey,
    Operation,
    Origin,
    RegistrationState,
    StoreHealth,
)
from mms.store import offline
from mms.store.database import PAGE_SIZE
from mms.store.store import Store, StoreConfig
from tests.store_life import WHO, auto, begun, clean, life, manifest, registered, replay, wish

BOOTING, RUNNING, STOPPING, CLEAN = IncarnationState


async def facts_of_next_boot(config: StoreConfig) -> BootFacts:
    """What the next boot would see; deciding fails, so that nothing is written."""
    seen: list[BootFacts] = []

    def look(facts: BootFacts) -> BootDecision:
        seen.append(facts)
        raise UsageError("only looking")

    store = await Store.open(config)
    try:
        with pytest.raises(UsageError, match="only looking"):
            await store.claim(look, WHO, ())
    finally:
        await store.close()
    return seen[0]


async def test_a_first_boot_finds_nothing_and_claims_epoch_one(config: StoreConfig) -> None:
    store = await Store.open(config)
    try:
        incarnation, decision, facts = await store.claim(manifest, WHO, ("--recover",))
        assert facts == BootFacts(last=None)
        assert decision.decision is Decision.MANIFEST
        assert (incarnation.epoch, incarnation.generation, incarnation.state) == (1, 1, BOOTING)
        assert (store.epoch, store.generation, store.last_seq) == (1, 1, 0)
        assert len(store.store_uuid) == 36
        assert await store.incarnations() == [incarnation]
        assert incarnation.flags == ("--recover",)
        assert incarnation.started_at is not None
    finally:
        await store.close()


async def test_a_boot_that_decides_on_an_error_writes_nothing(config: StoreConfig) -> None:
    assert (await facts_of_next_boot(config)).last is None
    async with life(config) as store:
        assert store.epoch == 1


async def test_every_crash_leaves_its_state_to_be_read(config: StoreConfig) -> None:
    left = []
    for steps in ((), (RUNNING,), (RUNNING, STOPPING), (RUNNING, STOPPING, CLEAN)):
        async with life(config, manifest) as store:
            for state in steps:
                await store.advance(state, "for a test")
        facts = await facts_of_next_boot(config)
        assert facts.last is not None
        left.append((facts.last.state, facts.last.crashed))
    assert left == [(BOOTING, True), (RUNNING, True), (STOPPING, True), (CLEAN, False)]
    async with life(config) as store:
        assert [each.state for each in await store.incarnations()] == [BOOTING, CLEAN, STOPPING, RUNNING, BOOTING]
        stopped = (await store.incarnations())[1]
        assert stopped.stop_reason == "for a test"
        assert stopped.started_at is not None
        assert stopped.ready_at is not None
        assert stopped.stopped_at is not None
        assert stopped.started_at <= stopped.ready_at <= stopped.stopped_at


@pytest.mark.parametrize("state", [BOOTING, STOPPING, CLEAN])
async def test_no_step_is_skipped(sqlite_config: StoreConfig, state: IncarnationState) -> None:
    async with life(sqlite_config) as store:
        with pytest.raises(ValueError, match="cannot become"):
            await store.advance(state)


async def test_only_crashes_while_booting_count_as_failed_boots(config: StoreConfig) -> None:
    for expected in (1, 2, 3):
        async with life(config, auto):
            pass
        assert (await facts_of_next_boot(config)).failed_boots == expected
    async with life(config) as store:
        await store.interrupt_boot("SIGTERM")
    facts = await facts_of_next_boot(config)
    assert facts.failed_boots == 0
    assert facts.last is not None
    assert (facts.last.state, facts.last.stop_reason) == (BOOTING, "SIGTERM")
    async with life(config) as store:
        await store.advance(RUNNING)
    assert (await facts_of_next_boot(config)).failed_boots == 0


async def test_generations_are_summed_up_and_a_clean_start_abandons_the_earlier_ones(config: StoreConfig) -> None:
    async with life(config, manifest) as store:
        row = await registered(store, "a")
        await registered(store, "b")
        gone = await begun(store, replace(row, state=RegistrationState.UNREGISTERED), Operation.UNREGISTER)
        await store.finish(gone, ChangeOutcome.DONE, {})
    async with life(config, manifest) as store:
        charged = replace(wish("start-up"), origin=Origin.MANIFEST, url="", charges=1)
        await begun(store, charged, Operation.CHARGE)
    async with life(config, clean) as store:
        assert (store.generation, await store.snapshot()) == (3, [])
    async with life(config, replay) as store:
        assert store.generation == 3
        touched = replace(wish("start-up"), origin=Origin.MANIFEST, url="", overrides={"batch_size": 2})
        await begun(store, touched, Operation.UPDATE)
    facts = await facts_of_next_boot(config)
    assert facts.generations == (
        GenerationSummary(1, registrations=1, changes=True, abandoned=True),
        GenerationSummary(2, registrations=1, changes=False, abandoned=True),
        GenerationSummary(3, registrations=1, changes=True, abandoned=False),
    )


async def test_a_new_generation_never_takes_an_old_number(config: StoreConfig) -> None:
    async with life(config, manifest) as store:
        await registered(store)
    async with life(config, manifest) as store:
        assert store.generation == 2
    recover = BootDecision(Decision.REPLAY, "asked for", generation=1)
    async with life(config, lambda _facts: recover) as store:
        assert store.generation == 1
        assert len(await store.snapshot()) == 1
    async with life(config, manifest) as store:
        assert store.generation == 3


async def test_open_attempts_outlive_their_server_until_they_end_well_or_badly(config: StoreConfig) -> None:
    a, b, c = ModelKey("a"), ModelKey("b"), ModelKey("c", "1.0")
    async with life(config) as store:
        await store.open_attempts([(a, "sha-a"), (b, "sha-b"), (c, "sha-c")])
        await store.close_attempts([a])
    facts = await facts_of_next_boot(config)
    assert [(each.epoch, each.key, each.sha256) for each in facts.open_attempts] == [
        (1, b, "sha-b"),
        (1, c, "sha-c"),
    ]
    async with life(config) as store:
        await store.open_attempts([(b, "sha-b")])
    facts = await facts_of_next_boot(config)
    assert [(each.epoch, each.key) for each in facts.open_attempts] == [(1, c), (2, b)]
    async with life(config) as store:
        await store.close_attempts([c])
        await begun(store, wish("b"), Operation.CHARGE)
    assert (await facts_of_next_boot(config)).open_attempts == ()


async def test_an_orderly_stop_while_booting_closes_its_attempts(config: StoreConfig) -> None:
    async with life(config) as store:
        await store.open_attempts([(ModelKey("a"), "sha-a")])
        await store.interrupt_boot("SIGTERM")
    assert (await facts_of_next_boot(config)).open_attempts == ()


async def test_attempts_of_another_generation_make_nobody_a_suspect(config: StoreConfig) -> None:
    async with life(config) as store:
        await store.open_attempts([(ModelKey("a"), "sha-a")])
    async with life(config, clean):
        pass
    assert (await facts_of_next_boot(config)).open_attempts == ()


async def test_the_heartbeat_saves_how_busy_each_model_is(config: StoreConfig) -> None:
    async with life(config) as store:
        row = await registered(store)
        await store.heartbeat({row.key: 41, ModelKey("unknown"): 1})
        assert (await store.snapshot())[0].requests_seen == 41
        assert (await store.incarnations())[0].heartbeat_at is not None
        await begun(store, replace(row, overrides={"batch_size": 2}), Operation.UPDATE)
        assert (await store.snapshot())[0].requests_seen == 41
    async with life(config) as store:
        assert store.health is StoreHealth.OK


async def test_a_second_server_is_told_who_has_the_store(config: StoreConfig) -> None:
    async with life(config):
        with pytest.raises(StoreInUse, match=r"pid \d+.*epoch 1|epoch 1.*pid \d+"):
            await Store.open(config)
    async with life(config) as store:
        assert store.epoch == 2


async def test_two_servers_share_one_database_without_touching_each_other(postgres_url: str, tmp_path: Path) -> None:
    config = StoreConfig(url=postgres_url, server_id="one", data_dir=tmp_path)
    other = replace(config, server_id="two")
    async with life(config) as one, life(other) as two:
        await registered(one, "a")
        await registered(two, "b")
        assert [row.key.name for row in await one.snapshot()] == ["a"]
        assert (two.last_seq, [row.key.name for row in await two.snapshot()]) == (1, ["b"])


async def test_a_server_whose_epoch_has_passed_changes_nothing_more(config: StoreConfig) -> None:
    async with life(config) as store:
        await registered(store)
        # As if another server had come in between, in spite of the lock.
        store._verbs._writer._opened.lock.release()
        async with life(config) as successor:
            with pytest.raises(Fenced):
                await begun(store, wish("late"))
            assert store.health is StoreHealth.FENCED
            with pytest.raises(Fenced):
                await store.advance(RUNNING)
            assert [row.key.name for row in await successor.snapshot()] == ["magika"]
            await registered(successor, "next")


async def test_a_heartbeat_finds_that_the_store_has_a_new_owner(config: StoreConfig) -> None:
    async with life(config) as store:
        store._verbs._writer._opened.lock.release()
        async with life(config):
            await store.heartbeat({})
            assert store.health is StoreHealth.FENCED


async def test_a_store_with_smaller_pages_keeps_them(sqlite_config: StoreConfig, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "store.db")) as older:
        older.execute("PRAGMA page_size = 4096")
        older.execute("VACUUM")  # which writes the file
    async with life(sqlite_config) as store:
        await registered(store, "a")
    with closing(sqlite3.connect(tmp_path / "store.db")) as opened:
        assert opened.execute("PRAGMA page_size").fetchone() == (4096,)
    assert offline.verify(sqlite_config) == []


async def test_a_new_store_has_larger_pages_than_sqlite_gives(sqlite_config: StoreConfig, tmp_path: Path) -> None:
    async with life(sqlite_config):
        pass
    with closing(sqlite3.connect(tmp_path / "store.db")) as opened:
        assert opened.execute("PRAGMA page_size").fetchone() == (PAGE_SIZE,)

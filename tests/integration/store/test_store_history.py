"""Going back: the rows as they were at a point, and what retention may remove."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mms.errors import BadInput
from mms.records import ChangeOutcome, ModelKey, Operation, RegistrationState
from mms.store.store import Store, StoreConfig
from tests.store_life import begun, clean, life, manifest, registered, wish


async def updated(store: Store, name: str, batch_size: int) -> None:
    row = next(row for row in await store.snapshot() if row.key.name == name)
    change = await begun(store, replace(row, overrides={"batch_size": batch_size}), Operation.UPDATE)
    await store.finish(change, ChangeOutcome.DONE, {})


async def test_the_rows_at_a_number_are_the_latest_images_that_did_not_fail(config: StoreConfig) -> None:
    async with life(config) as store:
        await registered(store, "a", batch_size=1)  # 1
        await registered(store, "b")  # 2
        await updated(store, "a", 2)  # 3
        failed = await begun(store, wish("c"))  # 4
        await store.finish(failed, ChangeOutcome.FAILED, {})
        row = next(row for row in await store.snapshot() if row.key.name == "b")
        gone = await begun(store, replace(row, state=RegistrationState.UNREGISTERED), Operation.UNREGISTER)  # 5
        await store.finish(gone, ChangeOutcome.DONE, {})

        def shown(rows: list) -> list:
            return [(row.key.name, row.wanted, dict(row.overrides)) for row in rows]

        assert shown(await store.snapshot_at(seq=0)) == []
        assert shown(await store.snapshot_at(seq=2)) == [("a", True, {"batch_size": 1}), ("b", True, {})]
        assert shown(await store.snapshot_at(seq=4)) == [("b", True, {}), ("a", True, {"batch_size": 2})]
        assert await store.snapshot_at(seq=5) == await store.snapshot()
        with pytest.raises(BadInput, match="expected a journal number from 0 to 5"):
            await store.snapshot_at(seq=6)
        with pytest.raises(BadInput, match="exactly one"):
            await store.snapshot_at()


async def test_a_time_leads_to_the_change_before_it(config: StoreConfig) -> None:
    async with life(config) as store:
        await registered(store, "a")
        await registered(store, "b")
        first, second = await store.journal()
        assert await store.snapshot_at(before=first.at) == []
        assert [row.key.name for row in await store.snapshot_at(before=second.at)] == ["a"]
        later = second.at + timedelta(microseconds=1)
        assert [row.key.name for row in await store.snapshot_at(before=later)] == ["a", "b"]
        with pytest.raises(BadInput, match="with its zone"):
            await store.snapshot_at(before=datetime(2026, 1, 1))


async def test_a_generation_is_kept_and_an_abandoned_one_only_comes_back_by_its_number(config: StoreConfig) -> None:
    async with life(config, manifest) as store:
        await registered(store, "a")
    async with life(config, manifest) as store:
        await registered(store, "b")
        assert [row.key.name for row in await store.snapshot_at(generation=1)] == ["a"]
        assert [row.key.name for row in await store.snapshot_at(seq=1)] == ["a"]
    async with life(config, clean) as store:
        assert [row.key.name for row in await store.snapshot_at(generation=1)] == ["a"]
        with pytest.raises(BadInput, match="--to-generation 1"):
            await store.snapshot_at(seq=1)
        with pytest.raises(BadInput, match="no generation 9"):
            await store.snapshot_at(generation=9)


async def test_retention_keeps_whatever_a_restore_point_still_needs(config: StoreConfig) -> None:
    short = replace(config, journal_keep_entries=2, journal_keep_days=0)
    async with life(short) as store:
        await registered(store, "kept")  # 1: the only image of its model
        for size in range(2, 7):
            if size == 2:
                await registered(store, "a")  # 2
            await updated(store, "a", size)  # 3 to 7
        failed = await begun(store, wish("x"))  # 8
        await store.finish(failed, ChangeOutcome.FAILED, {})
        await registered(store, "b")  # 9
        await begun(store, wish("open"))  # 10
        await age_the_journal(store)
        await store.heartbeat({})
        assert [entry.seq for entry in await store.journal()] == [1, 7, 9, 10]
        restored = await store.snapshot_at(seq=8)
        assert [(row.key.name, dict(row.overrides)) for row in restored] == [("kept", {}), ("a", {"batch_size": 6})]
        with pytest.raises(BadInput, match="kept from number 8 on"):
            await store.snapshot_at(seq=5)
    async with life(short) as store:  # the store is still whole
        assert ModelKey("kept") in {row.key for row in await store.snapshot()}


async def test_young_entries_stay_however_many_there_are(config: StoreConfig) -> None:
    async with life(replace(config, journal_keep_entries=0, journal_keep_days=0)) as store:
        for name in "abc":
            await registered(store, name)
        await store.heartbeat({})
        assert len(await store.journal()) == 3


async def age_the_journal(store: Store) -> None:
    """Make every entry two days old, hashes included."""
    from sqlalchemy import select, update

    from mms.store.seal import sealed
    from mms.store.tables import journal

    def work() -> None:
        with store._verbs._database.transaction() as tx:
            for row in tx.execute(select(journal)).mappings().all():
                values = sealed(journal, {**row, "at": datetime.now(UTC) - timedelta(days=2)})
                tx.execute(update(journal).where(journal.c.seq == row["seq"]).values(values))

    await store._call(work)

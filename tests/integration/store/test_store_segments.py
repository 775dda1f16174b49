"""Settled older entries are packed into segments, and every reader of the journal finds them there as before."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from unittest.mock import patch

import pytest

from mms.errors import BadInput, IdempotencyMismatch
from mms.records import Begun, Caller, Change, ChangeOutcome, Operation, RegistrationState, Replayed
from mms.store import offline, retention
from mms.store.store import StoreConfig
from tests.integration.store.packing import loose, packed, ranges
from tests.store_life import begun, clean, life, manifest, registered, wish


async def test_the_oldest_settled_entries_are_packed_and_the_newest_are_not(config: StoreConfig) -> None:
    config = replace(config, journal_loose=3, journal_segment=2)
    async with life(config) as store:
        for name in "abcde":
            await registered(store, name)
        written = await store.journal()
        commits = store.counts.commits
        await packed(store)
        assert store.counts.commits == commits + 1
        assert (ranges(config), loose(config)) == ([(1, 2)], [3, 4, 5])
        for name in "fg":
            await registered(store, name)
        await packed(store)
        assert (ranges(config), loose(config)) == ([(1, 2), (3, 4)], [5, 6, 7])
        assert (await store.journal())[:5] == written
    assert offline.verify(config) == []
    async with life(config) as store:
        assert (await store.journal())[:5] == written
        assert offline.journal(config) == await store.journal()


async def test_a_look_that_finds_too_few_is_not_repeated_before_there_can_be_enough(config: StoreConfig) -> None:
    async with life(replace(config, journal_loose=1, journal_segment=3)) as store:
        await registered(store, "a")
        await store.pack()
        with patch.object(store._verbs, "_durable", side_effect=AssertionError("it looked")):
            await store.pack()
        for name in "bcd":
            await registered(store, name)
        await store.pack()
        assert ranges(config) == [(1, 3)]


async def test_a_page_is_the_same_wherever_its_entries_lie(packing: StoreConfig) -> None:
    async with life(packing) as store:
        for number in range(9):
            await registered(store, "ab"[number % 2] if number != 5 else "c", batch_size=number)
        undone = await begun(store, wish("open"))
        await registered(store, "a")
        plain = await store.journal(limit=1000)
        assert [each.seq for each in plain] == list(range(1, 12))
        await packed(store)
        await registered(store, "b")
        plain += (await store.journal())[-1:]
        assert loose(packing) == [undone.seq, 12]
        for model in (None, "a", "b", "c", "open", "none"):
            for after in range(13):
                for limit in (1, 2, 3, 100):
                    asked = await store.journal(model=model, after=after, limit=limit)
                    wanted = [each for each in plain if model in (None, each.key.name) and each.seq > after]
                    assert asked == wanted[:limit], (model, after, limit)
                    assert offline.journal(packing, model=model, after=after, limit=limit) == asked
        assert await store.journal(limit=0) == []


async def test_a_packed_answer_is_given_again_and_another_request_is_refused(packing: StoreConfig) -> None:
    def keyed(name: str, key: str, digest: str) -> Change:
        return Change(Operation.REGISTER, wish(name), Caller("tester", "r", key, digest))

    async with life(packing) as store:
        for key in ("first", "second", "third"):
            answer = await store.begin(keyed(key, key, "the same"))
            assert isinstance(answer, Begun)
            await store.finish(answer, ChangeOutcome.DONE, {"key": key})
        await registered(store, "no-key")
        await packed(store)
        assert loose(packing) == []
        assert await store.begin(keyed("x", "second", "the same")) == Replayed(2, {"key": "second"})
        assert await store.answered(Caller("tester", "r", "third", "the same")) == Replayed(3, {"key": "third"})
        with pytest.raises(IdempotencyMismatch, match="journal number 1"):
            await store.begin(keyed("x", "first", "another"))
        assert isinstance(await store.begin(keyed("x", "fourth", "the same")), Begun)
    async with life(packing, clean) as store:  # answers of another generation are true no longer
        assert await store.answered(Caller("tester", "r", "first", "the same")) is None


async def test_a_failed_change_puts_back_what_a_packed_one_had_left(packing: StoreConfig) -> None:
    async with life(packing) as store:
        await registered(store, "a", batch_size=1)
        await registered(store, "b")
        failed = [await begun(store, wish("a", overrides={"batch_size": size})) for size in (2, 3)]
        await store.finish(failed[0], ChangeOutcome.FAILED, {})
        await registered(store, "c")
        await packed(store)
        assert loose(packing) == [failed[1].seq]
        await store.finish(failed[1], ChangeOutcome.FAILED, {})
        rows = {row.key.name: row for row in await store.snapshot()}
        assert (rows["a"].seq, dict(rows["a"].overrides)) == (1, {"batch_size": 1})
        await store.finish(failed[0], ChangeOutcome.FAILED, {})  # said again: it was packed meanwhile, and is known
        with pytest.raises(ValueError, match="cannot become done"):
            await store.finish(failed[0], ChangeOutcome.DONE, {})


async def test_an_entry_without_an_outcome_stays_and_holds_up_nothing(packing: StoreConfig) -> None:
    async with life(packing) as store:
        await registered(store, "a")
        undone = await begun(store, wish("b"))
        for name in "cde":
            await registered(store, name)
        await packed(store)
        assert (ranges(packing), loose(packing)) == ([(1, 3), (4, 5)], [2])
    async with life(packing) as store:
        (found,) = await store.pending()
        assert found.seq == undone.seq
        await store.finish(found, ChangeOutcome.DONE, {}, replace(found.row, state=RegistrationState.ACTIVE))
        for name in "fg":
            await registered(store, name)
        await packed(store)
        assert (ranges(packing), loose(packing)) == ([(1, 3), (4, 5), (6, 7)], [2])
        assert [each.seq for each in await store.journal()] == list(range(1, 8))
        assert [row.key.name for row in await store.snapshot_at(seq=3)] == ["a", "b", "c"]
    assert offline.verify(packing) == []


async def test_archives_that_packed_entries_name_are_kept(packing: StoreConfig) -> None:
    async with life(packing) as store:
        for name in "ab":
            await registered(store, name)
        failed = await begun(store, wish("c"))
        await store.finish(failed, ChangeOutcome.FAILED, {})
        await registered(store, "d")
        await packed(store)
        assert loose(packing) == []
    async with life(packing, clean) as store:
        assert await store.referenced_digests() == {"sha-a", "sha-b", "sha-d"}


async def test_a_point_among_packed_entries_can_be_gone_back_to(packing: StoreConfig) -> None:
    async with life(packing, manifest) as store:
        for number, name in enumerate("abcab"):
            await registered(store, name, batch_size=number)
        points = [await store.snapshot_at(seq=seq) for seq in range(6)]
        times = [each.at for each in await store.journal()]
        before = [await store.snapshot_at(before=at) for at in times]
    async with life(packing, manifest) as store:
        await registered(store, "of-the-next")
        await packed(store)
        assert loose(packing) == []
        assert [await store.snapshot_at(seq=seq) for seq in range(6)] == points
        assert [await store.snapshot_at(before=at) for at in times] == before
        assert [row.key.name for row in await store.snapshot_at(seq=6)] == ["of-the-next"]
    async with life(packing, clean) as store:
        with pytest.raises(BadInput, match="--to-generation 2"):
            await store.snapshot_at(seq=6)


async def test_retention_takes_whole_segments_and_parts_of_them(config: StoreConfig) -> None:
    short = replace(config, journal_loose=0, journal_segment=3, journal_keep_entries=2, journal_keep_days=0)
    async with life(short) as store:
        await registered(store, "kept")  # 1: the only image of its model
        for size in range(2, 12):
            await registered(store, "a", batch_size=size)
        await registered(store, "b")  # 12
        await packed(store)
        assert ranges(short) == [(1, 3), (4, 6), (7, 9), (10, 12)]
        with patch.object(retention, "keep_from", lambda at, _days: at + timedelta(days=1)):
            await store.heartbeat({})
        assert [each.seq for each in await store.journal()] == [1, 10, 11, 12]
        assert ranges(short) == [(1, 1), (10, 12)]
        points = await store.snapshot_at(seq=10)
        assert [(row.key.name, dict(row.overrides)) for row in points] == [("kept", {}), ("a", {"batch_size": 10})]
        with pytest.raises(BadInput, match="kept from number 10 on"):
            await store.snapshot_at(seq=9)
        for size in (13, 14):
            await registered(store, "a", batch_size=size)
        store._verbs._retained_at = None
        with patch.object(retention, "keep_from", lambda at, _days: at + timedelta(days=1)):
            await store.heartbeat({})
        assert ranges(short) == [(1, 12)]  # what is left of neighbours comes together
        assert [each.seq for each in await store.journal()] == [1, 11, 12, 13, 14]
    assert offline.verify(short) == []

"""One change after another through the real store, on both databases."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest

from mms.errors import IdempotencyMismatch, NotCommitted, StillRunning
from mms.records import Begun, ChangeOutcome, IncarnationState, ModelKey, Operation, RegistrationState, Replayed
from mms.store.store import Store, StoreConfig
from tests.store_life import begun, change, life, registered, wish


async def test_a_registration_is_durable_before_it_is_applied(config: StoreConfig) -> None:
    async with life(config) as store:
        first = await begun(store, wish(overrides={"batch_size": 8}))
        assert (first.seq, first.before) == (1, None)
        assert first.row.revision == 1
    async with life(config) as store:
        (row,) = await store.snapshot()
        assert row == first.row
        assert row.overrides == {"batch_size": 8}
        assert await store.pending() == [first]


async def test_numbers_have_no_gaps_and_the_journal_keeps_everything(config: StoreConfig) -> None:
    async with life(config) as store:
        for name in ("a", "b", "c"):
            await registered(store, name)
        entries = await store.journal()
        assert [entry.seq for entry in entries] == [1, 2, 3] == list(range(1, store.last_seq + 1))
        assert {entry.outcome for entry in entries} == {ChangeOutcome.DONE}
        assert entries[0].after.state is RegistrationState.ACTIVE
        assert (entries[0].actor, entries[0].request_id, entries[0].epoch) == ("tester", "r-1", store.epoch)
        assert [entry.seq for entry in await store.journal(after=1, limit=1)] == [2]
        assert [entry.key.name for entry in await store.journal(model="c")] == ["c"]


async def test_a_failed_registration_leaves_no_row(config: StoreConfig) -> None:
    async with life(config) as store:
        first = await begun(store, wish())
        await store.finish(first, ChangeOutcome.FAILED, {"status": 500})
        assert await store.snapshot() == []
        (entry,) = await store.journal()
        assert (entry.outcome, entry.response) == (ChangeOutcome.FAILED, {"status": 500})


async def test_a_failed_change_puts_the_row_back_tombstone_included(config: StoreConfig) -> None:
    async with life(config) as store:
        row = await registered(store)
        gone = await begun(store, replace(row, state=RegistrationState.UNREGISTERED), Operation.UNREGISTER)
        await store.finish(gone, ChangeOutcome.DONE, {})
        (tombstone,) = await store.snapshot()
        again = await begun(store, wish())
        await store.finish(again, ChangeOutcome.FAILED, {})
        assert await store.snapshot() == [tombstone]
        assert not tombstone.wanted


async def test_a_failed_change_of_an_earlier_life_is_put_back_in_a_later_one(config: StoreConfig) -> None:
    async with life(config) as store:
        row = await registered(store, batch_size=2)
        await begun(store, replace(row, overrides={"batch_size": 9}), Operation.UPDATE)
    async with life(config) as store:
        (left,) = await store.pending()
        assert left.row.overrides == {"batch_size": 9}
        await store.finish(left, ChangeOutcome.FAILED, {})
        (restored,) = await store.snapshot()
        assert (restored.overrides, restored.state) == ({"batch_size": 2}, RegistrationState.ACTIVE)
        assert await store.pending() == []


async def test_two_open_changes_of_one_model_that_both_fail_leave_the_first_row(config: StoreConfig) -> None:
    async with life(config) as store:
        row = await registered(store)
        first = await begun(store, replace(row, overrides={"batch_size": 1}), Operation.UPDATE)
        second = await begun(store, replace(row, overrides={"batch_size": 2}), Operation.UPDATE)
        await store.finish(first, ChangeOutcome.FAILED, {})
        assert (await store.snapshot())[0].overrides == {"batch_size": 2}
        await store.finish(second, ChangeOutcome.FAILED, {})
        assert (await store.snapshot())[0].overrides == row.overrides


async def test_a_version_learnt_while_loading_moves_the_row(config: StoreConfig) -> None:
    async with life(config) as store:
        first = await begun(store, wish())
        known = replace(first.row, key=ModelKey("magika", "3.3"), state=RegistrationState.ACTIVE)
        await store.finish(first, ChangeOutcome.DONE, {}, known)
        (row,) = await store.snapshot()
        assert row.key == ModelKey("magika", "3.3")
        assert (await store.journal())[0].key == row.key


async def test_the_same_outcome_twice_is_one_and_another_is_refused(config: StoreConfig) -> None:
    async with life(config) as store:
        first = await begun(store, wish())
        await store.finish(first, ChangeOutcome.DONE, {"n": 1})
        await store.finish(first, ChangeOutcome.DONE, {"n": 2})
        assert (await store.journal())[0].response == {"n": 1}
        with pytest.raises(ValueError, match="cannot become failed"):
            await store.finish(first, ChangeOutcome.FAILED, {})


async def test_a_repeated_request_gets_the_stored_answer(config: StoreConfig) -> None:
    async with life(config) as store:
        first = await store.begin(change(wish(), key="k"))
        assert isinstance(first, Begun)
        with pytest.raises(StillRunning):
            await store.begin(change(wish(), key="k"))
        await store.finish(first, ChangeOutcome.DONE, {"status": 200, "text": "ok"})
        again = await store.begin(change(wish(), key="k"))
        assert again == Replayed(1, {"status": 200, "text": "ok"})
        other = change(wish(), key="k")
        with pytest.raises(IdempotencyMismatch):
            await store.begin(replace(other, caller=replace(other.caller, request_digest="another body")))
        assert store.last_seq == 1
    async with life(config) as store:
        assert await store.answered(change(wish(), key="k").caller) == again
        assert await store.answered(change(wish(), key="new").caller) is None


async def test_a_request_whose_server_died_runs_again_under_its_key(config: StoreConfig) -> None:
    async with life(config) as store:
        await store.begin(change(wish(), key="k"))
    async with life(config) as store:
        again = await store.begin(change(wish(), key="k"))
        assert isinstance(again, Begun)
        await store.finish(again, ChangeOutcome.DONE, {"n": 2})
        assert await store.begin(change(wish(), key="k")) == Replayed(again.seq, {"n": 2})


async def test_a_change_whose_caller_was_cancelled_is_worked_on_by_nobody(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with life(config) as store:
        running, go_on = threading.Event(), threading.Event()
        durable = store._verbs._writer.durable

        def held_back(*arguments: Any, **named: Any) -> Any:
            running.set()
            assert go_on.wait(10)
            return durable(*arguments, **named)

        monkeypatch.setattr(store._verbs._writer, "durable", held_back)
        asked = asyncio.create_task(store.begin(change(wish(), key="k")))
        assert await asyncio.to_thread(running.wait, 10)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        go_on.set()
        (left,) = await store.pending()
        assert left.row.key.name == "magika"
        assert isinstance(await store.begin(change(wish(), key="k")), Begun)


async def test_a_key_of_another_generation_says_nothing_about_this_one(config: StoreConfig) -> None:
    async with life(config) as store:
        first = await store.begin(change(wish(), key="k"))
        assert isinstance(first, Begun)
        await store.finish(first, ChangeOutcome.DONE, {})
        for state in (IncarnationState.RUNNING, IncarnationState.STOPPING, IncarnationState.CLEAN):
            await store.advance(state)
    async with life(config) as store:
        assert isinstance(await store.begin(change(wish(), key="k")), Begun)


async def test_settling_writes_what_replay_found_and_only_onto_the_same_row(config: StoreConfig) -> None:
    async with life(config) as store:
        row = await registered(store)
        await store.settle(replace(row, state=RegistrationState.FAILED, last_error="no \x00 luck \ud800", charges=2))
        (found,) = await store.snapshot()
        assert (found.state, found.charges, found.seq) == (RegistrationState.FAILED, 2, row.seq)
        assert found.last_error == "no \\x00 luck \\ud800"
        await store.settle(replace(row, seq=row.seq + 7, state=RegistrationState.ACTIVE))
        assert (await store.snapshot())[0].state is RegistrationState.FAILED


async def test_nothing_is_written_before_the_claim_or_after_the_clean_mark(config: StoreConfig) -> None:
    store = await Store.open(config)
    try:
        with pytest.raises(NotCommitted, match="not been claimed"):
            await store.begin(change(wish()))
    finally:
        await store.close()
    async with life(config) as store:
        for state in (IncarnationState.RUNNING, IncarnationState.STOPPING, IncarnationState.CLEAN):
            await store.advance(state)
        with pytest.raises(NotCommitted, match="has stopped"):
            await store.begin(change(wish()))


async def test_every_digest_that_could_be_restored_is_named(config: StoreConfig) -> None:
    async with life(config) as store:
        row = await registered(store, "a")
        failed = await begun(store, wish("b"))
        await store.finish(failed, ChangeOutcome.FAILED, {})
        newer = await begun(store, replace(row, sha256="sha-new"), Operation.UPDATE)
        await store.finish(newer, ChangeOutcome.DONE, {})
        assert await store.referenced_digests() == {"sha-a", "sha-new"}

"""A packed journal reads as one that was never packed; what is packed is verified at each boot, and found where it was changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from mms.errors import BadInput, IdempotencyMismatch, NotCommitted, StillRunning, StoreDamaged
from mms.records import Begun, Caller, Change, ChangeOutcome, Operation, RegistrationState, Replayed
from mms.store import offline, retention, segments
from mms.store import verbs as verbs_module
from mms.store.opening import open_once
from mms.store.seal import sealed
from mms.store.segment import entry, pack, unpack
from mms.store.store import Store, StoreConfig
from mms.store.tables import journal, journal_segment
from mms.store.verbs import Verbs
from tests.integration.store.test_store_damage import execute, file
from tests.store_life import WHO, auto, begun, change, clean, life, manifest, registered, wish

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def packing(config: StoreConfig) -> StoreConfig:
    """Everything settled is packed, two and two."""
    return replace(config, journal_loose=0, journal_segment=2)


async def packed(store: Store) -> None:
    """Pack as long as there is something to pack."""
    before = -1
    while store.counts.commits != before:
        before = store.counts.commits
        await store.pack()


def ranges(config: StoreConfig) -> list[tuple[int, int]]:
    with offline.reader(config) as tx:
        return [(head.first_seq, head.last_seq) for head in segments.heads(tx, config.server_id, up_to=10**9)]


def loose(config: StoreConfig) -> list[int]:
    with offline.reader(config) as tx:
        own = journal.c.server_id == config.server_id
        return list(tx.execute(select(journal.c.seq).where(own).order_by(journal.c.seq)).scalars())


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


# --- a packed journal beside one that is never packed ----------------------------------------------------------------

STEPS = st.one_of(
    st.tuples(st.just("register"), st.sampled_from("abc"), st.sampled_from(["done", "failed", "open"])),
    st.tuples(st.just("unregister"), st.sampled_from("abc"), st.sampled_from(["done", "failed", "open"])),
    st.tuples(st.just("settle"), st.integers(0, 5), st.sampled_from(["done", "failed"])),
    st.tuples(st.just("pack")),
    st.tuples(st.just("prune"), st.integers(0, 40)),
    st.tuples(st.just("boot"), st.sampled_from(["auto", "manifest", "clean"])),
)


class Pair:
    """Two stores that live the same lives; only one of them packs."""

    def __init__(self, configs: list[StoreConfig]) -> None:
        self.configs = configs
        self.verbs: list[Verbs] = []
        self.open: list[list[Begun]] = [[], []]
        self.clock = count()
        self.boot("manifest")

    def close(self) -> None:
        for each in self.verbs:
            each.close()
        self.verbs = []

    def boot(self, how: str) -> None:
        self.close()
        for config in self.configs:
            opened = open_once(config)  # which verifies
            verbs = Verbs(config, opened)
            verbs.claim({"auto": auto, "manifest": manifest, "clean": clean}[how], WHO, ())
            self.verbs.append(verbs)
        self.open = [each.pending() for each in self.verbs]

    def step(self, at: datetime, verb: str, *details: Any) -> None:
        with patch.object(verbs_module, "now", lambda _tx: at):
            if verb == "boot":
                self.boot(*details)
            elif verb == "pack":
                self.verbs[1]._packs_from = 0
                self.verbs[1].pack()
            else:
                for number, verbs in enumerate(self.verbs):
                    getattr(self, verb)(verbs, self.open[number], *details)

    def register(self, verbs: Verbs, left: list[Begun], name: str, outcome: str) -> None:
        self._change(verbs, left, change(wish(name, overrides={"n": verbs.last_seq}), key=f"{verbs.last_seq}"), outcome)

    def unregister(self, verbs: Verbs, left: list[Begun], name: str, outcome: str) -> None:
        row = replace(wish(name), state=RegistrationState.UNREGISTERED)
        self._change(verbs, left, change(row, Operation.UNREGISTER), outcome)

    def _change(self, verbs: Verbs, left: list[Begun], wished: Change, outcome: str) -> None:
        made = verbs.begin(wished)
        assert isinstance(made, Begun)
        left.append(made)
        if outcome != "open":
            self.settle(verbs, left, -1, outcome)

    def settle(self, verbs: Verbs, left: list[Begun], number: int, outcome: str) -> None:
        if left:
            made = left.pop(number % len(left))
            verbs.finish(made, ChangeOutcome(outcome), {"of": made.seq}, None)

    def prune(self, verbs: Verbs, _left: list[Begun], old: int) -> None:
        verbs._retained_at = None
        with patch.object(retention, "keep_from", lambda _at, _days: START + timedelta(minutes=old)):
            verbs._retain()

    def seen(self, verbs: Verbs, config: StoreConfig, at: datetime) -> Iterator[object]:
        """All that can be read; none of it may tell the two apart."""
        yield offline.journal(config, limit=1000)
        yield [offline.journal(config, model=name, limit=1000) for name in "abc"]
        yield [offline.journal(config, after=after, limit=2) for after in (0, 3)]
        yield verbs.snapshot(None)
        yield [each.seq for each in verbs.pending()]
        yield verbs.referenced_digests()
        for seq in range(verbs.last_seq + 1):
            yield refused_or(verbs.snapshot_at, seq, None, None)
        for minute in range(int((at - START).total_seconds() // 60) + 2):
            yield refused_or(verbs.snapshot_at, None, None, START + timedelta(minutes=minute))
        for key in range(verbs.last_seq):
            yield refused_or(verbs.answered, Caller("tester", "r-1", f"{key}", f"digest of {key}"))


def refused_or(verb: Any, *arguments: Any) -> object:
    try:
        return verb(*arguments)
    except (BadInput, NotCommitted, IdempotencyMismatch, StillRunning) as error:
        return f"{type(error).__name__}: {error.message}"


def compare(pair: Pair, steps: list[tuple[Any, ...]]) -> None:
    for number, step in enumerate(steps):
        at = START + timedelta(minutes=number)
        pair.step(at, *step)
        if step[0] not in ("pack", "prune") and number + 1 < len(steps):
            continue
        both = [list(pair.seen(verbs, config, at)) for verbs, config in zip(pair.verbs, pair.configs, strict=True)]
        assert both[0] == both[1], f"after {steps[: number + 1]}"
    for config in pair.configs:
        assert offline.verify(config) == []


@settings(max_examples=30, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.lists(STEPS, min_size=4, max_size=22), st.integers(0, 2), st.integers(1, 4), st.integers(0, 4))
def test_whatever_happens_a_packed_journal_reads_as_one_that_never_was(
    steps: list[tuple[Any, ...]], kept_loose: int, size: int, keep_entries: int
) -> None:
    with TemporaryDirectory() as folder:
        configs = [
            StoreConfig(
                f"sqlite:///{folder}/{name}.db", "one", Path(folder), journal_keep_entries=keep_entries,
                journal_loose=kept_loose, journal_segment=size,
            )
            for name in ("plain", "packed")
        ]  # fmt: skip
        with closing(Pair(configs)) as pair:
            compare(pair, steps)


def test_the_same_on_postgres(postgres_url: str, tmp_path: Path) -> None:
    configs = [
        StoreConfig(postgres_url, name, tmp_path, journal_keep_entries=3, journal_loose=1, journal_segment=2)
        for name in ("plain", "packed")
    ]
    steps: list[tuple[Any, ...]] = []
    for number in range(12):
        steps.append(("register", "abc"[number % 3], ["done", "failed", "open", "done"][number % 4]))
        steps.append(("pack",))
    steps += [("prune", 9), ("boot", "auto"), ("settle", 1, "done"), ("unregister", "b", "done"), ("pack",), ("pack",)]
    steps += [("prune", 28), ("register", "a", "done"), ("boot", "manifest"), ("register", "c", "done"), ("pack",)]
    with closing(Pair(configs)) as pair:
        compare(pair, steps)
        assert ranges(configs[1])
        assert not ranges(configs[0])


# --- damage ----------------------------------------------------------------------------------------------------------


async def six_packed(config: StoreConfig) -> None:
    async with life(config) as store:
        for name in "abcdef":
            await registered(store, name)
        await packed(store)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE journal_segment SET content = (SELECT content FROM journal_segment WHERE first_seq = 1) WHERE first_seq = 3",
        "UPDATE journal_segment SET archives = 'other' WHERE first_seq = 3",
        "UPDATE journal_segment SET entries = 3 WHERE first_seq = 3",
        "UPDATE journal_segment SET last_at = first_at WHERE first_seq = 3",
        "UPDATE journal_segment SET idempotency_keys = models WHERE first_seq = 3",
    ],
)
async def test_a_changed_segment_is_found_at_boot_and_named(packing: StoreConfig, statement: str) -> None:
    await six_packed(packing)
    execute(packing, statement)
    with pytest.raises(StoreDamaged, match=r"table journal_segment, first_seq 3, last_seq 4: the row is not what"):
        await Store.open(packing)
    assert "journal_segment, first_seq 3" in offline.verify(packing)[0]


async def test_a_segment_that_changes_while_the_server_runs_is_not_believed(packing: StoreConfig) -> None:
    await six_packed(packing)
    async with life(packing) as store:
        execute(packing, "UPDATE journal_segment SET archives = 'other' WHERE first_seq = 3")
        with pytest.raises(NotCommitted, match="Journal segment 3 to 4 is not what was written"):
            await store.journal()
        with pytest.raises(NotCommitted, match="Journal segment 3 to 4 is not what was written"):
            await store.snapshot_at(seq=6)
        assert len(await store.journal(after=4)) == 2


async def test_an_entry_that_changes_while_the_server_runs_is_neither_packed_nor_believed(packing: StoreConfig) -> None:
    async with life(packing) as store:
        for name in "ab":
            await registered(store, name)
        execute(packing, "UPDATE journal SET actor = 'nobody' WHERE seq = 2")
        with pytest.raises(NotCommitted, match="Journal entry 2 is not what was written"):
            await store.pack()
        with pytest.raises(NotCommitted, match="Journal entry 2 is not what was written"):
            await store.snapshot_at(seq=2)
        await registered(store, "c")
    assert ranges(packing) == []
    with pytest.raises(StoreDamaged, match="table journal, seq 2:"):
        await Store.open(packing)


async def test_every_loose_entry_is_verified_at_boot_however_many(
    config: StoreConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with life(config) as store:
        for name in "abcdef":
            await registered(store, name)
    monkeypatch.setattr("mms.store.opening.MANY_LOOSE", 5)
    async with life(config):
        assert "Verifying 6 journal entries that are not packed yet" in caplog.text
    execute(config, "UPDATE journal SET actor = 'nobody' WHERE seq = 1")
    with pytest.raises(StoreDamaged, match="table journal, seq 1:"):
        await Store.open(config)


def rewrite(config: StoreConfig, first_seq: int, **changes: Any) -> None:
    """Behind the store's back, but with a right hash."""
    opened = open_once(config)
    with closing(opened), opened.database.transaction() as tx:
        where = (journal_segment.c.server_id == config.server_id, journal_segment.c.first_seq == first_seq)
        row = tx.execute(select(journal_segment).where(*where)).mappings().one()
        tx.execute(update(journal_segment).where(*where).values(sealed(journal_segment, {**row, **changes})))


async def test_verify_looks_at_each_packed_entry(packing: StoreConfig) -> None:
    await six_packed(packing)
    with offline.reader(packing) as tx:
        content = tx.execute(select(journal_segment.c.content)).scalars().all()[0]
    rewrite(packing, 5, content=content)
    (await Store.open(packing))._verbs.close()
    assert any("journal segment 5 to 6: its first_seq does not agree" in each for each in offline.verify(packing))


async def test_segments_and_entries_do_not_overlap_nor_reach_beyond_the_store(packing: StoreConfig) -> None:
    await six_packed(packing)
    with offline.reader(packing) as tx:
        first = tx.execute(select(journal_segment).where(journal_segment.c.first_seq == 1)).mappings().one()
    opened = open_once(packing)
    with closing(opened), opened.database.transaction() as tx:
        rows = [entry(line) for line in unpack(first)]
        tx.execute(insert(journal).values([dict(rows[0])]))
    with pytest.raises(
        StoreDamaged, match="journal entry 1 is there twice: in table journal and in the journal segment 1"
    ):
        await Store.open(packing)
    execute(packing, "DELETE FROM journal")
    opened = open_once(packing)
    with closing(opened), opened.database.transaction() as tx:
        lines = unpack(first)
        tx.execute(insert(journal_segment).values(pack(packing.server_id, rows[1:], lines[1:])))
    with pytest.raises(StoreDamaged, match="the segment 2 to 2 overlaps the one before it"):
        await Store.open(packing)
    execute(packing, "DELETE FROM journal_segment WHERE first_seq = 2")
    rewrite(packing, 5, last_seq=9)
    with pytest.raises(StoreDamaged, match="table journal_segment reaches journal number 9, store_meta only 6"):
        await Store.open(packing)


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        ("DELETE FROM journal", 6),
        ("DELETE FROM journal_segment", 2),
        ("DELETE FROM journal_segment WHERE first_seq = 3", 6),
        ("DELETE FROM journal WHERE seq = 7", 7),
    ],
)
async def test_a_removed_entry_is_missed_at_boot(packing: StoreConfig, statement: str, left: int) -> None:
    await six_packed(packing)
    async with life(replace(packing, journal_loose=9)) as store:
        for name in "gh":
            await registered(store, name)
    assert offline.verify(packing) == []
    execute(packing, statement)
    with pytest.raises(StoreDamaged, match=f"the journal has {left} entries, and should have 8"):
        await Store.open(packing)


async def test_every_flipped_bit_of_a_segment_is_found_at_boot(sqlite_config: StoreConfig) -> None:
    """In the file itself, in whatever column it lies."""
    config = replace(sqlite_config, journal_loose=0, journal_segment=6)
    await six_packed(config)
    with offline.reader(config) as tx:
        row = dict(tx.execute(select(journal_segment)).mappings().one())
    whole = file(config).read_bytes()
    flipped = 0
    for column in ("row_sha256", "archives", "models", "content"):
        value = row[column] if isinstance(row[column], bytes) else row[column].encode()
        piece = value[:64]  # what is longer may go on in another page
        start = whole.index(piece)
        for bit in range(0, 8 * len(piece), 5):
            harmed = bytearray(whole)
            harmed[start + bit // 8] ^= 1 << bit % 8
            file(config).write_bytes(harmed)
            with pytest.raises(StoreDamaged, match="journal_segment"):
                open_once(config)
            flipped += 1
    assert flipped > 100
    file(config).write_bytes(whole)
    open_once(config).close()


async def test_rows_that_are_set_aside_can_still_be_read(postgres_url: str, tmp_path: Path) -> None:
    packing = StoreConfig(postgres_url, "one", tmp_path, journal_loose=0, journal_segment=2)
    await six_packed(packing)
    execute(packing, "UPDATE registration SET url = 'other.mar'")
    async with life(replace(packing, clean_start=True)) as store:
        assert await store.journal() == []
    aside = replace(packing, server_id="one.lost-1")
    assert [each.key.name for each in offline.journal(aside)] == list("abcdef")

"""Packed entries that were changed or removed behind the store's back: found at boot and named, and never believed."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from mms.errors import NotCommitted, StoreDamaged
from mms.store import offline
from mms.store.opening import open_once
from mms.store.seal import sealed
from mms.store.segment import entry, pack, unpack
from mms.store.store import Store, StoreConfig
from mms.store.tables import journal, journal_segment
from tests.integration.store.packing import ranges, six_packed
from tests.integration.store.test_store_damage import execute, file
from tests.store_life import life, registered


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


@pytest.mark.parametrize(("before", "after"), [(b"\x03\x02", b"\x04\x02"), (b"\x03\x02", b"\x03\x01")])
async def test_an_index_that_does_not_lead_to_a_segment_is_found_at_boot(
    sqlite_config: StoreConfig, before: bytes, after: bytes
) -> None:
    """The second segment begins at 3 and is the second row: that is how it stands in the index, behind the server's name."""
    config = replace(sqlite_config, journal_loose=0, journal_segment=2)
    await six_packed(config)
    name = config.server_id.encode()
    whole = file(config).read_bytes()
    assert whole.count(name + before) == 1
    file(config).write_bytes(whole.replace(name + before, name + after))
    with pytest.raises(StoreDamaged, match=r"the index does not lead to the segment that begins at 3"):
        open_once(config)


async def test_rows_that_are_set_aside_can_still_be_read(postgres_url: str, tmp_path: Path) -> None:
    packing = StoreConfig(postgres_url, "one", tmp_path, journal_loose=0, journal_segment=2)
    await six_packed(packing)
    execute(packing, "UPDATE registration SET url = 'other.mar'")
    async with life(replace(packing, clean_start=True)) as store:
        assert await store.journal() == []
    aside = replace(packing, server_id="one.lost-1")
    assert [each.key.name for each in offline.journal(aside)] == list("abcdef")

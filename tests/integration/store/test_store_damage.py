"""Stores that were changed behind the server's back: each is found and named, none is ever silently fresh."""

from __future__ import annotations

import random
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from mms.errors import StoreDamaged, StoreNewer, UsageError
from mms.records import BootFacts, ChangeOutcome, IncarnationState
from mms.store import offline
from mms.store.store import Store, StoreConfig
from tests.store_life import auto, begun, change, life, registered, wish


def execute(config: StoreConfig, statement: str, **values: object) -> None:
    """Behind the store's back."""
    engine = create_engine(config.url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        assert connection.execute(text(statement), values).rowcount
    engine.dispose()


def file(config: StoreConfig, suffix: str = "") -> Path:
    return Path(config.url.removeprefix("sqlite:///") + suffix)


def witness_path(config: StoreConfig) -> Path:
    (path,) = config.data_dir.glob("*.witness")
    return path


async def test_a_first_boot_that_was_killed_before_it_made_a_table_leaves_no_damage(sqlite_config: StoreConfig) -> None:
    connection = sqlite3.connect(file(sqlite_config))
    connection.execute("PRAGMA journal_mode = WAL")  # all that such a boot may have written
    connection.close()
    assert file(sqlite_config).stat().st_size > 0
    async with life(sqlite_config) as store:
        assert store.epoch == 1


async def test_a_changed_row_is_named(config: StoreConfig) -> None:
    async with life(config) as store:
        await registered(store, "magika")
    execute(config, "UPDATE registration SET url = 'other.mar'")
    with pytest.raises(StoreDamaged, match=r"registration, generation 1, name magika.*--clean-start"):
        await Store.open(config)
    assert "name magika" in offline.verify(config)[0]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE incarnation SET state = 'clean'",
        "UPDATE incarnation SET generation = 2",
        "UPDATE journal SET outcome = 'failed'",
        "UPDATE journal SET response = '{'",
        "UPDATE store_meta SET last_seq = last_seq + 1",
        "UPDATE registration SET overrides = '{}'",
        "DELETE FROM incarnation",
    ],
)
async def test_whatever_the_boot_reads_is_sealed(sqlite_config: StoreConfig, statement: str) -> None:
    async with life(sqlite_config) as store:
        await registered(store, "magika", batch_size=8)
    execute(sqlite_config, statement)
    with pytest.raises(StoreDamaged):
        await Store.open(sqlite_config)
    assert offline.verify(sqlite_config)


async def test_an_old_copy_is_told_from_the_store(sqlite_config: StoreConfig, tmp_path: Path) -> None:
    async with life(sqlite_config) as store:
        await registered(store, "a")
        await store.backup(tmp_path / "copy.db")
        await registered(store, "b")
    shutil.copy(tmp_path / "copy.db", file(sqlite_config))
    with pytest.raises(StoreDamaged, match=r"journal numbers 2 to 2 are missing.*--accept-store-loss 2,"):
        await Store.open(sqlite_config)
    assert "journal numbers 2 to 2 are missing" in offline.verify(sqlite_config)[0]


async def test_a_lost_second_transaction_is_found_too(sqlite_config: StoreConfig, tmp_path: Path) -> None:
    async with life(sqlite_config) as store:
        first = await begun(store, wish())
        await store.backup(tmp_path / "copy.db")
        await store.finish(first, ChangeOutcome.DONE, {})
    shutil.copy(tmp_path / "copy.db", file(sqlite_config))
    with pytest.raises(StoreDamaged, match="outcomes, or the record of a start or a stop, are missing"):
        await Store.open(sqlite_config)


async def test_an_accepted_loss_is_this_one_and_no_later_one(config: StoreConfig, tmp_path: Path) -> None:
    async with life(config) as store:
        await registered(store, "a")
        await registered(store, "b")
        seen = store.last_seq
    go_back(config)
    with pytest.raises(StoreDamaged, match=f"--accept-store-loss {seen - 1} accepts another loss"):
        await Store.open(replace(config, accept_store_loss=seen - 1))
    accepting = replace(config, accept_store_loss=seen)
    async with life(accepting) as store:
        assert store.epoch == 2
        assert [row.key.name for row in await store.snapshot()] == ["a", "b"]
        assert (await begun(store, wish("c"))).seq > seen
    go_back(config)
    with pytest.raises(StoreDamaged, match="accepts another loss than this one"):
        await Store.open(accepting)


def go_back(config: StoreConfig) -> None:
    """The last number is gone, as on a standby that lost a commit: seal and all."""
    from mms.store import database, location, meta

    db = database.Database(location.parse(config.url))
    with db.transaction() as tx:
        found = meta.read(tx, config.server_id)
        assert found is not None
        back = replace(found, commits=found.commits - 1)
        meta.save(tx, config.server_id, back, epoch=found.epoch)
    db.close()


async def test_an_emptied_database_is_not_fresh(config: StoreConfig) -> None:
    async with life(config) as store:
        await registered(store)
    for table in ("store_meta", "incarnation", "registration", "journal"):
        execute(config, f"DELETE FROM {table}")
    with pytest.raises(StoreDamaged, match="empty or gone"):
        await Store.open(config)


async def test_a_deleted_database_is_not_fresh_and_nothing_is_made_in_its_place(sqlite_config: StoreConfig) -> None:
    async with life(sqlite_config) as store:
        await registered(store)
    file(sqlite_config).unlink()
    with pytest.raises(StoreDamaged, match=r"empty or gone.*--accept-store-loss 1,"):
        await Store.open(sqlite_config)
    assert not file(sqlite_config).exists()
    async with life(replace(sqlite_config, accept_store_loss=1)) as store:
        assert (store.epoch, await store.snapshot()) == (2, [])


async def test_another_store_in_its_place_is_noticed(sqlite_config: StoreConfig, tmp_path: Path) -> None:
    async with life(sqlite_config) as store:
        await registered(store)
    other = replace(sqlite_config, url=f"sqlite:///{tmp_path}/other.db")
    async with life(other) as store:
        for name in "abcdefgh":
            await registered(store, name)
    shutil.copy(file(other), file(sqlite_config))
    with pytest.raises(StoreDamaged, match="it is another store"):
        await Store.open(sqlite_config)


async def test_a_missing_witness_is_made_anew_with_a_warning(
    config: StoreConfig, caplog: pytest.LogCaptureFixture
) -> None:
    async with life(config) as store:
        await registered(store)
    witness_path(config).unlink()
    async with life(config) as store:
        assert "is missing" in caplog.text
        assert len(await store.snapshot()) == 1
    assert witness_path(config).exists()


async def test_store_and_witness_both_missing_is_a_first_boot(sqlite_config: StoreConfig) -> None:
    async with life(sqlite_config) as store:
        await registered(store)
    file(sqlite_config).unlink()
    witness_path(sqlite_config).unlink()
    async with life(sqlite_config) as store:
        assert store.epoch == 1


async def test_a_torn_witness_slot_leaves_the_other(sqlite_config: StoreConfig) -> None:
    async with life(sqlite_config) as store:
        await registered(store)
    whole = witness_path(sqlite_config).read_bytes()
    for slot in (0, 4096):
        torn = bytearray(whole)
        torn[slot + 20] ^= 0xFF
        witness_path(sqlite_config).write_bytes(torn)
        store = await Store.open(sqlite_config)
        await store.close()


async def test_a_witness_that_cannot_be_read_and_no_store_is_damage(sqlite_config: StoreConfig) -> None:
    async with life(sqlite_config):
        pass
    witness_path(sqlite_config).write_bytes(b"\0" * 8192)
    file(sqlite_config).unlink()
    with pytest.raises(StoreDamaged, match="cannot be read"):
        await Store.open(sqlite_config)


@pytest.mark.parametrize("harm", ["header", "cut", "zeros", "empty", "no text"])
async def test_a_clean_start_moves_a_damaged_file_aside_and_deletes_nothing(
    sqlite_config: StoreConfig, harm: str
) -> None:
    async with life(sqlite_config) as store:
        await registered(store)
        old_uuid = store.store_uuid
    path = file(sqlite_config)
    content = path.read_bytes()
    harmed = {
        "header": b"x" * 16 + content[16:],
        "cut": content[: len(content) // 2],
        "zeros": content[:4096] + b"\0" * 4096 + content[8192:],
        "empty": b"",
        "no text": content.replace(b"magika.mar", b"magi\xff\xfe.mar"),
    }[harm]
    path.write_bytes(harmed)
    with pytest.raises(StoreDamaged):
        await Store.open(sqlite_config)
    assert path.read_bytes() == harmed
    async with life(replace(sqlite_config, clean_start=True)) as store:
        assert store.store_uuid != old_uuid
        assert (store.epoch, await store.snapshot()) == (2, [])
        await registered(store, "new")
    if harmed:
        kept = path.with_name("store.db.lost-1")
        assert kept.read_bytes() == harmed
    async with life(sqlite_config) as store:
        assert [row.key.name for row in await store.snapshot()] == ["new"]


async def test_a_clean_start_on_postgres_renames_the_rows_it_cannot_believe(config: StoreConfig) -> None:
    async with life(config) as store:
        await registered(store)
    execute(config, "UPDATE registration SET url = 'other.mar'")
    async with life(replace(config, clean_start=True)) as store:
        assert await store.snapshot() == []
        assert store.epoch == 2
    if config.url.startswith("postgresql"):
        assert offline.registrations(replace(config, server_id="one.lost-1"), 1)[0].url == "other.mar"


async def test_a_write_ahead_log_without_its_database_is_damage(sqlite_config: StoreConfig) -> None:
    file(sqlite_config, "-wal").write_bytes(b"something")
    with pytest.raises(StoreDamaged, match="write-ahead log is there"):
        await Store.open(sqlite_config)


async def test_a_file_that_is_no_store_of_ours_is_left_alone(sqlite_config: StoreConfig) -> None:
    connection = sqlite3.connect(file(sqlite_config))
    connection.execute("CREATE TABLE recipes (name)")
    connection.close()
    with pytest.raises(StoreDamaged, match="no record of their version"):
        await Store.open(sqlite_config)


async def test_a_store_of_a_newer_version_is_refused(config: StoreConfig) -> None:
    async with life(config):
        pass
    execute(config, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreNewer, match="9999"):
        await Store.open(replace(config, clean_start=True))


async def test_no_password_is_ever_shown(tmp_path: Path) -> None:
    url = "postgresql://someone:s3cret@127.0.0.1:1/none"
    config = StoreConfig(url=url, server_id="one", data_dir=tmp_path, boot_store_timeout=0)
    with pytest.raises(Exception, match="cannot be reached") as caught:
        await Store.open(config)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(UsageError) as usage:
        await Store.open(replace(config, url="postgresql://someone:s3cret@host:notaport/x"))
    assert "s3cret" not in str(usage.value)


async def test_every_flipped_bit_is_harmless_or_found(sqlite_config: StoreConfig, tmp_path: Path) -> None:
    """Either the store opens with exactly what was written, or it is refused."""
    async with life(sqlite_config) as store:
        for name in ("a", "b", "c"):
            await registered(store, name, batch_size=8)
        await store.advance(IncarnationState.RUNNING)
    path = file(sqlite_config)
    whole = path.read_bytes()
    expected = await look(sqlite_config)
    dice = random.Random(1)
    found = 0
    for _ in range(60):
        flipped = bytearray(whole)
        bit = dice.randrange(len(whole) * 8)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        for extra in ("-wal", "-shm"):
            file(sqlite_config, extra).unlink(missing_ok=True)
        try:
            seen = await look(sqlite_config)
        except (StoreDamaged, StoreNewer):
            found += 1
        else:
            assert seen == expected, f"bit {bit}"
    assert found > 5


async def look(config: StoreConfig) -> object:
    """Everything that a boot would read; nothing is written."""
    seen: list[BootFacts] = []

    def decide(facts: BootFacts) -> object:
        seen.append(facts)
        raise UsageError("only looking")

    store = await Store.open(config)
    try:
        with pytest.raises(UsageError, match="only looking"):
            await store.claim(decide, change(wish()).after, ())  # type: ignore[arg-type]
        rows = await store.snapshot(1)
        return seen, rows, await store.journal()
    finally:
        await store.close()


async def test_a_file_replaced_while_it_is_open_takes_no_more_changes(sqlite_config: StoreConfig) -> None:
    from mms.errors import NotCommitted

    async with life(sqlite_config, auto) as store:
        await registered(store)
        path = file(sqlite_config)
        path.rename(path.with_name("elsewhere.db"))
        with pytest.raises(NotCommitted, match="is gone"):
            await begun(store, wish("lost"))
        path.with_name("elsewhere.db").rename(path)

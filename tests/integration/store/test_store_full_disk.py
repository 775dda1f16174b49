"""A disk that is really full: nothing half done, the server can still stop in order, and space that returns is used."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mms.errors import NotCommitted
from mms.records import ChangeOutcome, IncarnationState, Operation, RegistrationState, StoreHealth
from mms.store.store import StoreConfig
from tests.store_life import auto, begun, life, registered, wish


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Take every free byte."""
    filler = disk / "filler"
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        size = 1 << 20
        while size >= 512:
            try:
                os.write(fd, b"x" * size)
            except OSError:
                size //= 2
    finally:
        os.close(fd)
    return filler


def on(disk: Path) -> StoreConfig:
    return StoreConfig(url=f"sqlite:///{disk}/store.db", server_id="one", data_dir=disk)


async def until_refused(store: object) -> int:
    """The log still has room in its last pages; use that up."""
    for number in range(2000):
        try:
            await registered(store, f"filler-{number}")  # type: ignore[arg-type]
        except NotCommitted:
            return number
    raise AssertionError("the disk is not full")


async def test_a_full_disk_refuses_changes_and_takes_them_again_when_there_is_room(small_disk: Path) -> None:
    async with life(on(small_disk)) as store:
        await registered(store, "before")
        assert (small_disk / "store.db.ballast").stat().st_size == 1 << 20
        filler = fill(small_disk)
        await until_refused(store)
        with pytest.raises(NotCommitted, match="full"):
            await begun(store, wish("lost"))
        assert store.health is StoreHealth.READ_ONLY
        filler.unlink()
        await store.heartbeat({})
        assert store.health is StoreHealth.OK
        await registered(store, "after")
        names = {row.key.name for row in await store.snapshot()}
        assert {"before", "after"} <= names
        assert "lost" not in names


async def test_the_ballast_lets_a_tombstone_and_the_clean_mark_through(small_disk: Path) -> None:
    config = on(small_disk)
    async with life(config) as store:
        row = await registered(store, "poison")
        await store.advance(IncarnationState.RUNNING)
        fill(small_disk)
        await until_refused(store)
        gone = await begun(store, replace(row, state=RegistrationState.UNREGISTERED), Operation.UNREGISTER)
        await store.finish(gone, ChangeOutcome.DONE, {})
        await store.advance(IncarnationState.STOPPING)
        await store.advance(IncarnationState.CLEAN)
        assert not (small_disk / "store.db.ballast").exists()
    (small_disk / "filler").unlink()
    async with life(config, auto) as store:
        assert store.generation == 2
        left = {row.key.name: row.wanted for row in await store.snapshot(1)}
        assert left["poison"] is False
        assert (small_disk / "store.db.ballast").exists()


async def test_a_server_that_crashed_on_a_full_disk_can_still_boot(small_disk: Path) -> None:
    config = on(small_disk)
    async with life(config) as store:
        await registered(store, "kept")
        fill(small_disk)
        await until_refused(store)
    async with life(config) as store:
        assert store.epoch == 2
        assert "kept" in {row.key.name for row in await store.snapshot()}

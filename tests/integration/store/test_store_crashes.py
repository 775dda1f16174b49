"""Real processes, killed with SIGKILL around every commit and witness write; what they had acknowledged must be there."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from mms.errors import StoreDamaged, StoreInUse, UsageError
from mms.records import BootFacts, ChangeOutcome, IncarnationState, ModelKey, Operation, RegistrationState
from mms.store import witness, writer
from mms.store.store import Store, StoreConfig
from tests.store_life import WHO, auto, begun, life, registered, wish

View = tuple[Any, ...]


async def scenario(config: StoreConfig, told: Callable[[], None]) -> None:
    """Ten transactions; `told` after each, as the answer to a client would be."""
    store = await Store.open(config)
    await store.claim(auto, WHO, ())
    told()
    await store.open_attempts([(ModelKey("a"), "sha-a")])
    told()
    first = await begun(store, wish("a", overrides={"batch_size": 8}))
    told()
    await store.finish(first, ChangeOutcome.DONE, {"n": 1}, replace(first.row, state=RegistrationState.ACTIVE))
    told()
    second = await begun(store, replace(first.row, overrides={"batch_size": 2}), Operation.UPDATE)
    told()
    await store.finish(second, ChangeOutcome.FAILED, {"n": 2})
    told()
    await store.pack()
    told()
    for state in (IncarnationState.RUNNING, IncarnationState.STOPPING, IncarnationState.CLEAN):
        await store.advance(state)
        told()
    await store.close()


async def view(config: StoreConfig) -> View:
    """What the next boot would see."""
    seen: list[BootFacts] = []

    def look(facts: BootFacts) -> Any:
        seen.append(facts)
        raise UsageError("only looking")

    store = await Store.open(config)
    try:
        with pytest.raises(UsageError, match="only looking"):
            await store.claim(look, WHO, ())
        rows = [(row.key.name, row.state, dict(row.overrides)) for row in await store.snapshot(1)]
        entries = [(entry.seq, entry.outcome, entry.response) for entry in await store.journal()]
        last = seen[0].last
        open_attempts = [attempt.key.name for attempt in seen[0].open_attempts]
        return (last and (last.epoch, last.state), rows, entries, open_attempts)
    finally:
        await store.close()


def in_child(job: Callable[[int], None]) -> tuple[int, bytes]:
    """Run a job in a forked process, which may kill itself; returns its wait status and what it wrote."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            job(writing)
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        said = answers.read()
    return os.waitpid(pid, 0)[1], said


def killed_at(config: StoreConfig, moment: int) -> tuple[bool, int]:
    """Run the scenario and kill it at its n-th moment; returns whether it came so far, and how many answers it gave."""

    def job(writing: int) -> None:
        left = [moment]

        def reached(*_arguments: Any) -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(Engine, "commit", reached)
        around(writer.Writer, "_committed", reached)
        around(witness.os, "fdatasync", reached)
        asyncio.run(scenario(config, lambda: os.write(writing, b".") and None))

    status, said = in_child(job)
    assert os.WIFSIGNALED(status) or status == 0, "the scenario failed by itself"
    return os.WIFSIGNALED(status), len(said)


def around(owner: Any, name: str, reached: Callable[..., None]) -> None:
    original = getattr(owner, name)

    def wrapped(*arguments: Any) -> Any:
        reached()
        answer = original(*arguments)
        reached()
        return answer

    setattr(owner, name, wrapped)


A = "a"
EIGHT, TWO = {"batch_size": 8}, {"batch_size": 2}
BOOTING, RUNNING, STOPPING, CLEAN = IncarnationState
PENDING, ACTIVE = RegistrationState.PENDING, RegistrationState.ACTIVE
FIRST = (1, ChangeOutcome.DONE, {"n": 1})
SECOND = (2, ChangeOutcome.FAILED, {"n": 2})
VIEWS: list[View] = [
    (None, [], [], []),
    ((1, BOOTING), [], [], []),
    ((1, BOOTING), [], [], [A]),
    ((1, BOOTING), [(A, PENDING, EIGHT)], [(1, ChangeOutcome.PENDING, None)], [A]),
    ((1, BOOTING), [(A, ACTIVE, EIGHT)], [FIRST], [A]),
    ((1, BOOTING), [(A, PENDING, TWO)], [FIRST, (2, ChangeOutcome.PENDING, None)], [A]),
    ((1, BOOTING), [(A, ACTIVE, EIGHT)], [FIRST, SECOND], [A]),
    ((1, BOOTING), [(A, ACTIVE, EIGHT)], [FIRST, SECOND], [A]),  # packed
    ((1, RUNNING), [(A, ACTIVE, EIGHT)], [FIRST, SECOND], [A]),
    ((1, STOPPING), [(A, ACTIVE, EIGHT)], [FIRST, SECOND], [A]),
    ((1, CLEAN), [(A, ACTIVE, EIGHT)], [FIRST, SECOND], []),
]
"""What the next boot sees after each of the scenario's transactions, the first before any of them."""


def test_whatever_the_moment_of_the_kill_the_acknowledged_is_there(sqlite_config: StoreConfig) -> None:
    kill_at_every_moment(sqlite_config)


@pytest.mark.slow
def test_whatever_the_moment_of_the_kill_it_is_there_on_postgres_too(postgres_url: str, tmp_path: Path) -> None:
    kill_at_every_moment(StoreConfig(url=postgres_url, server_id="one", data_dir=tmp_path))


def kill_at_every_moment(config: StoreConfig) -> None:
    """And nothing is half done: the store is as the last answer left it, or one transaction further."""
    patient = replace(config, store_lock_wait=5, journal_loose=0, journal_segment=2)
    moment, answers = 0, []
    killed = True
    while killed:
        moment += 1
        fresh = _fresh(patient, moment)
        killed, answered = killed_at(fresh, moment)
        seen = asyncio.run(view(fresh))
        assert seen in VIEWS[answered : answered + 2], f"moment {moment}, {answered} answers: {seen}"
        answers.append(answered)
    assert moment > 40
    assert set(answers) == set(range(11))


def _fresh(config: StoreConfig, moment: int) -> StoreConfig:
    """A store of its own: another file, or another server in the same database."""
    if config.url.startswith("sqlite"):
        folder = config.data_dir / str(moment)
        return replace(config, url=f"sqlite:///{folder}/store.db", data_dir=folder)
    return replace(config, server_id=f"server {moment}")


def test_successive_crashes_of_a_boot_give_what_one_gives(config: StoreConfig) -> None:
    """Row 9 of the crash points: the epoch grows, the replayed rows stay the same."""
    patient = replace(config, store_lock_wait=5)

    def first(_writing: int) -> None:
        async def run() -> None:
            store = await Store.open(patient)
            await store.claim(auto, WHO, ())
            await registered(store, "a", batch_size=8)
            os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(run())

    def again(_writing: int) -> None:
        async def run() -> None:
            store = await Store.open(patient)
            await store.claim(auto, WHO, ())
            os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(run())

    in_child(first)
    one = asyncio.run(view(patient))
    for epoch in (2, 3, 4):
        in_child(again)
        (last, *rest) = asyncio.run(view(patient))
        assert last == (epoch, BOOTING)
        assert rest == list(one[1:])


def killed_after_registering(config: StoreConfig, names: str) -> None:
    def job(_writing: int) -> None:
        async def run() -> None:
            store = await Store.open(config)
            await store.claim(auto, WHO, ())
            for name in names:
                await registered(store, name)
            os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(run())

    status, _ = in_child(job)
    assert os.WIFSIGNALED(status)


async def test_a_killed_server_leaves_a_log_that_is_replayed_and_its_loss_is_found(sqlite_config: StoreConfig) -> None:
    killed_after_registering(sqlite_config, "abc")
    log = _log_of(sqlite_config)
    whole = log.read_bytes()
    assert len(whole) > 4096
    for harmed in (b"", whole[: len(whole) // 2], whole[: len(whole) // 2] + b"\0" * (len(whole) // 2)):
        log.write_bytes(harmed)
        _remove_index(log)
        with pytest.raises(StoreDamaged, match="--accept-store-loss 3"):
            await Store.open(sqlite_config)


def _log_of(config: StoreConfig) -> Path:
    return Path(config.url.removeprefix("sqlite:///") + "-wal")


def _remove_index(log: Path) -> None:
    log.with_name(log.name.replace("-wal", "-shm")).unlink(missing_ok=True)


async def test_the_log_of_a_killed_server_is_replayed(sqlite_config: StoreConfig) -> None:
    killed_after_registering(sqlite_config, "abc")
    async with life(sqlite_config) as store:
        assert [row.key.name for row in await store.snapshot()] == ["a", "b", "c"]


def test_of_servers_that_start_at_once_exactly_one_wins(config: StoreConfig) -> None:
    for round_number in range(4):
        go_read, go_write = os.pipe()
        hold_read, hold_write = os.pipe()
        said_read, said_write = os.pipe()
        children = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                os.close(go_write)
                os.close(hold_write)
                os.read(go_read, 1)
                os._exit(_start_and_hold(config, said_write, hold_read))
            children.append(pid)
        os.close(said_write)
        os.close(go_write)  # everyone starts now
        outcomes = sorted(os.read(said_read, 1) for _ in children)
        os.close(hold_write)  # the winner may end
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        for fd in (go_read, hold_read, said_read):
            os.close(fd)
        assert outcomes == [b"l", b"l", b"w"], f"round {round_number}"
    assert asyncio.run(view(config))[0] == (4, BOOTING)


def _start_and_hold(config: StoreConfig, said: int, hold: int) -> int:
    async def run() -> None:
        try:
            store = await Store.open(config)
            await store.claim(auto, WHO, ())
        except StoreInUse:
            os.write(said, b"l")
            return
        os.write(said, b"w")
        os.read(hold, 1)
        await store.close()

    try:
        asyncio.run(run())
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return 0


def test_a_stopped_owner_still_owns(config: StoreConfig) -> None:
    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if pid == 0:

        async def run() -> None:
            store = await Store.open(config)
            await store.claim(auto, WHO, ())
            os.write(ready_write, b".")
            signal.pause()

        asyncio.run(run())
        os._exit(1)
    try:
        assert os.read(ready_read, 1) == b"."
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(StoreInUse):
            asyncio.run(Store.open(config))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready_read)
        os.close(ready_write)
    assert asyncio.run(view(replace(config, store_lock_wait=5)))[0] == (1, BOOTING)

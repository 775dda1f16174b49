import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from mms.errors import LoadFailed, MmsError
from mms.request import Batch, Result
from mms.workers.engine import Worker, WorkerState
from mms.workers.pool import WorkerPool
from tests.unit.inference.building import SETTINGS, Asked, Gate, echo, spec, until
from tests.unit.inference.memory_engine import MemoryEngine, MemoryWorker, load_at_once

pytestmark = pytest.mark.usefixtures("quick_back_off")


@pytest.fixture
def quick_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dead workers are replaced after 10 ms instead of a second."""
    monkeypatch.setattr("mms.workers.lifecycle.BACK_OFF_SECONDS", (0, 0.01))


@dataclass
class Client:
    """Notes what the pool says; workers are released at once unless `hold` is set."""

    wanted: list[int] = field(default_factory=list)
    ready: list[Worker] = field(default_factory=list)
    gone: list[Worker] = field(default_factory=list)
    unanswered: list[Batch] = field(default_factory=list)
    done: list[Sequence[Result] | MmsError] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.hold.set()

    def workers_wanted(self, count: int) -> None:
        self.wanted.append(count)

    def worker_ready(self, worker: Worker) -> None:
        self.ready.append(worker)

    async def release(self, worker: Worker) -> None:
        await self.hold.wait()

    def batch_done(self, worker: Worker, batch: Batch, results: Sequence[Result] | MmsError) -> None:
        self.done.append(results)

    def worker_gone(self, worker: Worker, error: MmsError, unanswered: Sequence[Batch]) -> None:
        self.gone.append(worker)
        self.unanswered += unanswered


class Loads:
    """A loader that the test steers: `failures` loads fail first, `open` lets loads end, `most` is the most at one time."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.open = asyncio.Event()
        self.open.set()
        self.now = self.most = 0

    async def __call__(self, worker: MemoryWorker) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.open.wait()
            await asyncio.sleep(0)
        finally:
            self.now -= 1
        if self.failures:
            self.failures -= 1
            raise LoadFailed("Failed to start workers", detail=f"ValueError: no weights ({self.failures} left)")


def build(handler=echo, loader=load_at_once, gpus=(), slots: int = 2) -> tuple[WorkerPool, MemoryEngine, Client]:
    engine, client, turn = MemoryEngine(handler, loader), Client(), iter(gpus)
    pool = WorkerPool(engine, spec(SETTINGS), next_gpu=lambda: next(turn, None), load_slots=asyncio.Semaphore(slots))
    pool.attach(client)
    return pool, engine, client


@pytest.fixture
async def clean() -> AsyncIterator[list[WorkerPool]]:
    """Pools named here are closed at the end, and nothing of them may be left."""
    pools: list[WorkerPool] = []
    yield pools
    for pool in pools:
        await pool.close()
        assert pool.workers == []
    left = [task for task in asyncio.all_tasks() if task.get_name().startswith("worker of")]
    assert left == []


# --- up and down ------------------------------------------------------------------------------------------------------


async def test_scaling_up_returns_when_every_worker_is_ready(clean):
    pool, engine, client = build()
    clean.append(pool)
    await pool.scale(3, 3)
    assert [worker.state for worker in pool.workers] == [WorkerState.READY] * 3
    assert client.ready == engine.workers
    assert client.wanted[-1] == 3


async def test_between_minimum_and_maximum_nothing_changes(clean):
    pool, engine, _ = build()
    clean.append(pool)
    await pool.scale(3, 3)
    await pool.scale(1, 5)
    assert len(pool.workers) == 3
    await pool.scale(4, 5)
    assert len(pool.workers) == 4
    await pool.scale(1, 2)
    assert len(pool.workers) == 2
    assert len(engine.workers) == 4


async def test_scaling_to_zero_and_back(clean):
    pool, engine, client = build()
    clean.append(pool)
    await pool.scale(2, 2)
    await pool.scale(0, 0)
    assert pool.workers == []
    assert [worker.state for worker in engine.workers] == [WorkerState.DEAD] * 2
    assert client.wanted[-1] == 0
    await pool.scale(1, 1)
    assert [worker.state for worker in pool.workers] == [WorkerState.READY]


async def test_a_worker_that_leaves_answers_what_it_holds(clean):
    gate = Gate()
    pool, _, client = build(gate)
    clean.append(pool)
    await pool.scale(1, 1)
    client.ready[0].send(Batch([Asked().request]))
    await gate.entered()
    down = asyncio.create_task(pool.scale(0, 0))
    await until(lambda: pool.workers[0].state is WorkerState.STOPPING)
    gate.let()
    await down
    assert len(client.done) == 1
    assert client.unanswered == []


async def test_workers_that_are_not_ready_leave_first(clean):
    loads = Loads()
    pool, engine, _ = build(loader=loads)
    clean.append(pool)
    await pool.scale(1, 1)
    loads.open.clear()
    pool.resize(2, 2)
    await until(lambda: len(engine.workers) == 2)
    await pool.scale(1, 1)
    assert pool.workers == [engine.workers[0]]
    assert engine.workers[1].state is WorkerState.DEAD


async def test_a_load_that_waits_for_its_turn_can_be_given_up(clean):
    loads = Loads()
    loads.open.clear()
    pool, engine, _ = build(loader=loads, slots=1)
    clean.append(pool)
    pool.resize(3, 3)
    await until(lambda: loads.now == 1)
    assert len(engine.workers) == 1
    await pool.scale(0, 0)
    assert [worker.state for worker in engine.workers] == [WorkerState.DEAD]


async def test_no_more_loads_run_at_once_than_there_are_slots(clean):
    loads = Loads()
    pool, _, _ = build(loader=loads, slots=2)
    clean.append(pool)
    await pool.scale(6, 6)
    assert loads.most == 2


async def test_a_new_target_ends_the_wait_for_the_old_one(clean):
    loads = Loads()
    loads.open.clear()
    pool, _, _ = build(loader=loads)
    clean.append(pool)
    first = asyncio.create_task(pool.scale(2, 2))
    await until(lambda: loads.now == 2)
    await pool.scale(0, 0)
    await first
    assert pool.target == 0


# --- loading ----------------------------------------------------------------------------------------------------------


async def test_scaling_raises_the_first_failure_and_the_pool_goes_on_trying(clean):
    pool, _, _ = build(loader=Loads(failures=2))
    clean.append(pool)
    with pytest.raises(LoadFailed) as failed:
        await pool.scale(1, 1)
    assert failed.value.detail == "ValueError: no weights (1 left)"
    assert pool.last_error == failed.value.detail
    await until(lambda: pool.settled)
    assert pool.ready_count == 1


async def test_a_model_that_never_loads_is_tried_with_growing_pauses(clean, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mms.workers.lifecycle.BACK_OFF_SECONDS", (0, 0.01, 0.02, 5))
    pool, engine, _ = build(loader=Loads(failures=100))
    clean.append(pool)
    pool.resize(1, 1)
    await until(lambda: len(engine.workers) == 3)
    await asyncio.sleep(0.05)
    assert len(engine.workers) == 3


async def test_a_pool_in_its_pause_can_be_given_up_at_once(clean, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mms.workers.lifecycle.BACK_OFF_SECONDS", (0, 3600))
    pool, _, _ = build(loader=Loads(failures=1))
    clean.append(pool)
    assert await pool_failure(pool) is not None
    async with asyncio.timeout(1):
        await pool.scale(0, 0)


async def pool_failure(pool: WorkerPool) -> LoadFailed | None:
    pool.resize(1, 1)
    return await pool.outcome()


async def test_an_engine_that_breaks_is_a_failed_load_of_the_environment(clean, caplog):
    async def breaks(_: MemoryWorker) -> None:
        raise OSError("too many open files")

    pool, _, _ = build(loader=breaks)
    clean.append(pool)
    error = await pool_failure(pool)
    assert error is not None
    assert error.environment
    assert "too many open files" in error.detail


# --- deaths -----------------------------------------------------------------------------------------------------------


async def test_a_dead_worker_is_replaced_by_the_same_worker_again(clean):
    pool, engine, client = build(gpus=[0, 1, 0])
    clean.append(pool)
    await pool.scale(3, 3)
    assert [worker.gpu_id for worker in pool.workers] == [0, 1, 0]
    engine.workers[1].kill()
    await until(lambda: pool.restarts == 1 and pool.settled)
    assert [worker.gpu_id for worker in pool.workers] == [0, 1, 0]
    assert client.gone == [engine.workers[1]]
    assert client.ready[-1] is engine.workers[3]
    assert pool.last_error == "Worker died."


async def test_a_worker_that_dies_the_moment_it_is_loaded_is_replaced(clean):
    """Its end is told before the pool has heard that it is ready."""

    pool, engine, client = build()
    make = engine.worker

    def first_dies(spec):
        worker = make(spec)
        start = worker.start

        async def start_and_die(listener):
            await start(listener)
            worker.kill()

        if worker.number == 1:
            worker.start = start_and_die
        return worker

    engine.worker = first_dies
    clean.append(pool)
    pool.resize(1, 1)
    await until(lambda: len(engine.workers) == 2 and pool.settled)
    assert [worker.state for worker in pool.workers] == [WorkerState.READY]
    assert client.ready == [engine.workers[1]]
    assert pool.restarts == 1


async def test_a_worker_that_is_gone_shows_its_true_state_until_it_is_replaced(clean, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mms.workers.lifecycle.BACK_OFF_SECONDS", (0, 3600))
    pool, engine, client = build()
    clean.append(pool)
    await pool.scale(1, 1)
    engine.workers[0].kill()
    await until(lambda: bool(client.gone))
    assert [worker.state for worker in pool.workers] == [WorkerState.DEAD]
    assert pool.ready_count == 0
    assert not pool.settled


async def test_many_deaths_in_a_row_never_end_the_replacing(clean):
    pool, engine, _ = build()
    clean.append(pool)
    await pool.scale(1, 1)
    for round_number in range(1, 6):
        pool.workers[0].kill()
        await until(lambda number=round_number: pool.restarts == number and pool.settled)
    assert len(engine.workers) == 6


async def test_a_worker_that_dies_while_it_leaves_is_gone_all_the_same(clean):
    gate = Gate()
    pool, engine, client = build(gate)
    clean.append(pool)
    await pool.scale(1, 1)
    batch = Batch([Asked().request])
    engine.workers[0].send(batch)
    await gate.entered()
    down = asyncio.create_task(pool.scale(0, 0))
    await until(lambda: engine.workers[0].state is WorkerState.STOPPING)
    engine.workers[0].kill()
    await down
    assert client.unanswered == [batch]
    assert pool.restarts == 0


# --- settings ---------------------------------------------------------------------------------------------------------


async def test_live_settings_reach_ready_workers_and_later_ones(clean):
    pool, engine, _ = build()
    clean.append(pool)
    await pool.scale(1, 1)
    pool.configure(batch_size=8, response_timeout=3.0, startup_timeout=4.0, max_response_size=5)
    await pool.scale(2, 2)
    assert [(worker.batch_size, worker.response_timeout) for worker in engine.workers] == [(8, 3.0)] * 2
    assert engine.workers[1].spec.startup_timeout == 4.0


async def test_live_settings_reach_workers_that_leave_while_the_queue_is_not_empty(clean):
    pool, engine, client = build()
    clean.append(pool)
    await pool.scale(1, 1)
    client.hold.clear()
    pool.resize(0, 0)
    pool.configure(batch_size=8, response_timeout=3.0, startup_timeout=4.0, max_response_size=5)
    assert engine.workers[0].batch_size == 8
    client.hold.set()


async def test_settings_changed_while_a_worker_loads_reach_it_when_it_is_ready(clean):
    loads = Loads()
    loads.open.clear()
    pool, engine, _ = build(loader=loads)
    clean.append(pool)
    pool.resize(1, 1)
    await until(lambda: loads.now == 1)
    pool.configure(batch_size=8, response_timeout=3.0, startup_timeout=4.0, max_response_size=5)
    loads.open.set()
    assert await pool.outcome() is None
    assert engine.workers[0].batch_size == 8


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_draining_in_time_says_so(clean):
    pool, _, _ = build()
    clean.append(pool)
    await pool.scale(2, 2)
    assert await pool.drain(5)
    assert pool.workers == []


async def test_draining_that_takes_too_long_kills_and_says_so(clean):
    gate = Gate()
    pool, engine, client = build(gate)
    clean.append(pool)
    await pool.scale(1, 1)
    batch = Batch([Asked().request])
    engine.workers[0].send(batch)
    await gate.entered()
    assert not await pool.drain(0.05)
    assert client.unanswered == [batch]
    assert engine.workers[0].state is WorkerState.DEAD


async def test_a_client_that_does_not_let_go_is_not_waited_for_longer_than_the_drain(clean):
    pool, engine, client = build()
    clean.append(pool)
    client.hold.clear()
    await pool.scale(1, 1)
    async with asyncio.timeout(3):
        assert not await pool.drain(0.05)
    assert engine.workers[0].state is WorkerState.DEAD


async def test_closing_ends_loads_pauses_and_workers(clean):
    loads = Loads()
    pool, engine, _ = build(loader=loads)
    await pool.scale(1, 1)
    loads.open.clear()
    pool.resize(3, 3)
    await until(lambda: loads.now == 2)
    clean.append(pool)
    async with asyncio.timeout(3):
        await pool.close()
    assert [worker.state for worker in engine.workers] == [WorkerState.DEAD] * 3


async def test_closing_twice_does_nothing_more(clean):
    pool, _, _ = build()
    clean.append(pool)
    await pool.scale(1, 1)
    await pool.close()
    await pool.close()


async def test_a_defect_in_a_seats_own_task_does_not_stay_silent(clean, caplog):
    pool, _, client = build()
    clean.append(pool)

    def fails(_: Worker) -> None:
        raise KeyError("a defect")

    client.worker_ready = fails
    pool.resize(1, 1)
    await until(lambda: "is no longer looked after" in caplog.text)
    assert "a defect" in caplog.text

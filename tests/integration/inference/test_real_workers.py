"""The inference room on real worker processes."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mms.archive.manifest import Manifest
from mms.archive.model_archive import ModelArchive
from mms.errors import LoadFailed, WorkerDied
from mms.inference.registry import Registry, ServedModel
from mms.inference.service import InferenceService
from mms.records import ModelKey
from mms.workers.engine import WorkerSpec, WorkerState
from mms.workers.local import LocalEngine
from mms.workers.pool import WorkerPool
from tests.unit.inference.building import SETTINGS, Asked, ask, bodies, until

HANDLERS = """
import os, time

def echo(data, context):
    if data is None:
        return None
    return [row["body"] for row in data]

def pid(data, context):
    if data is None:
        return None
    return [str(os.getpid()) for _ in data]

def size(data, context):
    if data is None:
        return None
    time.sleep(0.005)
    return [str(len(data)) for _ in data]

def sleep(data, context):
    if data is None:
        return None
    time.sleep(max(float(bytes(row["body"])) for row in data))
    return [row["body"] for row in data]

def picky(data, context):
    if data is None:
        return None
    for row in data:
        if bytes(row["body"]) == b"bad":
            raise ValueError("bad input")
    return [row["body"] for row in data]

def broken(data, context):
    raise RuntimeError("the weights are missing")
"""


@pytest.fixture
async def engine() -> AsyncIterator[LocalEngine]:
    engine = LocalEngine()
    await engine.open()
    yield engine
    await engine.close()


class Serve:
    """Serves a handler of the file above; whatever it served is closed at the end."""

    def __init__(self, engine: LocalEngine, folder: Path) -> None:
        (folder / "service.py").write_text(HANDLERS)
        self.engine = engine
        self.folder = folder
        self.models: list[ServedModel] = []

    async def __call__(
        self, handler: str, workers: int = 1, batching: str = "strict", **options: object
    ) -> ServedModel:
        settings = replace(SETTINGS, **options)
        spec = WorkerSpec(
            model=ModelKey("m"),
            model_dir=self.folder,
            handler=f"service:{handler}",
            batch_size=settings.batch_size,
            response_timeout=settings.response_timeout,
        )
        pool = WorkerPool(self.engine, spec, next_gpu=lambda: None, load_slots=asyncio.Semaphore(2))
        manifest = Manifest("m", None, spec.handler, "python")
        model = ServedModel(
            key=spec.model,
            archive=ModelArchive("m.mar", "0" * 64, self.folder, manifest, "m", kept=False),
            runtime="python",
            settings=settings,
            pool=pool,
            batching=batching,
        )
        self.models.append(model)
        await model.scale(workers, workers)
        return model


@pytest.fixture
async def serve(engine: LocalEngine, tmp_path: Path) -> AsyncIterator[Serve]:
    serve = Serve(engine, tmp_path)
    yield serve
    for model in serve.models:
        await model.close()


async def test_thousands_of_small_requests_each_get_their_own_answer(serve: Serve):
    model = await serve("echo", workers=2, job_queue_size=10_000)
    asked = []
    for start in range(0, 4000, 100):
        asked += ask(model, *[b"%d" % number for number in range(start, start + 100)])
        await asyncio.sleep(0)
    assert await bodies(asked) == [b"%d" % number for number in range(4000)]
    assert model.stats.batches == 4000


async def test_requests_are_batched_for_the_handler(serve: Serve):
    model = await serve("size", batch_size=8, max_batch_delay=20)
    assert set(await bodies(ask(model, *[b"x"] * 24))) == {b"8"}
    assert await bodies(ask(model, *[b"x"] * 3)) == [b"3"] * 3


async def test_one_bad_request_does_not_fail_its_neighbours(serve: Serve):
    model = await serve("picky", batch_size=4, max_batch_delay=1000)
    good, bad, *others = ask(model, b"1", b"bad", b"3", b"4")
    assert await bodies([good, *others]) == [b"1", b"3", b"4"]
    result = await bad.answer()
    assert not isinstance(result, bytes)
    assert result.message == "Prediction failed"


async def test_a_worker_killed_under_load_costs_only_its_own_batch(serve: Serve):
    model = await serve("sleep", workers=2, batch_size=4, max_batch_delay=1, job_queue_size=1000)
    asked = ask(model, *[b"0.02"] * 200)
    await asyncio.sleep(0.1)
    victim = model.workers[0].pid
    assert victim is not None
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    results = [await one.answer() for one in asked]
    died = [result for result in results if isinstance(result, WorkerDied)]
    assert 1 <= len(died) <= 4
    assert all(isinstance(result, (bytes, WorkerDied)) for result in results)
    await until(lambda: all(worker.state is WorkerState.READY for worker in model.workers))
    assert time.monotonic() - killed < 3
    assert victim not in [worker.pid for worker in model.workers]
    assert "SIGKILL" in model.last_error or "signal 9" in model.last_error
    assert all([await one.answer() for one in ask(model, b"0", b"0")])


async def test_a_handler_that_does_not_answer_is_killed_and_replaced(serve: Serve):
    model = await serve("sleep", response_timeout=0.3)
    stuck, waiting = ask(model, b"30", b"0")
    assert isinstance(await stuck.answer(), WorkerDied)
    assert await bodies([waiting]) == [b"0"]


async def test_scaling_under_load_loses_nothing(serve: Serve):
    model = await serve("sleep", workers=3, batch_size=2, max_batch_delay=1, job_queue_size=10_000)
    asked: list[Asked] = []

    async def load() -> None:
        for _ in range(60):
            asked.extend(ask(model, *[b"0.002"] * 6))
            await asyncio.sleep(0.005)

    loading = asyncio.create_task(load())
    for count in (1, 3, 2, 4, 1):
        await model.scale(count, count)
        assert len(model.workers) == count
    await loading
    assert len(await bodies(asked)) == 360


async def test_scaling_to_zero_answers_what_was_accepted_and_comes_back(serve: Serve):
    model = await serve("pid", job_queue_size=1000)
    asked = ask(model, *[b"x"] * 200)
    first = model.workers[0].pid
    await model.scale(0, 0)
    assert set(await bodies(asked)) == {b"%d" % first}
    assert model.workers == []
    await model.scale(1, 1)
    assert await bodies(ask(model, b"x")) != [b"%d" % first]


async def test_changes_of_the_settings_under_load_lose_nothing_and_show_at_once(serve: Serve):
    model = await serve("size", batch_size=1, max_batch_delay=1, job_queue_size=10_000)
    worker = model.workers[0].pid
    asked = ask(model, *[b"x"] * 20)
    for size in (4, 2, 8):
        model.configure(replace(model.settings, batch_size=size))
        asked += ask(model, *[b"x"] * 40)
        await asyncio.sleep(0.02)
    sizes = await bodies(asked)
    assert len(sizes) == 140
    assert b"8" in sizes
    assert await bodies(ask(model, *[b"x"] * 8)) == [b"8"] * 8
    assert model.workers[0].pid == worker


async def test_a_model_that_cannot_load_says_why(serve: Serve):
    with pytest.raises(LoadFailed) as failed:
        await serve("broken")
    assert "the weights are missing" in failed.value.message + failed.value.detail
    assert "the weights are missing" in serve.models[0].last_error


async def test_a_lone_client_does_not_pay_the_delay_for_long(serve: Serve):
    """After a start in which it waits as MMS does, a model with one client at a time answers at once."""
    model = await serve("echo", batching="adaptive", batch_size=8, max_batch_delay=20)
    for _ in range(40):
        await bodies(ask(model, b"warm"))
    began = time.monotonic()
    for number in range(100):
        assert await bodies(ask(model, b"%d" % number)) == [b"%d" % number]
    assert time.monotonic() - began < 1.0, "a hundred full delays would be two seconds"


async def test_a_stop_of_the_server_answers_what_was_accepted(serve: Serve):
    registry = Registry()
    model = await serve("sleep", workers=2)
    registry.publish(model)
    service = InferenceService(registry)
    asked = [Asked("m", b"0.05") for _ in range(6)]
    for one in asked:
        service.predict(one.request)
    assert await service.drain(5)
    assert await bodies(asked) == [b"0.05"] * 6
    await registry.close()
    assert model.workers == []

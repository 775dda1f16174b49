"""Builds what the tests of this room serve: settings, requests that remember their result, models on the in-memory engine."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mms.archive.manifest import Manifest
from mms.archive.model_archive import ModelArchive
from mms.config.resolve import ModelSettings
from mms.errors import MmsError
from mms.inference.registry import ServedModel
from mms.records import ModelKey
from mms.request import InferenceRequest, Result
from mms.workers.engine import WorkerSpec
from mms.workers.pool import WorkerPool
from tests.unit.inference.memory_engine import MemoryEngine, MemoryWorker

SETTINGS = ModelSettings(
    batch_size=1,
    max_batch_delay=100,
    response_timeout=120.0,
    startup_timeout=120.0,
    min_workers=1,
    max_workers=1,
    job_queue_size=100,
    max_request_size=6_553_500,
    max_response_size=6_553_500,
    preload_model=False,
    explained={},
)


class _Request(InferenceRequest):
    """Hands its result on."""

    def __init__(self, model: str, body: bytes, arrived: float, take: Callable[[Result], None]) -> None:
        super().__init__("id", model, (), (("body", "", body),), arrived)
        self._take = take

    def done(self, result: Result) -> None:
        self._take(result)


class Asked:
    """One request and what came of it; a second result fails the test at once."""

    def __init__(self, model: str = "m", body: bytes = b"", arrived: float | None = None) -> None:
        self.result: Result | None = None
        self.calls = 0
        self._done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        at = time.monotonic() if arrived is None else arrived
        self.request = _Request(model, body, at, self._take)

    def _take(self, result: Result) -> None:
        self.calls += 1
        assert self.calls == 1, "a request got two results"
        self.result = result
        if not self._done.done():
            self._done.set_result(result)

    async def answer(self) -> Result:
        async with asyncio.timeout(5):
            return await self._done


async def echo(_: MemoryWorker, requests: Sequence[InferenceRequest]) -> list[Result]:
    """The handler that answers each body with itself."""
    return [bytes(request.parts[0][2]) for request in requests]


class Gate:
    """A handler that stops before each batch until the test lets it go on."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self._entered = asyncio.Semaphore(0)
        self._let = asyncio.Semaphore(0)

    async def __call__(self, worker: MemoryWorker, requests: Sequence[InferenceRequest]) -> list[Result]:
        self.batches.append([request.parts[0][2] for request in requests])
        self._entered.release()
        await self._let.acquire()
        return await echo(worker, requests)

    async def entered(self) -> None:
        """Return when one more batch is before the gate."""
        async with asyncio.timeout(5):
            await self._entered.acquire()

    def let(self, count: int = 1) -> None:
        """Let this many batches through."""
        for _ in range(count):
            self._let.release()


def spec(settings: ModelSettings, name: str = "m") -> WorkerSpec:
    return WorkerSpec(
        model=ModelKey(name),
        model_dir=Path("/nowhere"),
        handler="service:handle",
        batch_size=settings.batch_size,
        response_timeout=settings.response_timeout,
        startup_timeout=settings.startup_timeout,
    )


def served(
    engine: MemoryEngine, name: str = "m", batching: str = "strict", startup: bool = False, **options: object
) -> ServedModel:
    """A model on `engine`, without workers."""
    settings = replace(SETTINGS, **options)
    pool = WorkerPool(engine, spec(settings, name), next_gpu=lambda: None, load_slots=asyncio.Semaphore(2))
    archive = ModelArchive(
        f"{name}.mar", "0" * 64, Path("/nowhere"), Manifest(name, None, "service:handle", "python"), name, kept=False
    )
    return ServedModel(
        key=ModelKey(name),
        archive=archive,
        runtime="python",
        settings=settings,
        pool=pool,
        startup=startup,
        batching=batching,
    )


def ask(model: ServedModel, *bodies: bytes) -> list[Asked]:
    """Submit one request for each body, in this turn of the loop."""
    asked = [Asked(model.key.name, body) for body in bodies]
    for one in asked:
        model.submit(one.request)
    return asked


async def bodies(asked: Sequence[Asked]) -> list[bytes]:
    """The bodies of all answers, in order; every one must be a good answer."""
    results = [await one.answer() for one in asked]
    answered = [result for result in results if isinstance(result, bytes)]
    assert answered == results
    return answered


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until `condition` holds, five seconds at most."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.001)


def raises(error: MmsError) -> Callable[[MemoryWorker, Sequence[InferenceRequest]], Awaitable[MmsError]]:
    """A handler whose every batch ends in `error`."""

    async def handler(_: MemoryWorker, __: Sequence[InferenceRequest]) -> MmsError:
        return error

    return handler

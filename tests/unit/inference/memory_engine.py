"""A complete engine without processes: its workers are tasks of the event loop, its handlers coroutines of the test."""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from mms.errors import LoadFailed, MmsError, WorkerDied
from mms.request import Batch, InferenceRequest, Result
from mms.workers.engine import Worker, WorkerListener, WorkerSpec, WorkerState
from mms.workers.lifecycle import advance

Handler = Callable[["MemoryWorker", Sequence[InferenceRequest]], Awaitable[Sequence[Result] | MmsError]]
Loader = Callable[["MemoryWorker"], Awaitable[None]]


async def load_at_once(worker: "MemoryWorker") -> None:
    """The loader of a model that always loads."""


class MemoryWorker(Worker):
    """Answers its batches in order; dies as a process would, at any moment, with what it holds unanswered."""

    def __init__(self, spec: WorkerSpec, number: int, handler: Handler, loader: Loader) -> None:
        self.spec = spec
        self.number = number
        self.batch_size = spec.batch_size
        self.response_timeout = spec.response_timeout
        self.sizes: list[int] = []
        self._handler = handler
        self._loader = loader
        self._state = WorkerState.STARTING
        self._listener: WorkerListener | None = None
        self._held: deque[Batch] = deque()
        self._begun = 0
        self._work = asyncio.Event()
        self._ended = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._loading: asyncio.Task[None] | None = None

    worker_id = property(lambda self: f"memory-{self.number}")
    pid = property(lambda self: self.number if self._state in (WorkerState.READY, WorkerState.BUSY) else None)
    started_at = property(lambda self: time.time())
    state = property(lambda self: self._state)
    gpu_id = property(lambda self: self.spec.gpu_id)
    memory_usage = property(lambda self: 0)
    begun = property(lambda self: self._begun)

    async def start(self, listener: WorkerListener) -> None:
        self._listener = listener
        self._state = advance(self._state, WorkerState.LOADING)
        self._loading = asyncio.ensure_future(self._loader(self))
        try:
            async with asyncio.timeout(self.spec.startup_timeout):
                await self._loading
        except asyncio.CancelledError:
            self._state = WorkerState.DEAD
            if asyncio.current_task().cancelling():
                raise
            raise LoadFailed("Failed to start workers", detail="it was stopped") from None
        except Exception:
            self._state = WorkerState.DEAD
            raise
        self._state = advance(self._state, WorkerState.READY)
        self._main = asyncio.create_task(self._serve())

    def send(self, batch: Batch) -> None:
        if self._state not in (WorkerState.READY, WorkerState.BUSY):
            raise RuntimeError(f"A worker that is {self._state} takes no batch.")
        assert batch.apart or 1 <= len(batch.requests) <= self.batch_size, (len(batch.requests), self.batch_size)
        assert batch.requests
        self._state = WorkerState.BUSY
        self._held.append(batch)
        self._work.set()

    def configure(self, *, batch_size: int, response_timeout: float, max_response_size: int) -> None:
        self.batch_size = batch_size
        self.response_timeout = response_timeout

    async def _serve(self) -> None:
        while True:
            while self._held:
                batch = self._held[0]
                if batch.apart and len(batch.requests) > 1:
                    batch = Batch(batch.requests[:1], apart=True)
                self.sizes.append(len(batch.requests))
                self._begun = len(batch.requests)
                results = await self._handler(self, batch.requests)
                self._begun = 0
                if batch is self._held[0]:
                    self._held.popleft()
                else:
                    del self._held[0].requests[:1]
                if not self._held and self._state is WorkerState.BUSY:
                    self._state = WorkerState.READY
                self._listener.batch_done(self, batch, results)
            if self._state is WorkerState.STOPPING:
                self._end(WorkerDied("Worker stopped."))
                return
            self._work.clear()
            await self._work.wait()

    async def stop(self, grace: float) -> None:
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
            return
        if self._state is WorkerState.DEAD:
            return
        if self._state is not WorkerState.STOPPING:
            self._state = advance(self._state, WorkerState.STOPPING)
        self._work.set()
        try:
            async with asyncio.timeout(grace):
                await self._ended.wait()
        except TimeoutError:
            self.kill()
            await self._ended.wait()

    def kill(self) -> None:
        if self._state is WorkerState.DEAD:
            return
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
            return
        if self._main is not None:
            self._main.cancel()
        asyncio.get_running_loop().call_soon(self._end, WorkerDied("Worker died."))

    def _end(self, error: MmsError) -> None:
        if self._state is WorkerState.DEAD:
            return
        self._state = WorkerState.DEAD
        unanswered = list(self._held)
        self._held.clear()
        self._ended.set()
        self._listener.worker_gone(self, error, unanswered)


class MemoryEngine:
    """Makes memory workers; `workers` keeps every one that was ever made."""

    def __init__(self, handler: Handler, loader: Loader = load_at_once) -> None:
        self.workers: list[MemoryWorker] = []
        self._numbers = itertools.count(1)
        self._handler = handler
        self._loader = loader

    async def open(self) -> None:
        pass

    def worker(self, spec: WorkerSpec) -> MemoryWorker:
        worker = MemoryWorker(spec, next(self._numbers), self._handler, self._loader)
        self.workers.append(worker)
        return worker

    async def close(self) -> None:
        for worker in self.workers:
            await worker.stop(0)

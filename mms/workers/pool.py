"""The workers of one model: as many as wanted, dead ones replaced for ever, none stopped with an unanswered batch in its hands."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from mms.errors import LoadFailed, MmsError, WorkerDied
from mms.request import Batch, Result
from mms.workers.engine import Engine, Worker, WorkerSpec
from mms.workers.lifecycle import BackOff

logger = logging.getLogger(__name__)

STOP_GRACE = 2.0  # seconds beyond the answer that a worker may take to end by itself
CLOSE_GRACE = 0.5  # seconds, where nobody waits for answers any more

LoadListener = Callable[[str, str, float], None]
"""Is told of a worker that has loaded: its id, its model's name, the seconds from its start."""


class PoolClient(Protocol):
    """Who gives the pool's workers their batches; every call is made on the event loop."""

    def workers_wanted(self, count: int) -> None:
        """The target has changed; with 0, no worker will come after those that are there."""

    def worker_ready(self, worker: Worker) -> None:
        """A worker has loaded its model and takes batches."""

    async def release(self, worker: Worker) -> None:
        """Return when the worker gets no further batch; what it holds it answers itself while it stops."""

    def batch_done(self, worker: Worker, batch: Batch, results: Sequence[Result] | MmsError) -> None:
        """See `WorkerListener`."""

    def worker_gone(self, worker: Worker, error: MmsError, unanswered: Sequence[Batch]) -> None:
        """A ready worker has ended; may be told twice."""


class _Seat:
    """One place in the pool and the worker that has it now.

    `ended` is how that worker ended after its load, `ready` says that the client has it; `news` is set when the worker ended
    or the seat is to be given up.
    """

    __slots__ = ("ended", "gpu_id", "grace", "leaving", "news", "ready", "task", "worker")

    def __init__(self, gpu_id: int | None) -> None:
        self.gpu_id = gpu_id
        self.worker: Worker | None = None
        self.ended: MmsError | None = None
        self.ready = False
        self.leaving = False
        self.grace = CLOSE_GRACE
        self.news = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class _Listener:
    """What a seat's worker talks to: answers go straight to the client, without a step through the pool."""

    __slots__ = ("batch_done", "worker_gone")

    def __init__(
        self,
        batch_done: Callable[[Worker, Batch, Sequence[Result] | MmsError], None],
        worker_gone: Callable[[Worker, MmsError, Sequence[Batch]], None],
    ) -> None:
        self.batch_done = batch_done
        self.worker_gone = worker_gone


class WorkerPool:
    """Keeps between `min_workers` and `max_workers` seats taken; each seat loads, serves and is filled again by its own task.

    `next_gpu` gives each new seat its GPU; a replacement keeps its seat's. `load_slots` bounds the loads at one time, over
    all models. `on_load` is told of each worker that has loaded, and of the seconds it took.
    """

    def __init__(
        self,
        engine: Engine,
        spec: WorkerSpec,
        *,
        next_gpu: Callable[[], int | None],
        load_slots: asyncio.Semaphore,
        on_load: LoadListener | None = None,
    ) -> None:
        self.spec = spec
        self.last_error = ""
        self.restarts = 0
        self.loads = 0
        self.load_failures = 0
        self.load_seconds = 0.0  # of the loads that succeeded
        self.target = 0
        self._engine = engine
        self._next_gpu = next_gpu
        self._load_slots = load_slots
        self._on_load = on_load
        self._seats: list[_Seat] = []
        self._leaving: list[_Seat] = []
        self._outcomes: list[asyncio.Future[LoadFailed | None]] = []
        self._client: PoolClient | None = None
        self._listener: _Listener | None = None

    def attach(self, client: PoolClient) -> None:
        """Name the client; once, before the first `resize`."""
        self._client = client
        self._listener = _Listener(client.batch_done, self._worker_gone)

    # --- what it has -------------------------------------------------------------------------------------------------

    @property
    def workers(self) -> list[Worker]:
        """The worker of every seat, in their true states, those on their way out included."""
        return [seat.worker for seat in (*self._seats, *self._leaving) if seat.worker is not None]

    @property
    def ready_count(self) -> int:
        """How many workers take batches."""
        return sum(seat.ready for seat in self._seats)

    @property
    def settled(self) -> bool:
        """True where the target is reached: every seat has a ready worker and nobody is on the way out."""
        return not self._leaving and all(seat.ready for seat in self._seats)

    # --- what it shall have ------------------------------------------------------------------------------------------

    def configure(
        self, *, batch_size: int, response_timeout: float, startup_timeout: float, max_response_size: int
    ) -> None:
        """Take live settings: ready workers are told, later ones load with them."""
        self.spec = replace(
            self.spec,
            batch_size=batch_size,
            response_timeout=response_timeout,
            startup_timeout=startup_timeout,
            max_response_size=max_response_size,
        )
        for seat in (*self._seats, *self._leaving):  # one that leaves may still have a queue to empty
            if seat.ready and seat.worker is not None:
                self._tell_settings(seat.worker)

    def _tell_settings(self, worker: Worker) -> None:
        worker.configure(
            batch_size=self.spec.batch_size,
            response_timeout=self.spec.response_timeout,
            max_response_size=self.spec.max_response_size,
        )

    def resize(self, min_workers: int, max_workers: int) -> None:
        """Set the target and begin to reach it: start what is missing up to the minimum, stop what is beyond the maximum."""
        self._retarget(min_workers, max_workers, self.spec.response_timeout + STOP_GRACE)

    def _retarget(self, min_workers: int, max_workers: int, grace: float) -> None:
        assert self._client is not None, "attach() comes first"
        self.target = max(min_workers, min(len(self._seats), max_workers))
        self._tell_outcome(None)
        self._client.workers_wanted(self.target)
        while len(self._seats) > self.target:
            self._retire(self._least_useful(), grace)
        while len(self._seats) < self.target:
            seat = _Seat(self._next_gpu())
            self._seats.append(seat)
            seat.task = asyncio.create_task(self._keep(seat), name=f"worker of {self.spec.model.name}")
            seat.task.add_done_callback(_tell_defect)

    async def outcome(self) -> LoadFailed | None:
        """Wait until the target is reached (None) or a worker could not load (its error; the pool goes on trying).

        A new target ends the wait for the old one with None.
        """
        if self.settled:
            return None
        waiter: asyncio.Future[LoadFailed | None] = asyncio.get_running_loop().create_future()
        self._outcomes.append(waiter)
        return await waiter

    async def scale(self, min_workers: int, max_workers: int) -> None:
        """`resize` and wait. Raises LoadFailed with the first failure; the pool then goes on trying with back-off."""
        self.resize(min_workers, max_workers)
        error = await self.outcome()
        if error is not None:
            raise error

    async def drain(self, seconds: float) -> bool:
        """Answer what was accepted and stop every worker; False where `seconds` were not enough and some were killed."""
        self._retarget(0, 0, seconds)
        tasks = [seat.task for seat in self._leaving if seat.task is not None]
        if not tasks:
            return True
        _, late = await asyncio.wait(tasks, timeout=seconds)
        if late:
            await self.close()
        return not late

    async def close(self) -> None:
        """Stop every worker now; returns when none is left."""
        self._retarget(0, 0, CLOSE_GRACE)
        leaving = list(self._leaving)
        for seat in leaving:
            if seat.task is not None:
                seat.task.cancel()
        await asyncio.gather(*(seat.task for seat in leaving if seat.task is not None), return_exceptions=True)
        for seat in leaving:
            if seat.worker is not None:
                await seat.worker.stop(CLOSE_GRACE)
                self._worker_gone(seat.worker, WorkerDied("Worker scaled down."), ())
        self._leaving.clear()
        self._tell_outcome(None)

    # --- a seat's life -----------------------------------------------------------------------------------------------

    async def _keep(self, seat: _Seat) -> None:
        """Fill the seat, again and again, until it is given up."""
        back_off = BackOff()
        while not seat.leaving:
            try:
                worker = await self._load(seat)
            except LoadFailed as error:
                self._load_failed(error)
                await self._pause(seat, back_off.failed())
                continue
            if worker is None:
                break
            back_off.succeeded()
            await self._serve(seat, worker)
            if not seat.leaving:
                self.restarts += 1
                await self._pause(seat, back_off.failed())
        self._leaving.remove(seat)
        self._tell_if_settled()

    async def _load(self, seat: _Seat) -> Worker | None:
        """A worker that has loaded; None where the seat was given up meanwhile. Raises LoadFailed."""
        seat.news.clear()
        seat.ended = None
        async with self._load_slots:
            if seat.leaving:
                return None
            worker = seat.worker = self._engine.worker(replace(self.spec, gpu_id=seat.gpu_id))
            began = time.monotonic()
            start = asyncio.create_task(self._start(worker))
            news = asyncio.create_task(seat.news.wait())
            try:
                await asyncio.wait((start, news), return_when=asyncio.FIRST_COMPLETED)
                if seat.leaving:
                    await worker.stop(CLOSE_GRACE)
                    with contextlib.suppress(LoadFailed):
                        await start
                    return None
                await start
                seconds = time.monotonic() - began
                self.loads += 1
                self.load_seconds += seconds
                if self._on_load is not None:
                    self._on_load(worker.worker_id, self.spec.model.name, seconds)
                return worker
            finally:
                news.cancel()
                start.cancel()
                await asyncio.gather(start, return_exceptions=True)

    async def _start(self, worker: Worker) -> None:
        assert self._listener is not None, "attach() comes first"
        try:
            await worker.start(self._listener)
        except LoadFailed:
            raise
        except Exception as error:
            logger.exception("A worker of model %s could not be started.", self.spec.model.name)
            raise LoadFailed("Failed to start workers", detail=repr(error), environment=True) from error

    async def _serve(self, seat: _Seat, worker: Worker) -> None:
        """From ready to gone: the worker died, or was let go because the seat is given up."""
        assert self._client is not None, "attach() comes first"
        if seat.ended is not None:
            return  # in the moment between its load and this one
        self._tell_settings(worker)  # they may have changed since it was made
        seat.ready = True
        self._client.worker_ready(worker)
        self._tell_if_settled()
        await seat.news.wait()
        if seat.leaving and seat.ended is None:
            try:
                async with asyncio.timeout(seat.grace):
                    await self._client.release(worker)
            except TimeoutError:
                logger.warning("A worker of model %s is stopped with requests waiting.", self.spec.model.name)
            await worker.stop(seat.grace)
            self._worker_gone(worker, WorkerDied("Worker scaled down."), ())

    async def _pause(self, seat: _Seat, seconds: float) -> None:
        """Wait before the next try; ends early where the seat is given up."""
        seat.news.clear()
        if not seat.leaving:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(seat.news.wait(), seconds)

    def _worker_gone(self, worker: Worker, error: MmsError, unanswered: Sequence[Batch]) -> None:
        seat = next((seat for seat in (*self._seats, *self._leaving) if seat.worker is worker), None)
        if seat is None or seat.ended is not None:
            return
        seat.ended = error
        if not seat.leaving:
            self.last_error = getattr(error, "detail", "") or error.message
        seat.news.set()
        if seat.ready:
            seat.ready = False
            assert self._client is not None, "attach() comes first"
            self._client.worker_gone(worker, error, unanswered)

    def _load_failed(self, error: LoadFailed) -> None:
        self.load_failures += 1
        self.last_error = error.detail or error.message
        logger.warning("A worker of model %s could not load: %s", self.spec.model.name, error.message)
        self._tell_outcome(error)

    # --- giving seats up ---------------------------------------------------------------------------------------------

    def _least_useful(self) -> _Seat:
        """The newest seat without a ready worker, else the newest."""
        idle = [seat for seat in self._seats if not seat.ready]
        return (idle or self._seats)[-1]

    def _retire(self, seat: _Seat, grace: float) -> None:
        self._seats.remove(seat)
        self._leaving.append(seat)
        seat.leaving = True
        seat.grace = grace
        seat.news.set()

    def _tell_if_settled(self) -> None:
        if self.settled:
            self._tell_outcome(None)

    def _tell_outcome(self, error: LoadFailed | None) -> None:
        waiters, self._outcomes = self._outcomes, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(error)


def _tell_defect(task: asyncio.Task[None]) -> None:
    """A seat's task never fails; where it does, that is a defect of this code that must not stay silent."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("The %s is no longer looked after.", task.get_name(), exc_info=error)

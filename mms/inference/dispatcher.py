"""Matches one model's waiting requests with its ready workers: decides when a batch leaves and to whom; all on the event loop.

Nothing here awaits, locks or logs while a request passes: a request enters through `submit`, leaves in a `Batch` to a
worker, and its `done` is called when the worker's answer comes. Each accepted request ends exactly once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from mms.config.resolve import ModelSettings
from mms.errors import MmsError, NoWorkerAvailable, PredictionFailed
from mms.inference.ahead import SendingAhead
from mms.inference.batching import BatchingMode, batching
from mms.inference.desks import Desk, Desks
from mms.inference.ending import Ending
from mms.inference.queue import RequestQueue
from mms.inference.stats import ModelStats
from mms.request import Batch, InferenceRequest, Result
from mms.workers.engine import Worker

NEVER = 1 << 62

TOGETHER = 16
"""Most requests of batch size 1 that travel in one frame: enough to make the way cheap, and the next frame is there in time."""


class Dispatcher:
    """The queue of one model and the desks of its ready workers; what a `WorkerPool` reports to.

    A request may wait in the queue for as long as a worker may take to answer plus the time that a replacement may take to
    load (`response_timeout` + `startup_timeout`): MMS lets it wait for ever, but nobody listens any more by then. Once a
    worker has it, the worker's own `response_timeout` counts.
    """

    def __init__(
        self,
        model: str,
        settings: ModelSettings,
        *,
        mode: BatchingMode = BatchingMode.ADAPTIVE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stats = ModelStats()
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._ending = Ending(model, self.stats)
        self._queue = RequestQueue(model, self.stats, self._ending, clock=clock, on_expired=self._settle_waiters)
        self._waiting = self._queue.waiting
        self._desks = Desks()
        self._open = settings.min_workers > 0
        self._pump_due = False
        self._pump_from = 1  # how many must wait before a look at the workers can change anything
        self._hold_timer: asyncio.TimerHandle | None = None
        self._hold_at = 0.0
        self._waiters: list[asyncio.Future[None]] = []
        self._batching = batching(mode, settings.batch_size, settings.max_batch_delay)
        self._sending_ahead = SendingAhead(settings.batch_size)
        self._refusal = (
            f"No worker is available to serve request for model: {model}. Consider increasing job queue size."
        )
        self.configure(settings)

    def configure(self, settings: ModelSettings) -> None:
        """Take new settings; they hold from the next batch on and for the requests that already wait."""
        self._batch_size = max(settings.batch_size, 1)
        self._queue_size = settings.job_queue_size
        self._batching.configure(settings.batch_size, settings.max_batch_delay)
        self._sending_ahead.configure(settings.batch_size)
        self._queue.allow(settings.response_timeout + settings.startup_timeout)
        self._pump_soon()

    # --- requests in -------------------------------------------------------------------------------------------------

    def submit(self, request: InferenceRequest) -> None:
        """Accept a request: from now on `done` is called exactly once, never from within this call, unless its client goes.

        Raises NoWorkerAvailable where no worker is wanted or the queue is full; the request is then not accepted.
        """
        waiting = self._waiting
        if not self._open or (len(waiting) + self._desks.ahead >= self._queue_size and not self._has_room()):
            self.stats.rejected += 1
            raise NoWorkerAvailable(self._refusal)
        self.stats.accepted += 1
        waiting.append(request)
        if self._queue.timer is None:
            self._queue.watch()
        if len(waiting) >= self._pump_from and not self._pump_due:
            self._pump_due = True
            # At the end of this turn of the loop: what else arrives in it shares the batch and the write.
            self._loop.call_soon(self._pump)

    def _has_room(self) -> bool:
        """The slow look at a full queue: a free worker's next batch is no longer in it, nor are requests whose client went."""
        room = self._queue_size + len(self._desks.free) * self._batch_size
        if self.depth >= room:
            self._queue.purge()
        return self.depth < room

    @property
    def depth(self) -> int:
        """Requests that wait: in the queue, or with a worker that has not begun them."""
        return len(self._waiting) + self._desks.ahead

    @property
    def in_flight(self) -> int:
        """Accepted requests without a result."""
        return len(self._waiting) + self._desks.in_hand

    # --- batches out -------------------------------------------------------------------------------------------------

    def _pump_soon(self) -> None:
        self._pump_from = 1
        if self._waiting and not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Send what may leave now."""
        self._pump_due = False
        waiting = self._waiting
        while waiting:
            if waiting[0].cancelled:
                waiting.popleft()
                self.stats.cancelled += 1
                continue
            now = self._clock()
            desk = self._desk_for_next(now)
            if desk is None:
                return
            size = self._batch_size
            full = len(waiting) >= size
            requests = self._queue.take(size if size > 1 else self._calls_for(desk), now)
            if full and len(requests) < size:
                # Some had gone: what is left is not full, so it may have to wait after all.
                self._queue.put_back(requests)
            elif requests:
                self._send(desk, requests, now)
        if self._waiters:
            self._settle_waiters()

    def _desk_for_next(self, now: float) -> Desk | None:
        """Who takes the next batch; None where it has to wait for requests, for its time or for a worker."""
        waiting = self._waiting
        size = self._batch_size
        free = self._desks.free
        if free:
            queued = len(waiting)
            if queued < size and self._open:
                until = self._batching.hold(now, queued, waiting[0].arrived, queued + self._desks.in_hand)
                if until:
                    self._wake_at(until, now)
                    return None
            return free[-1]
        ahead = self._sending_ahead
        ripe = ahead.ripe
        desk = self._desks.least_loaded(ahead.calls, ripe, ahead.longest_turn, now)
        if desk is None:
            self._pump_from = NEVER
            if ripe and len(waiting) >= size and (moment := self._desks.next_ripe(ripe, now)):
                self._wake_at(moment, now)
        elif len(waiting) < size:
            # Only a full batch is sent ahead: any other may still grow while every worker is busy.
            self._pump_from = size
            return None
        return desk

    def _calls_for(self, desk: Desk) -> int:
        """How many requests of batch size 1 a worker gets in one frame: what it may hold, and no more than its share."""
        if self._sending_ahead.slow:
            return 1
        share = -(-len(self._waiting) // len(self._desks))
        return max(min(share, self._sending_ahead.calls - desk.calls, TOGETHER), 1)

    def _send(self, desk: Desk, requests: list[InferenceRequest], now: float) -> None:
        batch = Batch(requests, apart=self._batch_size == 1)
        try:
            desk.worker.send(batch)
        except RuntimeError:
            # It has ended, and `worker_gone` is on its way.
            self._queue.put_back(requests)
            self._desks.set_aside(desk)
            return
        if not desk.batches:
            self._batching.left(now, len(requests))
        self._desks.hand(desk, batch, now)
        self.stats.wait.observe_since([request.arrived for request in requests], now)

    def _wake_at(self, until: float, now: float) -> None:
        """See that `_pump` runs at `until` at the latest; an earlier timer that is already set is kept, it only looks once more."""
        if self._hold_timer is not None:
            if self._hold_at <= until:
                return
            self._hold_timer.cancel()
        self._hold_at = until
        self._hold_timer = self._loop.call_later(max(until - now, 0.001), self._wake)

    def _wake(self) -> None:
        self._hold_timer = None
        if not self._pump_due:
            self._pump()

    # --- results -----------------------------------------------------------------------------------------------------

    def batch_done(self, worker: Worker, batch: Batch, results: Sequence[Result] | MmsError) -> None:
        """A worker's oldest batch, or the first part of it, is answered: see `WorkerListener`."""
        now = self._clock()
        requests = batch.requests
        rows = len(requests)
        outstanding = self.in_flight
        calls = batch.calls
        desk, turn = self._desks.answered(worker, batch, now)
        if self._batch_size > 1:
            self._batching.answered(rows, turn, outstanding)
        self._sending_ahead.answered(turn)
        self.stats.batch(rows, calls, turn)
        self.stats.total.observe_since([request.arrived for request in requests], now)
        if not desk.batches and len(self._waiting) >= self._batch_size:
            # The worker stands still: its next batch goes first, the answers after it.
            self._pump_from = 1
            self._pump()
        else:
            self._pump_soon()
        if isinstance(results, MmsError):
            self.stats.failed += self._ending.refuse(requests, results)
        elif len(results) != rows:
            error = PredictionFailed("number of batch response mismatched")
            self.stats.failed += self._ending.refuse(requests, error)
        else:
            self._ending.answer(requests, results)
        if self._waiters:
            self._settle_waiters()

    # --- workers come and go -----------------------------------------------------------------------------------------

    def workers_wanted(self, count: int) -> None:
        """The pool's new target; with 0, nothing more is accepted and what waits is answered by the workers still there."""
        self._open = count > 0
        self._after_change()

    def worker_ready(self, worker: Worker) -> None:
        """A worker has loaded its model."""
        self._desks.add(worker)
        self._pump_soon()

    async def release(self, worker: Worker) -> None:
        """Return when `worker` gets no further batch and may stop; where it is among the last, the queue is emptied first."""
        while not self._open and self._waiting and worker in self._desks:
            await self._change()
        desk = self._desks.get(worker)
        if desk is not None:
            self._desks.set_aside(desk)

    def worker_gone(self, worker: Worker, error: MmsError, unanswered: Sequence[Batch]) -> None:
        """A worker ended. What it had begun has died with it; what it had not, goes back to the head of the queue."""
        held = self._desks.remove(worker)
        if held is None:
            return
        begun, ahead = held
        self._queue.put_back(ahead)
        self.stats.died += self._ending.refuse(begun, error)
        self._after_change()

    def close(self) -> None:
        """Accept nothing more, end what waits, and let go of the event loop; what workers hold is still answered."""
        self._open = False
        self._queue.drop(self._refusal)
        self._queue.close()
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
        self._settle_waiters()

    def _after_change(self) -> None:
        if not self._open and not self._desks:
            self._queue.drop(self._refusal)
        self._pump_soon()
        self._settle_waiters()

    # --- waiting for an end ------------------------------------------------------------------------------------------

    async def idle(self) -> None:
        """Return when every accepted request has its result."""
        while self.in_flight:
            await self._change()

    async def _change(self) -> None:
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def _settle_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

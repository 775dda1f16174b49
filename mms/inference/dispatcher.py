"""Matches one model's waiting requests with its ready workers: a bounded queue, batches, deadlines; all on the event loop.

Nothing here awaits, locks or logs while a request passes: a request enters through `submit`, leaves in a `Batch` to a
worker, and its `done` is called when the worker's answer comes. Each accepted request ends exactly once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence

from mms.config.resolve import ModelSettings
from mms.errors import DeadlineExceeded, MmsError, NoWorkerAvailable, PredictionFailed
from mms.inference.batching import BatchingMode, SendingAhead, batching
from mms.inference.stats import ModelStats
from mms.request import Batch, InferenceRequest, InferenceResponse, Result
from mms.workers.engine import Worker

logger = logging.getLogger(__name__)

NEVER = 1 << 62
PURGE_INTERVAL = 0.05  # seconds: how often a full queue may be searched for requests whose client has gone


class _Desk:
    """One ready worker and the batches in its hands, oldest first; `turn_began` is when the oldest became its only task."""

    __slots__ = ("batches", "leaving", "turn_began", "worker")

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.batches: deque[Batch] = deque()
        self.turn_began = 0.0
        self.leaving = False


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
        self._model = model
        self._mode = mode
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._queue: deque[InferenceRequest] = deque()
        self._desks: dict[Worker, _Desk] = {}
        self._free: list[_Desk] = []  # desks with nothing in hand; the last one used goes first, its caches are warm
        self._in_hand = 0  # requests with workers
        self._ahead = 0  # of these, requests behind a worker's oldest batch: for the queue's bound they still wait
        self._open = settings.min_workers > 0
        self._pump_due = False
        self._pump_from = 1  # how many must wait before a look at the workers can change anything
        self._hold_timer: asyncio.TimerHandle | None = None
        self._hold_at = 0.0
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._next_purge = 0.0
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
        self._patience = settings.response_timeout + settings.startup_timeout
        for request in self._queue:
            request.deadline = request.arrived + self._patience
        self._watch_deadlines()
        self._pump_soon()

    # --- requests in -------------------------------------------------------------------------------------------------

    def submit(self, request: InferenceRequest) -> None:
        """Accept a request: from now on `done` is called exactly once, never from within this call, unless its client goes.

        Raises NoWorkerAvailable where no worker is wanted or the queue is full; the request is then not accepted.
        """
        queue = self._queue
        if not self._open or (len(queue) + self._ahead >= self._queue_size and not self._has_room()):
            self.stats.rejected += 1
            raise NoWorkerAvailable(self._refusal)
        self.stats.accepted += 1
        request.deadline = request.arrived + self._patience
        queue.append(request)
        if len(queue) >= self._pump_from and not self._pump_due:
            self._pump_due = True
            # At the end of this turn of the loop: what else arrives in it shares the batch and the write.
            self._loop.call_soon(self._pump)
        if self._expiry_timer is None:
            self._watch_deadlines()

    def _has_room(self) -> bool:
        """The slow look at a full queue: a free worker's next batch is no longer in it, nor are requests whose client went."""
        room = self._queue_size + len(self._free) * self._batch_size
        if len(self._queue) + self._ahead < room:
            return True
        now = self._clock()
        if now < self._next_purge:
            return False
        self._next_purge = now + PURGE_INTERVAL
        kept = [request for request in self._queue if not request.cancelled]
        self.stats.cancelled += len(self._queue) - len(kept)
        self._queue.clear()
        self._queue.extend(kept)
        return len(kept) + self._ahead < room

    @property
    def depth(self) -> int:
        """Requests that wait: in the queue, or with a worker that has not begun them."""
        return len(self._queue) + self._ahead

    @property
    def in_flight(self) -> int:
        """Accepted requests without a result."""
        return len(self._queue) + self._in_hand

    # --- batches out -------------------------------------------------------------------------------------------------

    def _pump_soon(self) -> None:
        self._pump_from = 1
        if self._queue and not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Send what may leave now."""
        self._pump_due = False
        queue = self._queue
        while queue:
            if queue[0].cancelled:
                queue.popleft()
                self.stats.cancelled += 1
                continue
            size = self._batch_size
            waiting = len(queue)
            if self._free:
                now = self._clock()
                desk = self._free[-1]
                if waiting < size and self._open:
                    until = self._batching.hold(now, waiting, queue[0].arrived, waiting + self._in_hand)
                    if until:
                        self._wake_at(until, now)
                        return
            else:
                now = self._clock()
                least = self._least_loaded(now)
                if least is None or waiting < size:
                    self._pump_from = NEVER if least is None else size
                    return
                desk = least
            requests = self._take(size, now)
            if waiting >= size > len(requests):
                # Some had gone: what is left is not full, so it may have to wait after all.
                queue.extendleft(reversed(requests))
                continue
            if requests:
                self._send(desk, requests, now)
        if self._waiters:
            self._settle_waiters()

    def _least_loaded(self, now: float) -> _Desk | None:
        """The busy desk that a full batch may be sent ahead to, or None."""
        most = self._sending_ahead.batches
        if most < 2:
            return None
        least: _Desk | None = None
        for desk in self._desks.values():
            held = len(desk.batches)
            if held < most and not desk.leaving and not self._sending_ahead.stuck(now - desk.turn_began):
                most = held
                least = desk
        return least

    def _take(self, size: int, now: float) -> list[InferenceRequest]:
        """The next `size` requests that are still wanted; the others end here and cost no worker anything."""
        queue = self._queue
        requests: list[InferenceRequest] = []
        while queue and len(requests) < size:
            request = queue.popleft()
            if request.cancelled:
                self.stats.cancelled += 1
            elif request.deadline <= now:
                self._expire(request)
            else:
                requests.append(request)
        return requests

    def _send(self, desk: _Desk, requests: list[InferenceRequest], now: float) -> None:
        rows = len(requests)
        batch = Batch(requests)
        batch.sent = now
        try:
            desk.worker.send(batch)
        except RuntimeError:
            # It has ended, and `worker_gone` is on its way.
            self._queue.extendleft(reversed(requests))
            self._set_aside(desk)
            return
        if desk.batches:
            self._ahead += rows
        else:
            self._free.remove(desk)
            desk.turn_began = now
            self._batching.left(now, rows)
        desk.batches.append(batch)
        self._in_hand += rows
        observe = self.stats.wait.observe
        for request in requests:
            observe(now - request.arrived)

    def _set_aside(self, desk: _Desk) -> None:
        """Give it no further batch; what it holds is still its own."""
        if not desk.leaving:
            desk.leaving = True
            if not desk.batches:
                self._free.remove(desk)

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
        """A worker's oldest batch is answered: see `WorkerListener`."""
        now = self._clock()
        desk = self._desks[worker]
        requests = batch.requests
        rows = len(requests)
        outstanding = len(self._queue) + self._in_hand
        desk.batches.popleft()
        self._in_hand -= rows
        turn = now - desk.turn_began
        desk.turn_began = now
        if desk.batches:
            self._ahead -= len(desk.batches[0].requests)
        elif not desk.leaving:
            self._free.append(desk)
        self._pump_from = 1
        self._batching.answered(rows, turn, outstanding)
        self._sending_ahead.answered(turn)
        stats = self.stats
        stats.batches += 1
        stats.rows += rows
        stats.turn.observe(turn)
        stats.size.observe(rows)
        if not desk.batches and len(self._queue) >= self._batch_size:
            # The worker stands still: its next batch goes first, the answers after it.
            self._pump()
        else:
            self._pump_soon()
        if isinstance(results, MmsError):
            stats.failed += self._end_all(requests, results)
        elif len(results) != rows:
            stats.failed += self._end_all(requests, PredictionFailed("number of batch response mismatched"))
        else:
            self._answer(requests, results)
        if self._waiters:
            self._settle_waiters()

    def _answer(self, requests: Sequence[InferenceRequest], results: Sequence[Result]) -> None:
        failed = cancelled = 0
        for request, result in zip(requests, results, strict=True):
            if request.cancelled:
                cancelled += 1
                continue
            if type(result) is not InferenceResponse:
                failed += 1
            try:
                request.done(result)
            except Exception:
                # A front end's defect must not cost the neighbours in the batch their answers.
                logger.exception("The answer to a request of model %s could not be handed on.", self._model)
        stats = self.stats
        stats.answered += len(requests) - failed - cancelled
        stats.failed += failed
        stats.cancelled += cancelled

    def _end_all(self, requests: Collection[InferenceRequest], error: MmsError) -> int:
        """End each request with `error`; returns how many were still wanted, which the caller counts."""
        wanted = 0
        for request in requests:
            if request.cancelled:
                continue
            wanted += 1
            try:
                request.done(error)
            except Exception:
                logger.exception("The answer to a request of model %s could not be handed on.", self._model)
        self.stats.cancelled += len(requests) - wanted
        return wanted

    # --- workers come and go -----------------------------------------------------------------------------------------

    def workers_wanted(self, count: int) -> None:
        """The pool's new target; with 0, nothing more is accepted and what waits is answered by the workers still there."""
        self._open = count > 0
        if not self._open and not self._desks:
            self._drop_queue()
        self._settle_waiters()

    def worker_ready(self, worker: Worker) -> None:
        """A worker has loaded its model."""
        desk = _Desk(worker)
        self._desks[worker] = desk
        self._free.append(desk)
        self._pump_soon()

    async def release(self, worker: Worker) -> None:
        """Return when `worker` gets no further batch and may stop; where it is among the last, the queue is emptied first."""
        while not self._open and self._queue and worker in self._desks:
            await self._change()
        desk = self._desks.get(worker)
        if desk is not None:
            self._set_aside(desk)

    def worker_gone(self, worker: Worker, error: MmsError, unanswered: Sequence[Batch]) -> None:
        """A worker ended. What it had begun has died with it; what it had not, goes back to the head of the queue."""
        desk = self._desks.pop(worker, None)
        if desk is None:
            return
        if not desk.batches and not desk.leaving:
            self._free.remove(desk)
        batches = desk.batches
        begun = batches.popleft() if batches else None
        while batches:
            ahead = batches.pop().requests
            self._ahead -= len(ahead)
            self._in_hand -= len(ahead)
            self._queue.extendleft(reversed(ahead))
        if begun is not None:
            self._in_hand -= len(begun.requests)
            self.stats.died += self._end_all(begun.requests, error)
        if not self._open and not self._desks:
            self._drop_queue()
        self._watch_deadlines()
        self._pump_soon()
        self._settle_waiters()

    def _drop_queue(self) -> None:
        """No worker is there and none will come."""
        dropped = list(self._queue)
        self._queue.clear()
        self.stats.dropped += self._end_all(dropped, NoWorkerAvailable(self._refusal))

    def close(self) -> None:
        """Accept nothing more, end what waits, and let go of the event loop; what workers hold is still answered."""
        self._open = False
        self._drop_queue()
        for timer in (self._hold_timer, self._expiry_timer):
            if timer is not None:
                timer.cancel()
        self._hold_timer = self._expiry_timer = None
        self._settle_waiters()

    # --- deadlines ---------------------------------------------------------------------------------------------------

    def _watch_deadlines(self) -> None:
        """Requests expire in the order of their arrival, so one timer for the oldest is enough; it is never moved, only set anew."""
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
            self._expiry_timer = None
        if self._queue:
            delay = max(self._queue[0].deadline - self._clock(), 0.001)
            self._expiry_timer = self._loop.call_later(delay, self._expire_old)

    def _expire_old(self) -> None:
        self._expiry_timer = None
        now = self._clock()
        queue = self._queue
        while queue and (queue[0].cancelled or queue[0].deadline <= now):
            request = queue.popleft()
            if request.cancelled:
                self.stats.cancelled += 1
            else:
                self._expire(request)
        self._watch_deadlines()
        self._settle_waiters()

    def _expire(self, request: InferenceRequest) -> None:
        error = DeadlineExceeded(f"No worker of model {self._model} was free within {self._patience:g} seconds.")
        self.stats.expired += self._end_all((request,), error)

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

"""One worker as the server sees it: starts the process, sends batches, takes results, and knows when and how it ended."""

from __future__ import annotations

import asyncio
import logging
import struct
import time

import psutil

from mms.errors import LoadFailed, MmsError, WorkerDied
from mms.request import Batch
from mms.workers import frames, messages
from mms.workers.connection import Connection
from mms.workers.endings import death, load_error
from mms.workers.ends import WorkerEnds
from mms.workers.engine import MAX_IN_FLIGHT, WorkerListener, WorkerSpec, WorkerState
from mms.workers.holding import Holding
from mms.workers.launcher import ChildProcess, Exit, Launcher
from mms.workers.lifecycle import advance
from mms.workers.loading import LoadOrder
from mms.workers.output import MetricSink, WorkerOutput
from mms.workers.patience import Patience

logger = logging.getLogger(__name__)

RUNTIMES = ("python", "python3")
"""What a manifest's runtime may be here: the server's own interpreter."""

_LAST_WORDS = 0.5  # seconds to wait for the rest of a dead worker's socket, which a process of its own may hold open
_IDLE_GRACE = 2.0  # seconds at most for a worker to end by itself that has no batch in its hands
_SERVING = (WorkerState.READY, WorkerState.BUSY)
_LEAVE = 1.0  # seconds for a worker to end by itself once it has closed its socket or failed to load


class LocalWorker:
    """A worker in a child process of this machine; made by LocalEngine."""

    def __init__(self, spec: WorkerSpec, worker_id: str, launcher: Launcher, sink: MetricSink) -> None:
        self._spec = spec
        self._id = worker_id
        self._launcher = launcher
        self._sink = sink
        self._state = WorkerState.STARTING
        self._started_at = time.time()
        self._loop = asyncio.get_running_loop()
        self._listener: WorkerListener | None = None
        self._child: ChildProcess | None = None
        self._connection: Connection | None = None
        self._output: list[WorkerOutput] = []
        self._holding = Holding()
        self._patience = Patience(spec.response_timeout, self._owes_an_answer, self._no_answer)
        self._loaded: asyncio.Future[None] = self._loop.create_future()
        self._cause: MmsError | None = None
        self._exit: Exit | None = None
        self.gone: asyncio.Future[None] = self._loop.create_future()

    # --- what it says of itself ---

    @property
    def worker_id(self) -> str:
        """Short and unique in this life of the server."""
        return self._id

    @property
    def pid(self) -> int | None:
        """Process id, None before the start and after the end."""
        child = self._child
        return child.pid if child is not None and child.running else None

    @property
    def begun(self) -> int:
        """Unanswered requests that it has begun, by its own account."""
        return self._holding.begun

    @property
    def started_at(self) -> float:
        """Wall-clock seconds since the epoch."""
        return self._started_at

    @property
    def state(self) -> WorkerState:
        """The true state."""
        return self._state

    @property
    def gpu_id(self) -> int | None:
        """The GPU it was given."""
        return self._spec.gpu_id

    @property
    def memory_usage(self) -> int:
        """Resident bytes, read now; 0 where the process is gone."""
        pid = self.pid
        if pid is None:
            return 0
        try:
            return int(psutil.Process(pid).memory_info().rss)
        except psutil.Error:
            return 0

    # --- start ---

    async def start(self, listener: WorkerListener) -> None:
        """Start the process and load the model. Raises LoadFailed, once the process is gone; `worker_gone` is then not called."""
        self._listener = listener
        self._started_at = time.time()
        try:
            await self._launch()
            self._to(WorkerState.LOADING)
            try:
                await asyncio.wait_for(asyncio.shield(self._loaded), self._spec.startup_timeout)
            except TimeoutError:
                self._cause = LoadFailed(
                    f"The worker did not load model {self._name} within {self._spec.startup_timeout:g} s."
                )
                self.kill()
                await self._loaded
        except asyncio.CancelledError:
            self._cause = self._cause or LoadFailed(f"Loading model {self._name} was given up.")
            self.kill()
            if self._child is None:
                self._finish()
            raise
        except LoadFailed:
            if self._child is None:
                self._finish()
            raise
        logger.info("Worker %s of model %s (pid %s) is ready.", self._id, self._name, self.pid)

    async def _launch(self) -> None:
        if self._state is not WorkerState.STARTING:
            raise LoadFailed(f"The worker of model {self._name} was stopped before it started.")
        if self._spec.runtime not in RUNTIMES:
            raise LoadFailed(f"The runtime {self._spec.runtime} is not installed; models run in {', '.join(RUNTIMES)}.")
        try:
            ends = WorkerEnds()
        except OSError as error:
            raise LoadFailed(f"A worker cannot be started: {error.strerror}", environment=True) from error
        try:
            child = await self._launcher.start(ends.theirs)
        except BaseException:
            ends.close_ours()
            raise
        finally:
            ends.close_theirs()
        self._child = child
        self._holding.progress = ends.progress
        model = self._spec.model.name
        self._output = [
            WorkerOutput(ends.stdout, model, logging.INFO, self._sink),
            WorkerOutput(ends.stderr, model, logging.WARNING, self._sink),
        ]
        child.exited.add_done_callback(self._exited)
        connection = self._connection = Connection(self._received, self._broke_protocol, self._disconnected)
        await self._loop.create_unix_connection(lambda: connection, sock=ends.sock)
        if self._state is not WorkerState.STARTING:
            self.kill()
            await self._loaded
        connection.control(frames.LOAD, self._order().as_json())

    def _order(self) -> LoadOrder:
        spec = self._spec
        return LoadOrder(
            model=spec.model.name,
            model_dir=str(spec.model_dir),
            handler=spec.handler,
            batch_size=spec.batch_size,
            gpu_id=spec.gpu_id,
            max_response_size=spec.max_response_size,
            decode=spec.decode_input_request,
            threads=spec.threads,
            legacy=spec.legacy,
            environment=dict(spec.environment),
        )

    # --- work ---

    def send(self, batch: Batch) -> None:
        """Write it; only in READY or BUSY, with at most MAX_IN_FLIGHT calls in its hands (else RuntimeError)."""
        connection = self._connection
        state = self._state
        if connection is None or not connection.open or state not in _SERVING:
            raise RuntimeError(f"Worker {self._id} of model {self._name} is {state}: it takes no batch.")
        if not self._holding.has_room_for(batch):
            raise RuntimeError(f"Worker {self._id} of model {self._name} would hold more than {MAX_IN_FLIGHT} calls.")
        requests = batch.requests
        buffers = messages.encode_calls(requests) if batch.apart else messages.encode_batch(requests)
        if self._holding:
            connection.write_soon(buffers)  # it has enough to do until the loop comes round
        else:
            self._patience.begin()
            if state is WorkerState.READY:
                self._to(WorkerState.BUSY)
            connection.write(buffers)
        self._holding.add(batch)

    def configure(self, *, batch_size: int, response_timeout: float, max_response_size: int) -> None:
        """Change live settings; those of the worker's own hold from the next batch on."""
        self._patience.configure(response_timeout)
        if self._connection is not None and self._state in _SERVING:
            content = {"batch_size": batch_size, "max_response_size": max_response_size}
            self._connection.control(frames.CONFIGURE, content)

    def _owes_an_answer(self) -> bool:
        return bool(self._holding) and self._exit is None

    def _no_answer(self) -> None:
        self._end_for(f"did not answer within {self._patience.seconds:g} s and was killed")

    def _end_for(self, reason: str) -> None:
        """Kill it; `reason` completes a sentence that begins with the worker."""
        if self._cause is None:
            self._cause = WorkerDied(detail=f"{self._subject} {reason}.")
        self.kill()

    def _received(self, frame: bytes) -> None:
        """One frame from the worker."""
        kind = frames.kind_of(frame)
        if kind == frames.BODIES or kind == frames.RESULTS:
            self._results(frame)
        elif kind == frames.LOADED and self._state is WorkerState.LOADING:
            self._to(WorkerState.READY)
            self._loaded.set_result(None)
        elif kind == frames.LOAD_FAILED and self._state is WorkerState.LOADING:
            self._load_failed(frame)

    def _load_failed(self, frame: bytes) -> None:
        report = frames.decode_control(frame)
        self._cause = self._cause or LoadFailed(
            f"Model {self._name} could not be loaded: {report['message']}",
            detail=str(report["detail"]),
            out_of_memory=bool(report["out_of_memory"]),
        )
        self._loop.call_later(_LEAVE, self.kill)

    def _results(self, frame: bytes) -> None:
        try:
            results, metrics = messages.decode_results(frame)
            batch = self._holding.answered(len(results))
        except (frames.FrameError, struct.error, ValueError, TypeError) as error:
            self._broke_protocol(error)
            return
        if self._holding:
            self._patience.begin()
        elif self._state is WorkerState.BUSY:
            self._to(WorkerState.READY)
        if metrics:
            self._sink(metrics)
        if self._listener is not None:
            self._listener.batch_done(self, batch, results)

    def _broke_protocol(self, error: Exception) -> None:
        """A worker that writes what makes no sense is not to be trusted with further requests."""
        self._end_for(f"sent what is no answer ({error}) and was killed")

    # --- the end ---

    async def stop(self, grace: float) -> None:
        """Let it finish what it holds, for `grace` seconds at most, then kill it; returns when it is gone."""
        state = self._state
        if state is WorkerState.DEAD:
            return
        if state is not WorkerState.STOPPING:
            self._to(WorkerState.STOPPING)
            if state in (WorkerState.STARTING, WorkerState.LOADING):
                self._cause = self._cause or LoadFailed(
                    f"The worker of model {self._name} was stopped while it was loading."
                )
                self.kill()
                if self._listener is None:
                    self._finish()
            else:
                self._cause = WorkerDied("Worker scaled down.", detail=f"{self._subject} was stopped.")
                if self._connection is not None:
                    self._connection.control(frames.STOP, None)
        # One that holds nothing owes nobody an answer: whatever keeps it from ending must not keep others waiting.
        patience = grace if self._holding else min(grace, _IDLE_GRACE)
        try:
            await asyncio.wait_for(asyncio.shield(self.gone), patience)
        except TimeoutError:
            self.kill()
            await asyncio.shield(self.gone)

    def kill(self) -> None:
        """SIGKILL now; `worker_gone` follows."""
        if self._child is not None:
            self._child.kill()

    def _disconnected(self) -> None:
        """The worker's socket is closed: it has ended, or is about to."""
        if self._exit is not None:
            self._finish()
        else:
            self._loop.call_later(_LEAVE, self.kill)

    def _exited(self, exited: asyncio.Future[Exit]) -> None:
        self._exit = exited.result()
        if self._connection is None or not self._connection.open:
            self._finish()
        else:
            # Answers that it wrote before it ended may still be on their way.
            self._loop.call_later(_LAST_WORDS, self._finish)

    def _finish(self) -> None:
        """Once, when process and socket are gone: close everything and tell who waits."""
        if self.gone.done():
            return
        if self._connection is not None:
            self._connection.abort()
        self._patience.close()
        for output in self._output:
            output.close()
        self.gone.set_result(None)
        loading = not self._loaded.done()
        self._to(WorkerState.DEAD)
        unanswered = self._holding.let_go()
        if loading:
            words = list(self._output[1].tail) if self._output else []
            cause = self._cause if isinstance(self._cause, LoadFailed) else load_error(self._name, self._exit, words)
            self._loaded.set_exception(cause)
            self._loaded.exception()  # it may be that nobody waits any more
            return
        error = self._cause if isinstance(self._cause, WorkerDied) else death(self._subject, self._exit)
        logger.log(
            logging.INFO if error.message == "Worker scaled down." else logging.WARNING,
            "%s",
            error.detail or error.message,
        )
        if self._listener is not None:
            self._listener.worker_gone(self, error, unanswered)

    def _to(self, state: WorkerState) -> None:
        self._state = advance(self._state, state)

    @property
    def _name(self) -> str:
        key = self._spec.model
        return f"{key.name} {key.version}" if key.version else key.name

    @property
    def _subject(self) -> str:
        pid = self._child.pid if self._child is not None else None
        return f"Worker {self._id} of model {self._name} (pid {pid})"

"""The contract of an engine: what a pool may ask of whatever runs its workers (local processes today)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from mms.errors import MmsError
from mms.records import ModelKey
from mms.request import Batch, Result

MAX_IN_FLIGHT = 64
"""Most handler calls in a worker's hands. Mostly it is one, or two so that it never idles; where a handler answers in microseconds
(batch size 1 above all), the way to the worker takes longer than the work, and only more of them in one frame keep it busy."""


class WorkerState(StrEnum):
    """The true state of a worker, as the API shows it; `lifecycle.py` holds the transitions."""

    STARTING = "STARTING"
    LOADING = "LOADING"
    READY = "READY"
    BUSY = "BUSY"
    STOPPING = "STOPPING"
    DEAD = "DEAD"


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All that a worker needs to load its model; frozen, so that a replacement is the same worker again.

    `handler` None means the built-in ONNX handler. `epoch` tags processes for the sweep after a crash. `environment` is
    laid over the (filtered) environment of the server. Seconds for timeouts, bytes for sizes.
    """

    model: ModelKey
    model_dir: Path
    handler: str | None
    runtime: str = "python"
    batch_size: int = 1
    gpu_id: int | None = None
    startup_timeout: float = 120.0
    response_timeout: float = 120.0
    max_response_size: int = 6_553_500
    decode_input_request: bool = True
    preload_model: bool = False
    threads: int = 1
    legacy: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


class WorkerListener(Protocol):
    """What a worker tells its pool; every call is made on the event loop."""

    def batch_done(self, worker: Worker, batch: Batch, results: Sequence[Result] | MmsError) -> None:
        """One result a request, by position, or one error for the whole batch (the handler raised, or its answer was wrong).

        Of calls that were sent together (`Batch.apart`) some may be answered before the others: `batch` then holds just those,
        and they have been taken off the one that was sent.
        """

    def worker_gone(self, worker: Worker, error: MmsError, unanswered: Sequence[Batch]) -> None:
        """The worker ended (died, was killed for not answering, or was stopped); `unanswered` are batches without results."""


class Worker(Protocol):
    """One loaded model in one child process.

    Calls are made in the order in which they were sent, one after the other; up to `MAX_IN_FLIGHT` may be in its hands.
    """

    @property
    def worker_id(self) -> str:
        """Short, unique in this life of the server: what MMS shows as `id`."""

    @property
    def pid(self) -> int | None:
        """Process id, None before the start and after the end."""

    @property
    def begun(self) -> int:
        """How many of the unanswered requests in its hands, counted from the oldest, it has begun; true after its end as well."""

    @property
    def started_at(self) -> float:
        """Wall-clock seconds since the epoch, for people."""

    @property
    def state(self) -> WorkerState:
        """The true state."""

    @property
    def gpu_id(self) -> int | None:
        """The GPU it was given."""

    @property
    def memory_usage(self) -> int:
        """Resident bytes, read now; 0 where the process is gone."""

    async def start(self, listener: WorkerListener) -> None:
        """Start the process and load the model; returns when READY. Raises LoadFailed (the process is then gone)."""

    def send(self, batch: Batch) -> None:
        """Write one frame; returns at once. Raises RuntimeError where it has ended (`worker_gone` then follows) or is not ready."""

    def configure(self, *, batch_size: int, response_timeout: float, max_response_size: int) -> None:
        """Change live settings; holds from the next batch on."""

    async def stop(self, grace: float) -> None:
        """Ask it to end after what it holds, terminate after `grace` seconds, then kill; returns when it is gone."""

    def kill(self) -> None:
        """SIGKILL now; `worker_gone` follows."""


class Engine(Protocol):
    """Makes workers; one a server."""

    async def open(self) -> None:
        """Make ready (the fork server is up). Idempotent."""

    def worker(self, spec: WorkerSpec) -> Worker:
        """A new worker in STARTING; nothing runs before its `start`."""

    async def close(self) -> None:
        """End every process of this engine, children and fork server; returns when none is left."""

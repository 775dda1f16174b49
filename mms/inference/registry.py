"""Which models are served now: name to served model; read on the hot path, written by the model manager only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from mms.archive.model_archive import ModelArchive
from mms.config.resolve import ModelSettings
from mms.errors import LoadFailed, ModelNotFound
from mms.inference.batching import BatchingMode
from mms.inference.dispatcher import Dispatcher
from mms.inference.placeholders import Expected, Lobby, NotServed
from mms.inference.stats import ModelStats
from mms.records import ModelKey
from mms.request import InferenceRequest
from mms.workers.engine import Worker
from mms.workers.pool import WorkerPool


class ServedModel:
    """A model in service: its archive, its settings in force, its workers and its queue.

    New ones have no workers: `scale` or `scale_soon` bring them up. Requests are accepted as soon as workers are wanted,
    also while the first of them still loads.
    """

    def __init__(
        self,
        *,
        key: ModelKey,
        archive: ModelArchive,
        runtime: str,
        settings: ModelSettings,
        pool: WorkerPool,
        startup: bool = False,
        batching: str = "adaptive",
    ) -> None:
        """`batching` is the server's setting: adaptive | strict. Made on the event loop that serves."""
        self.key = key
        self.archive = archive
        self.runtime = runtime
        self.settings = settings
        self.max_request_size: int | None = settings.max_request_size
        self.startup = startup
        self.pool = pool
        self._dispatcher = Dispatcher(key.name, settings, mode=BatchingMode(batching))
        self.submit: Callable[[InferenceRequest], None] = self._dispatcher.submit
        pool.attach(self._dispatcher)

    # --- what it is doing --------------------------------------------------------------------------------------------

    @property
    def handler(self) -> str | None:
        """The handler that its workers load; None for the built-in ONNX handler."""
        return self.pool.spec.handler

    @property
    def workers(self) -> Sequence[Worker]:
        """The workers in their true states, those on their way out included."""
        return self.pool.workers

    @property
    def last_error(self) -> str:
        """Why a worker last died or could not load; empty if none ever did."""
        return self.pool.last_error

    @property
    def queue_depth(self) -> int:
        """Requests that no worker has begun."""
        return self._dispatcher.depth

    @property
    def in_flight(self) -> int:
        """Accepted requests without a result."""
        return self._dispatcher.in_flight

    @property
    def stats(self) -> ModelStats:
        """Its counters."""
        return self._dispatcher.stats

    @property
    def requests_seen(self) -> int:
        """Requests accepted since it came into service."""
        return self._dispatcher.stats.accepted

    # --- what it shall do --------------------------------------------------------------------------------------------

    def configure(self, settings: ModelSettings) -> None:
        """Take live settings: no worker restarts, no request is lost. Worker counts change through `scale` only."""
        self.settings = settings
        self.max_request_size = settings.max_request_size
        self._dispatcher.configure(settings)
        self.pool.configure(
            batch_size=settings.batch_size,
            response_timeout=settings.response_timeout,
            startup_timeout=settings.startup_timeout,
            max_response_size=settings.max_response_size,
        )

    def scale_soon(self, min_workers: int, max_workers: int) -> None:
        """Begin to bring the workers to the target and return at once; `first_outcome` tells how it went."""
        self.pool.resize(min_workers, max_workers)

    async def scale(self, min_workers: int, max_workers: int, *, wait: bool = True) -> None:
        """Bring the workers to the target. Raises LoadFailed with the first worker's error; the others go on being tried."""
        if wait:
            await self.pool.scale(min_workers, max_workers)
        else:
            self.pool.resize(min_workers, max_workers)

    async def first_outcome(self) -> LoadFailed | None:
        """Wait until the target is reached (None) or a worker could not load (its error)."""
        return await self.pool.outcome()

    async def idle(self) -> None:
        """Return when every accepted request has its result."""
        await self._dispatcher.idle()

    async def drain(self, seconds: float) -> bool:
        """Accept nothing more, answer what was accepted, stop the workers; False where `seconds` were not enough."""
        return await self.pool.drain(seconds)

    async def close(self) -> None:
        """Stop every worker now and end what still waits; returns when nothing of it is left."""
        await self.pool.close()
        self._dispatcher.close()


class Registry:
    """Model names and what stands behind each: a served model, or a placeholder that says why there is none."""

    def __init__(self) -> None:
        self._entries: dict[str, ServedModel | NotServed | Expected] = {}
        self.find: Callable[[str], ServedModel | NotServed | Expected | None] = self._entries.get
        """What stands behind a name, placeholders included: takes requests, and changes whenever a model does."""
        self._unplanned: Lobby | None = None

    def submit(self, request: InferenceRequest) -> None:
        """Hand the request to its model. Raises ModelNotFound, NoWorkerAvailable; it is then not accepted."""
        entry = self._entries.get(request.model) or self._unplanned
        if entry is None:
            raise ModelNotFound(f"Model not found: {request.model}")
        entry.submit(request)

    # --- before the plan ---------------------------------------------------------------------------------------------

    def await_plan(self, wait: float) -> None:
        """Nobody knows yet which models there are: predictions wait, `wait` seconds at most, until `planned`."""
        self._unplanned = Lobby(wait, "This server has just started and does not know its models yet.")

    def planned(self) -> None:
        """From now on a name that is not here is unknown; what waited is handed on, or refused."""
        waiting, self._unplanned = self._unplanned, None
        if waiting is not None:
            waiting.hand_over(self.submit)

    # --- reading -----------------------------------------------------------------------------------------------------

    def get(self, name: str) -> ServedModel | None:
        """The served model of that name; None where there is none, a placeholder included."""
        entry = self._entries.get(name)
        return entry if isinstance(entry, ServedModel) else None

    def known(self, name: str) -> bool:
        """Whether anything of that name is here, placeholders included: False means that a prediction answers 404."""
        return name in self._entries

    def held(self, name: str) -> ModelKey | None:
        """The key of a model that is known but kept out of service; None for a served or an unknown one."""
        entry = self._entries.get(name)
        return entry.key if isinstance(entry, NotServed) else None

    def held_names(self) -> list[str]:
        """The names of the models that are kept out of service."""
        return [name for name, entry in self._entries.items() if isinstance(entry, NotServed)]

    def names(self) -> list[str]:
        """The names of the served models, sorted."""
        return sorted(served.key.name for served in self)

    def __iter__(self) -> Iterator[ServedModel]:
        """The served models; a copy, so that it may change meanwhile."""
        return iter([entry for entry in self._entries.values() if isinstance(entry, ServedModel)])

    def __len__(self) -> int:
        return sum(isinstance(entry, ServedModel) for entry in self._entries.values())

    def only_startup_model(self) -> str | None:
        """The start-up model where there is just one, for a request that names none."""
        names = [served.key.name for served in self if served.startup]
        return names[0] if len(names) == 1 else None

    def max_request_size(self, name: str) -> int | None:
        """Most bytes of a body for that model, None where it is not served."""
        entry = self._entries.get(name)
        return None if entry is None else entry.max_request_size

    @property
    def in_flight(self) -> int:
        """Accepted requests without a result, over all models."""
        waiting = 0 if self._unplanned is None else self._unplanned.in_flight
        return waiting + sum(entry.in_flight for entry in self._entries.values())

    # --- writing -----------------------------------------------------------------------------------------------------

    def publish(self, served: ServedModel) -> None:
        """From now on predictions go to this model; what waited for it is handed on."""
        self._put(served)

    def withdraw(self, name: str) -> ServedModel | None:
        """From now on the name is unknown; returns the model that was served under it."""
        entry = self._entries.pop(name, None)
        if isinstance(entry, Expected):
            entry.hand_over(self.submit)
        return entry if isinstance(entry, ServedModel) else None

    def hold(self, key: ModelKey, reason: str) -> None:
        """The model is known but not in service: predictions answer 503 with the reason."""
        self._put(NotServed(key, reason))

    def expect(self, key: ModelKey, *, wait: float, on_wanted: Callable[[ModelKey], None]) -> None:
        """The model's replay is still to come: predictions wait for it, `wait` seconds at most (0: answer 503 at once).

        `on_wanted` is called at the first prediction that waits: this model is wanted before others.
        """
        self._put(Expected(key, wait, on_wanted))

    def _put(self, entry: ServedModel | NotServed | Expected) -> None:
        before = self._entries.get(entry.key.name)
        self._entries[entry.key.name] = entry
        if isinstance(before, Expected):
            before.hand_over(entry.submit)

    async def close(self) -> None:
        """Stop every model's workers now; returns when none is left."""
        await asyncio.gather(*(served.close() for served in self))

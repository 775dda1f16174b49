"""The door to predictions, whatever the protocol in front: finds the model and hands the request on; refuses while stopping."""

from __future__ import annotations

import asyncio

from mms.errors import NoWorkerAvailable
from mms.inference.registry import Registry
from mms.request import InferenceRequest
from mms.workers.engine import WorkerState

_NOT_THERE = (WorkerState.STOPPING, WorkerState.DEAD)


class InferenceService:
    """What a front end calls."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._stopping = False
        self.find = registry.find
        self.max_request_size = registry.max_request_size

    def predict(self, request: InferenceRequest) -> None:
        """Accept a request: `done` is then called exactly once, later, on the event loop, unless its client goes.

        Raises ModelNotFound where nothing of that name is known, NoWorkerAvailable where the model is not in service, has
        no workers, its queue is full, or the server stops; the request is then not accepted and `done` is not called.
        """
        if self._stopping:
            raise NoWorkerAvailable("The server is stopping; no prediction is accepted any more.")
        self._registry.submit(request)

    def known(self, name: str) -> bool:
        """Whether a model of that name is registered, in service or not."""
        return self._registry.known(name)

    def only_startup_model(self) -> str | None:
        """The start-up model where there is just one, for a request that names none."""
        return self._registry.only_startup_model()

    def health(self) -> str:
        """MMS's word for how many of the wanted workers there are: `Healthy`, `Partial Healthy` or `Unhealthy`.

        As in MMS, workers that still load count as there.
        """
        wanted = sum(served.pool.target for served in self._registry)
        there = sum(worker.state not in _NOT_THERE for served in self._registry for worker in served.workers)
        if there >= wanted:
            return "Healthy"
        return "Partial Healthy" if there else "Unhealthy"

    @property
    def in_flight(self) -> int:
        """Accepted requests without a result."""
        return self._registry.in_flight

    async def drain(self, seconds: float) -> bool:
        """Accept no more and wait until everything accepted is answered; False where `seconds` were not enough."""
        self._stopping = True
        self.find = _nowhere
        try:
            async with asyncio.timeout(seconds):
                while self._registry.in_flight:
                    await asyncio.gather(*(served.idle() for served in self._registry))
                    await asyncio.sleep(0)
        except TimeoutError:
            return False
        return True


def _nowhere(_name: str) -> None:
    """Where predictions may go while the server stops."""

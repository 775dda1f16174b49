"""Answers the inference port's questions about models from the registry: known or not, size limit, health."""

from __future__ import annotations

from mms.inference.registry import Registry
from mms.workers.engine import WorkerState

_GONE = (WorkerState.STOPPING, WorkerState.DEAD)


class ServedModels:
    """The registry as the inference port sees it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.known = registry.known

    def max_request_size(self, name: str) -> int | None:
        """Most bytes of a body for that model; None where it is not served."""
        served = self._registry.get(name)
        return None if served is None else served.settings.max_request_size

    def health(self) -> str:
        """MMS's three words: workers that run or load, against workers that are wanted, over all models."""
        running = wanted = 0
        for served in self._registry:
            wanted += served.settings.min_workers
            running += sum(worker.state not in _GONE for worker in served.workers)
        if running == 0 and wanted > 0:
            return "Unhealthy"
        return "Partial Healthy" if running < wanted else "Healthy"

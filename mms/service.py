"""A handler's way to fail on purpose, and the pair of an entry point and its context; part of the handler kit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import mms
from mms.context import Context

EntryPoint = Callable[[Any, Context], Any]
"""A handler: called with the batch (None while loading, for a function) and the context."""


class PredictionException(Exception):
    """Raised by a handler to answer the whole batch with `error_code` and `message`."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        self.message = message
        self.error_code = error_code
        super().__init__(message)

    def __str__(self) -> str:
        return f"{self.message} : {self.error_code}"


class Service:
    """A loaded model: its entry point and the context that the entry point is called with."""

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: Mapping[str, Any] | None,
        entry_point: EntryPoint,
        gpu: int | None,
        batch_size: int,
    ) -> None:
        self._context = Context(model_name, model_dir, manifest, batch_size, gpu, mms.__version__)
        self.entry_point = entry_point

    @property
    def context(self) -> Context:
        """The context of this model."""
        return self._context


def emit_metrics(metrics: Iterable[Any]) -> None:
    """Print metrics as lines that the server takes from the worker's output."""
    for metric in metrics:
        print(f"[METRICS]{metric}", flush=True)  # noqa: T201 - standard output is the channel

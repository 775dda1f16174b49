"""How requests end: hands each its result, once, and counts it; whoever accepted a request ends it here."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from mms.errors import MmsError
from mms.inference.stats import ModelStats
from mms.request import InferenceRequest, Result

logger = logging.getLogger(__name__)


class Ending:
    """The ends of one model's requests. A request whose client has gone gets nothing and counts as cancelled."""

    __slots__ = ("_model", "_stats")

    def __init__(self, model: str, stats: ModelStats) -> None:
        self._model = model
        self._stats = stats

    def answer(self, requests: Sequence[InferenceRequest], results: Sequence[Result]) -> None:
        """Each request gets its own result, by position."""
        failed = cancelled = 0
        for request, result in zip(requests, results, strict=True):
            if request.cancelled:
                cancelled += 1
                continue
            if type(result) is not bytes and isinstance(result, MmsError):
                failed += 1
            try:
                request.done(result)
            except Exception:
                # A front end's defect must not cost the neighbours in the batch their answers.
                logger.exception("The answer to a request of model %s could not be handed on.", self._model)
        stats = self._stats
        stats.answered += len(requests) - failed - cancelled
        stats.failed += failed
        stats.cancelled += cancelled

    def refuse(self, requests: Collection[InferenceRequest], error: MmsError) -> int:
        """Each request gets `error`; returns how many were still wanted, for the caller to count under its own name."""
        wanted = 0
        for request in requests:
            if request.cancelled:
                continue
            wanted += 1
            try:
                request.done(error)
            except Exception:
                logger.exception("An error of a request of model %s could not be handed on.", self._model)
        self._stats.cancelled += len(requests) - wanted
        return wanted

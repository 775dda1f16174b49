"""The metrics of one call of a handler, at `context.metrics`; part of the handler kit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mms.metrics.dimension import Dimension
from mms.metrics.metric import Metric


class MetricsStore:
    """Collects metrics while a handler works on one batch.

    `request_ids` maps the index in the batch to the request's id. Each `add_...` takes `idx`, to count for one request of the
    batch instead of all, and `dimensions`, a list of Dimension. A metric of the same name, unit, request and dimensions is
    one metric: counters add up, others keep the last value.
    """

    def __init__(self, request_ids: Mapping[int, str] | str | None, model_name: str) -> None:
        self.store: list[Metric] = []
        self.request_ids = request_ids
        self.model_name = model_name
        self.cache: dict[tuple[Any, ...], Metric] = {}

    def add_counter(
        self, name: str, value: float, idx: int | None = None, dimensions: list[Dimension] | None = None
    ) -> None:
        """Add `value` to the counter."""
        self._add(name, value, "count", self._request(idx), dimensions, "counter")

    def add_time(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: list[Dimension] | None = None,
    ) -> None:
        """A duration, in `ms` or `s`; raises ValueError for another unit."""
        if unit not in ("ms", "s"):
            raise ValueError("the unit for a timed metric should be one of ['ms', 's']")
        self._add(name, value, unit, self._request(idx), dimensions)

    def add_size(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: list[Dimension] | None = None,
    ) -> None:
        """A size, in `MB`, `kB`, `GB` or `B`; raises ValueError for another unit."""
        if unit not in ("MB", "kB", "GB", "B"):
            raise ValueError("The unit for size based metric is one of ['MB','kB', 'GB', 'B']")
        self._add(name, value, unit, self._request(idx), dimensions)

    def add_percent(
        self, name: str, value: float, idx: int | None = None, dimensions: list[Dimension] | None = None
    ) -> None:
        """A share of a hundred."""
        self._add(name, value, "percent", self._request(idx), dimensions)

    def add_error(self, name: str, value: str, dimensions: list[Dimension] | None = None) -> None:
        """An error, of no particular request."""
        self._add(name, value, "", None, dimensions)

    def add_metric(
        self,
        name: str,
        value: Any,
        idx: int | None = None,
        unit: str | None = None,
        dimensions: list[Dimension] | None = None,
    ) -> None:
        """Any other metric, in a unit of the handler's own choice."""
        self._add(name, value, unit, self._request(idx), dimensions)

    def _request(self, idx: int | None) -> str | None:
        ids = self.request_ids
        if not isinstance(ids, Mapping):
            return None if ids is None else str(ids)
        if idx is not None and idx in ids:
            return ids[idx]
        return ",".join(ids.values())

    def _add(
        self,
        name: str,
        value: Any,
        unit: str | None,
        request_id: str | None,
        dimensions: Sequence[Dimension] | None,
        method: str | None = None,
    ) -> None:
        if dimensions is not None and not isinstance(dimensions, list):
            raise ValueError("Please provide a list of dimensions")
        level = [Dimension("Level", "Error")] if request_id is None else self._levels()
        # A list of its own: the caller may use the same list for the next metric.
        every = [*(dimensions or ()), *level]
        key = (name, unit, request_id, *map(str, every))
        known = self.cache.get(key)
        if known is not None:
            known.update(value)
            return
        metric = Metric(name, value, unit, every, request_id, method)
        self.cache[key] = metric
        self.store.append(metric)

    def _levels(self) -> list[Dimension]:
        return [Dimension("ModelName", self.model_name), Dimension("Level", "Model")]

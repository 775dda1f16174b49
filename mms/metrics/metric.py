"""One metric and the line that it is written as; part of the handler kit."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import Any

from mms.metrics.dimension import Dimension
from mms.metrics.unit import Units

_UNITS = Units().units
_HOST = socket.gethostname()


class Metric:
    """A named value with unit and dimensions; a counter adds up, every other kind keeps its last value.

    `request_id` is the request's id, or several joined by a comma, or None for an error metric.
    """

    def __init__(
        self,
        name: str,
        value: Any,
        unit: str | None,
        dimensions: Sequence[Dimension],
        request_id: str | None = None,
        metric_method: str | None = None,
    ) -> None:
        self.name = name
        self.value = value
        self.unit = _UNITS.get(unit, unit)
        self.dimensions = list(dimensions)
        self.request_id = request_id
        self.metric_method = metric_method
        self.timestamp = int(time.time())

    def update(self, value: Any) -> None:
        """Add to a counter; replace the value of any other metric."""
        if self.metric_method == "counter":
            self.value += value
        else:
            self.value = value

    def _line(self, tail: str) -> str:
        dimensions = ",".join(map(str, self.dimensions))
        return f"{self.name}.{self.unit}:{self.value}|#{dimensions}|#hostname:{_HOST}{tail}"

    def __str__(self) -> str:
        """The line as a worker prints it behind `[METRICS]`."""
        return self._line(f",{self.timestamp},{self.request_id}" if self.request_id else f",{self.timestamp}")

    def record(self) -> str:
        """The line as the server's metrics log has it."""
        request = f",requestID:{self.request_id}" if self.request_id else ""
        return self._line(f"{request},timestamp:{self.timestamp}")

    def to_dict(self) -> dict[str, Any]:
        """The metric as a mapping."""
        return {
            "MetricName": self.name,
            "Value": self.value,
            "Unit": self.unit,
            "Dimensions": [dimension.to_dict() for dimension in self.dimensions],
            "Timestamp": self.timestamp,
            "HostName": _HOST,
            "RequestId": self.request_id,
        }

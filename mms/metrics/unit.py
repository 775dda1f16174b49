"""Units of metrics, as handlers name them and as they are written; part of the handler kit."""

from __future__ import annotations


class Units:
    """`units` maps the short name that a handler gives to the word in the metric line."""

    def __init__(self) -> None:
        self.units: dict[str | None, str] = {
            "ms": "Milliseconds",
            "s": "Seconds",
            "percent": "Percent",
            "count": "Count",
            "MB": "Megabytes",
            "GB": "Gigabytes",
            "kB": "Kilobytes",
            "B": "Bytes",
            None: "unit",
        }

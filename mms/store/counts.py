"""What is counted of the store: plain numbers, written by its thread alone and read by the metrics."""

from __future__ import annotations


class StoreCounts:
    """Since the server began: durable commits, their `seconds` in all (witness included), and failures by kind.

    Kinds are those of `trouble.Kind`, and `unknown` for a commit whose outcome could not be found out.
    """

    __slots__ = ("commits", "failures", "seconds")

    def __init__(self) -> None:
        self.commits = 0
        self.seconds = 0.0
        self.failures: dict[str, int] = {}

    def failed(self, kind: str) -> None:
        """Count one failure."""
        self.failures[kind] = self.failures.get(kind, 0) + 1

"""What is counted of one model on the hot path: plain numbers that the metrics read later; nothing here is ever reset."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds of the buckets of every time histogram."""

ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
"""Upper bounds of the buckets of batch sizes."""


class Histogram:
    """Counts by fixed buckets: `counts[i]` lies in (`bounds[i - 1]`, `bounds[i]`], the last one above all bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, once or several times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def observe_since(self, moments: Sequence[float], now: float) -> None:
        """Count the times since several moments; those of a batch mostly lie in one bucket, which costs two looks for all."""
        bounds, counts = self.bounds, self.counts
        place = bisect_left(bounds, now - min(moments))
        if place == bisect_left(bounds, now - max(moments)):
            counts[place] += len(moments)
        else:
            for moment in moments:
                counts[bisect_left(bounds, now - moment)] += 1
        self.total += now * len(moments) - sum(moments)

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)


class ModelStats:
    """One model's counters since it came into service.

    Each accepted request ends in exactly one of `answered` (the handler's own answer, whatever its status), `failed` (the
    handler raised or answered wrongly), `died` (its worker ended), `expired` (its deadline passed in the queue), `cancelled`
    (its client went) or `dropped` (the model was taken out of service). `rejected` ones were never accepted.
    `wait` is the time in the queue, a value a request; `turn` the time of one batch in its worker's hands, with the way there
    and back; `size` the rows of a batch; `total` the time from a request's arrival to its worker's answer.
    """

    __slots__ = (
        "accepted",
        "answered",
        "batches",
        "cancelled",
        "died",
        "dropped",
        "expired",
        "failed",
        "rejected",
        "rows",
        "size",
        "total",
        "turn",
        "wait",
    )

    def __init__(self) -> None:
        self.accepted = 0
        self.answered = 0
        self.failed = 0
        self.died = 0
        self.expired = 0
        self.cancelled = 0
        self.dropped = 0
        self.rejected = 0
        self.batches = 0
        self.rows = 0
        self.wait = Histogram(SECONDS)
        self.turn = Histogram(SECONDS)
        self.size = Histogram(ROWS)
        self.total = Histogram(SECONDS)

    def batch(self, rows: int, calls: int, turn: float) -> None:
        """Count `rows` requests answered in so many calls, each of which took `turn` seconds."""
        self.batches += calls
        self.rows += rows
        self.size.observe(rows // calls, calls)
        self.turn.observe(turn, calls)

"""How long the requests of a round took: counts by microsecond, their percentiles, and what a clock would have added."""

from __future__ import annotations

import math
from collections.abc import Mapping

Counts = Mapping[int, int]
"""How many requests took so many microseconds."""


def percentile(counts: Counts, share: float) -> float:
    """Milliseconds that `share` (0 to 1) of the requests took at most, by nearest rank; 0 where there are none."""
    rank = max(math.ceil(share * sum(counts.values())), 1)
    for took in sorted(counts):
        rank -= counts[took]
        if rank <= 0:
            return took / 1000
    return 0.0


def by_clock(counts: Counts, interval: int) -> dict[int, int]:
    """What clients would have met that send every `interval` microseconds, whether they have their answer or not.

    As wrk (4.0 to 4.2, `stats_correct`) has it: a request that took two intervals or more stands for those as well that such
    a client would have sent meanwhile, each with the time that was left to it.
    """
    met = dict(counts)
    for took, count in counts.items():
        for left in _left(took, interval):
            met[left] = met.get(left, 0) + count
    return met


def sent(met: Counts, interval: int) -> dict[int, int]:
    """The requests that were sent: takes out again what `by_clock` adds, which wrk does before its script sees the counts."""
    counts = dict(met)
    # From above: what a request has added lies below it.
    for took in sorted(met, reverse=True):
        for left in _left(took, interval):
            counts[left] = counts.get(left, 0) - counts[took]
    return {took: count for took, count in counts.items() if count}


def _left(took: int, interval: int) -> range:
    return range(took - interval, interval, -interval) if took >= 2 * interval else range(0)

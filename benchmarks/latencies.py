"""How long the requests of a round took: counts by microsecond, percentiles, and what wrk adds to them."""

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


def sent(corrected: Counts, interval: int) -> dict[int, int]:
    """The requests that were sent, from the counts that wrk shows.

    Before its script sees them, wrk (4.0 to 4.2, `stats_correct`) adds to the counts. For each request that took two
    `interval`s or more, which are the mean microseconds between two requests of a connection, it adds one for each interval
    that passed meanwhile, with the time that was left: what a client would have met that sends by the clock, whether it has
    its answer or not. Here each of so many clients waits for its answer, so nobody sent those.
    """
    counts = dict(corrected)
    # From above: what a request has added lies below it, and what was added never adds.
    for took in sorted(corrected, reverse=True):
        if took < 2 * interval:
            break
        for added in range(took - interval, interval, -interval):
            counts[added] = counts.get(added, 0) - counts[took]
    return {took: count for took, count in counts.items() if count}

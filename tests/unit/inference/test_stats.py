"""Histograms: what is counted of a batch at once is what each of its requests would count by itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mms.inference.stats import SECONDS, Histogram


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20), st.floats(100, 200))
def test_times_since_several_moments_are_counted_as_each_by_itself(moments: list[float], now: float) -> None:
    together, apart = Histogram(SECONDS), Histogram(SECONDS)
    together.observe_since(moments, now)
    for moment in moments:
        apart.observe(now - moment)

    assert together.counts == apart.counts
    assert together.total == pytest.approx(apart.total)
    assert together.count == len(moments)

"""How many calls a worker may hold, and from when on the next may be sent."""

import pytest

from mms.inference.ahead import SendingAhead


@pytest.mark.parametrize(
    ("batch_size", "seconds", "batches"),
    [
        (1, 0.00002, 33),  # so fast that the way to the worker is longer than the work
        (1, 0.0005, 3),
        (8, 0.00005, 3),
        (8, 0.005, 2),
        (64, 0.005, 2),
        (8, 0.05, 2),
    ],
)
def test_a_worker_holds_as_many_calls_as_keep_it_busy(batch_size: int, seconds: float, batches: int):
    ahead = SendingAhead(batch_size)
    assert ahead.calls == 1, "nothing is known yet"
    for _ in range(50):
        ahead.answered(seconds)
    assert ahead.calls == batches
    assert ahead.ripe == 0.0


def test_a_slow_handler_gets_its_next_batch_at_once_where_its_turns_take_about_as_long():
    ahead = SendingAhead(8)
    ahead.answered(0.05)
    assert ahead.ripe == pytest.approx(0.046), "of one turn nobody knows yet whether the others are like it"
    for _ in range(20):
        ahead.answered(0.047)
        ahead.answered(0.053)
    assert ahead.ripe == 0.0
    ahead.answered(0.5)
    assert ahead.ripe > 0.05


def test_a_handler_with_long_turns_gets_its_next_batch_when_it_is_about_to_be_done_however_alike_they_are():
    ahead = SendingAhead(8)
    for _ in range(50):
        ahead.answered(2.0)
    assert ahead.ripe == pytest.approx(1.996), "a client that gives up meanwhile costs no call"


def test_a_slow_handler_whose_turns_differ_gets_its_next_batch_when_it_is_about_to_be_done():
    ahead = SendingAhead(8)
    for _ in range(50):
        ahead.answered(0.03)
        ahead.answered(0.11)
    mean = 0.03 + 0.08 / 1.9  # a tenth of each newcomer is taken in, and the last was a long one
    assert ahead.ripe == pytest.approx(mean - 0.004, abs=0.001)

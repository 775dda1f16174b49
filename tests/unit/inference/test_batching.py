import heapq
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mms.inference.batching import (
    ENOUGH_IN_VAIN,
    AdaptiveBatching,
    Batching,
    BatchingMode,
    HandlerCost,
    StrictBatching,
    batching,
)


class Run(NamedTuple):
    """What a simulated second of service came to."""

    answered: int
    batches: int
    worst_wait: float  # longest time that a request waited while a worker was free
    mean_latency: float


def simulate(
    policy: Batching,
    batch_size: int,
    arrivals: Iterator[tuple[float, Callable[[float], float] | None]],
    cost: Callable[[int], float],
    seconds: float = 2.0,
) -> Run:
    """One worker under `policy`. An arrival is a time and, for a client that comes back, from its answer to its next request."""
    events: list[tuple[float, int, str, object]] = []
    number = 0
    for at, comes_back in arrivals:
        heapq.heappush(events, (at, number, "arrive", comes_back))
        number += 1
    queue: list[tuple[float, Callable[[float], float] | None]] = []
    held: list[tuple[float, Callable[[float], float] | None]] = []
    began = free_since = worst = latency = 0.0
    answered = batches = 0
    while events and events[0][0] < seconds:
        now, _, kind, payload = heapq.heappop(events)
        if kind == "arrive":
            queue.append((now, payload))
        elif kind == "done":
            policy.answered(len(held), now - began, len(queue) + len(held))
            for arrived, comes_back in held:
                answered += 1
                latency += now - arrived
                if comes_back is not None:
                    heapq.heappush(events, (comes_back(now), number, "arrive", comes_back))
                    number += 1
            held = []
            free_since = now
        while queue and not held:
            if len(queue) < batch_size:
                hold = policy.hold(now, len(queue), queue[0][0], len(queue))
                if hold:
                    heapq.heappush(events, (max(hold, now + 1e-6), number, "look", None))
                    number += 1
                    break
            held, queue = queue[:batch_size], queue[batch_size:]
            policy.left(now, len(held))
            worst = max(worst, now - max(free_since, held[0][0]))
            began = now
            batches += 1
            heapq.heappush(events, (now + cost(len(held)), number, "done", None))
            number += 1
    return Run(answered, batches, worst, latency / max(answered, 1))


def clients(count: int, seed: int = 7, round_trip: float = 0.0002) -> Iterator[tuple[float, Callable[[float], float]]]:
    """Clients that send their next request as soon as the last one is answered, each a little different."""
    rng = random.Random(seed)
    for _ in range(count):
        yield 0.0, lambda now: now + round_trip * rng.uniform(0.5, 1.5)


def poisson(rate: float, seconds: float, seed: int = 7) -> Iterator[tuple[float, None]]:
    """Independent clients."""
    rng = random.Random(seed)
    at = 0.0
    while at < seconds:
        at += rng.expovariate(rate)
        yield at, None


# --- strict -----------------------------------------------------------------------------------------------------------


def test_strict_holds_a_batch_until_its_first_request_has_waited_the_whole_delay():
    strict = StrictBatching(batch_size=8, max_batch_delay=100)
    assert strict.hold(now=10.0, queued=1, first_arrived=10.0, outstanding=1) == pytest.approx(10.1)
    assert strict.hold(now=10.05, queued=7, first_arrived=10.0, outstanding=7) == pytest.approx(10.1)
    assert strict.hold(now=10.1, queued=7, first_arrived=10.0, outstanding=7) == 0.0


def test_strict_counts_from_arrival_not_from_when_a_worker_came_free():
    assert StrictBatching(8, 100).hold(now=10.3, queued=2, first_arrived=10.0, outstanding=2) == 0.0


def test_strict_with_no_delay_never_holds():
    assert StrictBatching(8, 0).hold(now=10.0, queued=1, first_arrived=10.0, outstanding=1) == 0.0


def test_a_changed_delay_counts_for_the_batch_that_waits_already():
    strict = StrictBatching(8, 1000)
    assert strict.hold(10.0, 1, 10.0, 1) == pytest.approx(11.0)
    strict.configure(8, 20)
    assert strict.hold(10.01, 1, 10.0, 1) == pytest.approx(10.02)


# --- adaptive ---------------------------------------------------------------------------------------------------------


def test_a_lone_client_never_waits():
    run = simulate(AdaptiveBatching(8, 5), 8, clients(1), cost=lambda n: 0.0001)
    assert run.worst_wait == 0.0
    assert run.answered > 5000


def test_eight_clients_do_not_wait_for_a_ninth():
    """Batch size 16, delay 5 ms, handler with a high fixed cost: as soon as the eight are in, they leave, not 5 ms later."""
    run = simulate(AdaptiveBatching(16, 5), 16, clients(8), cost=lambda n: 0.003)
    assert run.answered / run.batches > 7.5
    perfect = 8 * 2.0 / (0.003 + 0.0003)
    assert run.answered > 0.93 * perfect
    strict = simulate(StrictBatching(16, 5), 16, clients(8), cost=lambda n: 0.003)
    assert run.answered > 2 * strict.answered


def test_waiting_for_clients_that_come_back_beats_not_waiting_where_a_call_costs_the_same_for_any_size():
    def flat(rows: int) -> float:
        return 0.010

    no_wait = simulate(AdaptiveBatching(16, 0), 16, clients(8), cost=flat)
    run = simulate(AdaptiveBatching(16, 50), 16, clients(8), cost=flat)
    assert run.answered > 1.5 * no_wait.answered


def test_it_does_not_wait_where_each_row_costs_its_own_time():
    def linear(rows: int) -> float:
        return 0.0005 * rows

    run = simulate(AdaptiveBatching(16, 50), 16, clients(6, round_trip=0.004), cost=linear)
    no_wait = simulate(AdaptiveBatching(16, 0), 16, clients(6, round_trip=0.004), cost=linear)
    assert run.answered > 0.95 * no_wait.answered


def test_independent_clients_at_light_traffic_hardly_wait():
    no_wait = simulate(AdaptiveBatching(8, 0), 8, poisson(100, 20), cost=lambda n: 0.001, seconds=20)
    run = simulate(AdaptiveBatching(8, 100), 8, poisson(100, 20), cost=lambda n: 0.001, seconds=20)
    assert run.mean_latency < 1.1 * no_wait.mean_latency
    assert run.worst_wait < 0.005


def test_clients_that_went_away_are_waited_for_no_more():
    policy = AdaptiveBatching(16, 50)
    simulate(policy, 16, clients(8), cost=lambda n: 0.003)
    run = simulate(policy, 16, clients(2), cost=lambda n: 0.003)
    assert run.answered > 0.9 * 2 * 2.0 / (0.003 + 0.0003)


def test_one_wait_in_vain_is_enough_to_know_that_nobody_is_missing():
    policy = AdaptiveBatching(16, 50)
    for _ in range(10):
        policy.answered(8, 0.010, 8)
    until = policy.hold(now=10.0, queued=2, first_arrived=10.0, outstanding=2)
    assert until > 10.0
    assert policy.hold(until, 2, 10.0, 2) == 0.0
    policy.left(until, 2)
    assert policy.hold(20.0, 2, 20.0, 2) == 0.0


def test_more_clients_are_noticed():
    policy = AdaptiveBatching(16, 50)
    simulate(policy, 16, clients(2), cost=lambda n: 0.010)
    run = simulate(policy, 16, clients(12), cost=lambda n: 0.010)
    assert run.answered / run.batches > 10


@settings(max_examples=50)
@given(
    delay=st.integers(0, 50),
    size=st.integers(2, 16),
    count=st.integers(1, 20),
    fixed=st.floats(0.0001, 0.02),
    each=st.floats(0.0, 0.002),
    seed=st.integers(0, 100),
)
def test_a_free_worker_never_leaves_a_request_waiting_longer_than_the_delay(
    delay: int, size: int, count: int, fixed: float, each: float, seed: int
):
    for mode in BatchingMode:
        run = simulate(
            batching(mode, size, delay), size, clients(count, seed), cost=lambda n: fixed + each * n, seconds=0.5
        )
        assert run.worst_wait <= delay / 1000 + 1e-6


# --- what it learns from ----------------------------------------------------------------------------------------------


def test_the_fixed_cost_of_a_call_is_found_from_batches_of_different_sizes():
    cost = HandlerCost()
    for rows in (1, 4, 8, 2, 16, 1, 8) * 10:
        cost.learn(rows, 0.004 + 0.001 * rows)
    assert cost.fixed == pytest.approx(0.004, rel=0.01)


def test_the_fixed_cost_follows_a_handler_that_becomes_faster():
    cost = HandlerCost()
    for rows in (1, 8) * 100:
        cost.learn(rows, 0.1)
    for rows in (1, 8) * 400:
        cost.learn(rows, 0.001)
    assert cost.fixed == pytest.approx(0.001, rel=0.05)


def test_nothing_is_saved_by_a_handler_that_is_not_known():
    assert HandlerCost().fixed == 0.0


def test_a_model_waits_as_the_original_does_until_there_is_something_to_learn_from():
    policy = AdaptiveBatching(8, 100, strict_for=6)
    for at in (10.0, 20.0, 30.0, 40.0, 50.0, 60.0):
        assert policy.hold(at, 1, at, 1) == pytest.approx(at + 0.1)
        assert policy.hold(at + 0.05, 2, at, 2) == pytest.approx(at + 0.1)
        assert policy.hold(at + 0.1, 2, at, 2) == 0.0
        policy.left(at + 0.1, 2)
        policy.answered(2, 0.001, 2)
    assert policy.hold(70.0, 2, 70.0, 2) == 0.0


def test_a_new_model_learns_from_a_few_waits_in_vain_that_nobody_else_is_there():
    run = simulate(AdaptiveBatching(8, 50, strict_for=32), 8, clients(1), cost=lambda n: 0.0001, seconds=1.0)
    assert run.answered > 0.95 * (1.0 - ENOUGH_IN_VAIN * 0.05) / 0.0003

"""States and back-off, as tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mms.workers.engine import WorkerState
from mms.workers.lifecycle import BACK_OFF_SECONDS, TRANSITIONS, BackOff, IllegalTransition, advance


def test_every_state_has_a_row_and_a_way_to_the_end() -> None:
    assert set(TRANSITIONS) == set(WorkerState)
    for state in set(WorkerState) - {WorkerState.DEAD}:
        assert WorkerState.DEAD in TRANSITIONS[state]


def test_a_dead_worker_stays_dead() -> None:
    for state in WorkerState:
        with pytest.raises(IllegalTransition):
            advance(WorkerState.DEAD, state)


def test_a_worker_is_ready_only_after_it_has_loaded() -> None:
    with pytest.raises(IllegalTransition):
        advance(WorkerState.STARTING, WorkerState.READY)
    assert advance(WorkerState.LOADING, WorkerState.READY) is WorkerState.READY


@given(st.sampled_from(WorkerState), st.sampled_from(WorkerState))
def test_advance_allows_what_the_table_holds_and_nothing_else(current: WorkerState, to: WorkerState) -> None:
    if to in TRANSITIONS[current]:
        assert advance(current, to) is to
    else:
        with pytest.raises(IllegalTransition, match=f"from {current} to {to}"):
            advance(current, to)


def test_back_off_grows_by_fibonacci_and_stays_at_its_last_place() -> None:
    back_off = BackOff()
    waits = [back_off.failed() for _ in range(20)]
    assert waits[:7] == [1, 1, 2, 3, 5, 8, 13]
    assert waits[-4:] == [1597] * 4
    assert all(BACK_OFF_SECONDS[i] + BACK_OFF_SECONDS[i + 1] == BACK_OFF_SECONDS[i + 2] for i in range(1, 16))


def test_a_successful_load_resets_the_back_off() -> None:
    back_off = BackOff()
    for _ in range(9):
        back_off.failed()
    back_off.succeeded()
    assert (back_off.failures, back_off.failed()) == (0, 1.0)

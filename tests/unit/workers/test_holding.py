"""What a worker holds: answers in whole or in parts, and its own account of what it has begun."""

import os

import pytest

from mms.request import Batch, InferenceRequest
from mms.workers.engine import MAX_IN_FLIGHT
from mms.workers.frames import FrameError
from mms.workers.holding import Holding
from mms.workers.progress import Progress


def batch(count: int, *, apart: bool = False) -> Batch:
    return Batch([InferenceRequest(str(number), "m", [], [], 0.0) for number in range(count)], apart=apart)


@pytest.fixture
def worker():
    """The worker's side of a progress file, and a holding with the server's side of it."""
    descriptor = Progress.new_file()
    holding = Holding()
    theirs, holding.progress = Progress(descriptor), Progress(descriptor)
    os.close(descriptor)
    yield theirs, holding
    holding.let_go()
    theirs.close()


def test_a_batch_is_answered_whole_and_calls_in_parts() -> None:
    holding = Holding()
    first, second = batch(3), batch(3, apart=True)
    holding.add(first)
    holding.add(second)
    assert holding.answered(3) is first
    part = holding.answered(2)
    assert [request.id for request in part.requests] == ["0", "1"]
    assert [request.id for request in second.requests] == ["2"]
    assert holding.answered(1) is second
    assert not holding


@pytest.mark.parametrize(("count", "apart"), [(2, False), (4, False), (0, True), (4, True)])
def test_results_that_answer_nothing_are_refused_and_change_nothing(count: int, apart: bool) -> None:
    holding = Holding()
    with pytest.raises(FrameError, match="to no batch"):
        holding.answered(1)
    holding.add(batch(3, apart=apart))
    with pytest.raises(FrameError, match="to no batch"):
        holding.answered(count)
    assert len(holding.answered(3).requests) == 3


def test_there_is_room_for_so_many_calls_whatever_their_size() -> None:
    holding = Holding()
    holding.add(batch(MAX_IN_FLIGHT - 1, apart=True))
    assert holding.has_room_for(batch(100))
    assert not holding.has_room_for(batch(2, apart=True))


def test_what_is_begun_counts_from_the_oldest_unanswered_request_and_survives_the_end(worker) -> None:
    progress, holding = worker
    holding.add(batch(5, apart=True))
    progress.begin(1)
    progress.begin(1)
    progress.begin(1)
    assert holding.begun == 3
    holding.answered(2)
    assert holding.begun == 1
    assert len(holding.let_go()[0].requests) == 3
    assert holding.begun == 1


def test_a_worker_cannot_have_begun_less_than_nothing(worker) -> None:
    _, holding = worker
    holding.add(batch(2))
    holding.answered(2)
    assert holding.begun == 0

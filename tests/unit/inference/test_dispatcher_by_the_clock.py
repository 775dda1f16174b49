"""Decisions of the dispatcher that depend on moments, with a clock that only the test moves."""

import asyncio
from dataclasses import replace

import pytest

from mms.errors import DeadlineExceeded, WorkerDied
from mms.inference.batching import BatchingMode
from mms.inference.dispatcher import Dispatcher
from mms.request import Batch
from tests.unit.inference.building import SETTINGS, Asked, until


class Hands:
    """A worker as the dispatcher sees one: it holds batches until the test answers them."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.held: list[Batch] = []
        self.begun = 0
        self._dispatcher = dispatcher

    def send(self, batch: Batch) -> None:
        self.held.append(batch)

    @property
    def sizes(self) -> list[int]:
        return [len(batch.requests) for batch in self.held]

    def answer(self, count: int | None = None) -> None:
        """Answer the oldest batch, or so many calls of it."""
        batch = self.held[0]
        if count is None or count == len(batch.requests):
            self.held.pop(0)
        else:
            batch = Batch(batch.requests[:count], apart=True)
            del self.held[0].requests[:count]
        results = [bytes(request.parts[0][2]) for request in batch.requests]
        self._dispatcher.batch_done(self, batch, results)


class Scene:
    def __init__(self, workers: int = 1, **options: object) -> None:
        self.now = 100.0
        self.settings = replace(SETTINGS, **options)
        self.dispatcher = Dispatcher("m", self.settings, mode=BatchingMode.STRICT, clock=lambda: self.now)
        self.workers: list[Hands] = []
        for _ in range(workers):
            self.add_worker()

    def add_worker(self) -> None:
        self.workers.append(Hands(self.dispatcher))
        self.dispatcher.worker_ready(self.workers[-1])

    async def submit(self, count: int) -> list[Asked]:
        asked = [Asked("m", b"x", arrived=self.now) for _ in range(count)]
        for one in asked:
            self.dispatcher.submit(one.request)
        await asyncio.sleep(0)
        return asked

    async def be_fast(self) -> None:
        """Teach the dispatcher that a batch takes a hundred microseconds."""
        for _ in range(len(self.workers)):
            await self.submit(self.settings.batch_size)
        for worker in self.workers:
            self.now += 0.0001
            worker.answer()

    async def be_slow_and_even(self) -> None:
        """Teach it that each takes fifty milliseconds."""
        for _ in range(30):
            await self.submit(self.settings.batch_size * len(self.workers))
            self.now += 0.05
            for worker in self.workers:
                worker.answer()


async def test_only_a_full_batch_is_sent_ahead_and_as_soon_as_it_is_full():
    scene = Scene(batch_size=4, max_batch_delay=0)
    await scene.be_fast()
    await scene.submit(7)
    assert scene.workers[0].sizes == [4]
    await scene.submit(1)
    assert scene.workers[0].sizes == [4, 4]
    scene.dispatcher.close()


async def test_a_slow_handler_gets_its_next_batch_when_it_is_about_to_be_done():
    """Earlier, the batch would be lost to a worker that comes free before; later, the worker would stand still."""
    scene = Scene()
    await scene.submit(1)
    scene.now += 0.03
    scene.workers[0].answer()
    await scene.submit(3)
    assert scene.workers[0].sizes == [1]
    assert scene.dispatcher.depth == 2
    scene.now += 0.027
    await until(lambda: scene.workers[0].sizes == [1, 1])
    scene.dispatcher.close()


async def test_a_slow_handler_whose_turns_are_alike_gets_its_next_batch_at_once():
    scene = Scene(batch_size=4)
    await scene.be_slow_and_even()
    await scene.submit(12)
    assert scene.workers[0].sizes == [4, 4], "one ahead, and no more"
    assert scene.dispatcher.depth == 8
    scene.dispatcher.close()


async def test_what_is_sent_ahead_goes_to_the_worker_that_is_the_next_to_come_free():
    scene = Scene(workers=3)
    await scene.be_slow_and_even()
    for _ in scene.workers:
        await scene.submit(1)
        scene.now += 0.01
    busy: list[list[int]] = []
    for _ in scene.workers:
        await scene.submit(1)
        busy.append([len(worker.held) for worker in scene.workers])
    assert busy == [[1, 1, 2], [1, 2, 2], [2, 2, 2]], "the last to come free was the first to be asked again"
    scene.dispatcher.close()


async def test_a_slow_handler_that_should_have_been_back_long_ago_gets_nothing_more():
    scene = Scene()
    await scene.submit(1)
    scene.now += 0.03
    scene.workers[0].answer()
    await scene.submit(2)
    scene.now += 0.2
    await until(lambda: scene.dispatcher._hold_timer is None)
    assert scene.workers[0].sizes == [1]
    scene.dispatcher.close()


async def test_nothing_is_sent_ahead_to_a_worker_whose_turn_lasts_too_long():
    scene = Scene()
    await scene.be_fast()
    await scene.submit(1)
    scene.now += 0.01
    await scene.submit(1)
    assert scene.workers[0].sizes == [1]
    scene.dispatcher.close()


async def test_batches_ahead_go_to_the_worker_that_holds_the_fewest():
    scene = Scene(workers=2)
    await scene.be_fast()
    await scene.submit(6)
    assert [sum(worker.sizes) for worker in scene.workers] == [3, 3]
    scene.dispatcher.close()


async def test_a_worker_that_is_let_go_gets_nothing_ahead_any_more():
    scene = Scene(workers=2)
    await scene.be_fast()
    await scene.submit(2)
    await scene.dispatcher.release(scene.workers[0])
    await scene.submit(4)
    assert [sum(worker.sizes) for worker in scene.workers] == [1, 5]
    scene.dispatcher.close()


async def test_what_stood_behind_a_dead_workers_batch_waits_again_and_counts_once():
    scene = Scene()
    await scene.be_fast()
    head, *rest = await scene.submit(4)
    assert (scene.dispatcher.depth, scene.dispatcher.in_flight) == (3, 4)
    scene.workers[0].begun = 1
    scene.dispatcher.worker_gone(scene.workers[0], WorkerDied(), scene.workers[0].held)
    assert isinstance(head.result, WorkerDied)
    assert (scene.dispatcher.depth, scene.dispatcher.in_flight) == (3, 3)
    scene.add_worker()
    await asyncio.sleep(0)
    while scene.workers[1].held:
        scene.workers[1].answer()
    assert [one.calls for one in rest] == [1, 1, 1]
    assert (scene.dispatcher.depth, scene.dispatcher.in_flight) == (0, 0)
    scene.dispatcher.close()


async def test_requests_of_batch_size_one_travel_together_and_may_be_answered_in_parts():
    scene = Scene()
    await scene.be_fast()
    asked = await scene.submit(20)
    assert scene.workers[0].sizes == [11], "a millisecond of work at a tenth of a millisecond each"
    scene.now += 0.0005
    scene.workers[0].answer(5)
    assert [one.calls for one in asked] == [1] * 5 + [0] * 15
    assert (scene.dispatcher.depth, scene.dispatcher.in_flight) == (14, 15)
    await asyncio.sleep(0)
    assert scene.workers[0].sizes == [6, 5]
    scene.workers[0].begun = 8
    scene.dispatcher.worker_gone(scene.workers[0], WorkerDied(), scene.workers[0].held)
    assert [isinstance(one.result, WorkerDied) for one in asked] == [False] * 5 + [True] * 8 + [False] * 7
    assert (scene.dispatcher.depth, scene.dispatcher.in_flight) == (7, 7)
    assert scene.dispatcher.stats.batches == scene.dispatcher.stats.rows == 6, "each is a call of its own"
    scene.dispatcher.close()


async def test_several_workers_share_what_waits():
    scene = Scene(workers=3)
    await scene.be_fast()
    await scene.submit(7)
    assert [sum(worker.sizes) for worker in scene.workers] == [2, 2, 3]
    scene.dispatcher.close()


async def test_what_a_dead_worker_had_not_begun_costs_nobody_an_answer():
    scene = Scene(batch_size=4, max_batch_delay=0)
    asked = await scene.submit(4)
    scene.dispatcher.worker_gone(scene.workers[0], WorkerDied(), scene.workers[0].held)
    assert [one.calls for one in asked] == [0] * 4
    scene.add_worker()
    await asyncio.sleep(0)
    scene.workers[1].answer()
    assert [one.calls for one in asked] == [1] * 4
    scene.dispatcher.close()


async def test_a_request_whose_deadline_has_passed_is_not_sent_even_where_no_timer_has_looked():
    scene = Scene(workers=0)
    (late,) = await scene.submit(1)
    scene.now += scene.settings.response_timeout + scene.settings.startup_timeout
    (in_time,) = await scene.submit(1)
    scene.add_worker()
    await asyncio.sleep(0)
    assert isinstance(late.result, DeadlineExceeded)
    assert scene.workers[0].sizes == [1]
    scene.workers[0].answer()
    assert isinstance(in_time.result, bytes)
    scene.dispatcher.close()


@pytest.mark.parametrize("busy", [False, True])
async def test_the_next_full_batch_leaves_before_the_answers_of_the_last_are_handed_on(busy: bool):
    """A worker that stands still comes before clients that can wait another moment."""
    scene = Scene(batch_size=2, max_batch_delay=1000)
    first = await scene.submit(2)
    await scene.submit(2 if busy else 1)
    held_at_answer: list[list[int]] = []
    done = first[0].request.done

    def note(result):
        held_at_answer.append(scene.workers[0].sizes)
        done(result)

    first[0].request.done = note
    scene.workers[0].answer()
    assert held_at_answer == [[2] if busy else []]
    scene.dispatcher.close()

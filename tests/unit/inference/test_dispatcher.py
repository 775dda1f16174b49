import asyncio
import time
from dataclasses import replace

import pytest

from mms.errors import DeadlineExceeded, NoWorkerAvailable, PredictionFailed, WorkerDied
from mms.inference.registry import ServedModel
from mms.workers.engine import WorkerState
from tests.unit.inference.building import SETTINGS, Asked, Gate, ask, bodies, echo, raises, served
from tests.unit.inference.memory_engine import MemoryEngine, MemoryWorker

FULL = "No worker is available to serve request for model: m. Consider increasing job queue size."


@pytest.fixture
async def gate() -> Gate:
    return Gate()


def named(*numbers: int) -> list[bytes]:
    return [b"%d" % number for number in numbers]


def adds_up(model: ServedModel) -> bool:
    """Whether each accepted request has ended in one of the counters."""
    s = model.stats
    return s.accepted == s.answered + s.failed + s.died + s.expired + s.cancelled + s.dropped


# --- batches ----------------------------------------------------------------------------------------------------------


async def test_requests_of_one_turn_of_the_loop_share_a_batch(gate: Gate):
    model = served(MemoryEngine(gate), batch_size=4, max_batch_delay=10_000)
    await model.scale(1, 1)
    asked = ask(model, *named(1, 2, 3, 4))
    await gate.entered()
    gate.let()
    assert await bodies(asked) == named(1, 2, 3, 4)
    assert gate.batches == [named(1, 2, 3, 4)]
    await model.close()


async def test_a_batch_that_is_not_full_leaves_when_its_first_request_has_waited_the_delay():
    model = served(MemoryEngine(echo), batch_size=4, max_batch_delay=30)
    await model.scale(1, 1)
    began = time.monotonic()
    first = ask(model, b"1")
    await asyncio.sleep(0.015)
    second = ask(model, b"2")
    await bodies([*first, *second])
    assert 0.028 <= time.monotonic() - began < 0.3
    assert (model.stats.batches, model.stats.rows) == (1, 2)
    await model.close()


async def test_a_full_batch_does_not_wait():
    model = served(MemoryEngine(echo), batch_size=2, max_batch_delay=60_000)
    await model.scale(1, 1)
    first = ask(model, b"1")
    await asyncio.sleep(0.01)
    assert first[0].result is None
    await bodies([*first, *ask(model, b"2")])
    await model.close()


async def test_the_delay_may_pass_while_every_worker_is_busy(gate: Gate):
    model = served(MemoryEngine(gate), batch_size=4, max_batch_delay=20)
    await model.scale(1, 1)
    first = ask(model, *named(1, 2, 3, 4))
    await gate.entered()
    late = ask(model, b"5")
    await asyncio.sleep(0.03)
    assert gate.batches == [named(1, 2, 3, 4)]
    gate.let(2)
    await bodies([*first, *late])
    assert gate.batches[1] == named(5)
    await model.close()


async def test_requests_are_answered_in_the_order_of_their_arrival():
    order: list[bytes] = []

    async def note(worker: MemoryWorker, requests):
        order.extend(request.parts[0][2] for request in requests)
        return await echo(worker, requests)

    model = served(MemoryEngine(note), batch_size=3, max_batch_delay=1)
    await model.scale(1, 1)
    asked = []
    for start in range(0, 50, 5):
        asked += ask(model, *named(*range(start, start + 5)))
        await asyncio.sleep(0)
    await bodies(asked)
    assert order == named(*range(50))
    await model.close()


async def test_workers_assemble_side_by_side(gate: Gate):
    engine = MemoryEngine(gate)
    model = served(engine, batch_size=2, max_batch_delay=10_000, min_workers=3, max_workers=3)
    await model.scale(3, 3)
    asked = ask(model, *named(1, 2, 3, 4, 5, 6))
    for _ in range(3):
        await gate.entered()
    assert [worker.sizes for worker in engine.workers] == [[2], [2], [2]]
    gate.let(3)
    await bodies(asked)
    await model.close()


async def test_a_slow_request_holds_nobody_up_that_came_after_it():
    """Also where all before it were so fast that batches are sent ahead."""
    let = asyncio.Event()

    async def slow_on_demand(worker: MemoryWorker, requests):
        if requests[0].parts[0][2] == b"slow":
            await let.wait()
        return await echo(worker, requests)

    model = served(MemoryEngine(slow_on_demand), min_workers=2, max_workers=2)
    await model.scale(2, 2)
    for number in range(20):
        await bodies(ask(model, b"%d" % number))
    slow = ask(model, b"slow")
    await asyncio.sleep(0.02)
    assert await bodies(ask(model, *named(*range(40)))) == named(*range(40))
    let.set()
    await bodies(slow)
    await model.close()


# --- the bound --------------------------------------------------------------------------------------------------------


async def test_a_full_queue_refuses_at_once_with_the_words_of_mms(gate: Gate):
    model = served(MemoryEngine(gate), job_queue_size=2)
    await model.scale(1, 1)
    asked = ask(model, b"running")
    await gate.entered()
    asked += ask(model, b"1", b"2")
    assert model.queue_depth == 2
    with pytest.raises(NoWorkerAvailable) as refused:
        ask(model, b"3")
    assert refused.value.message == FULL
    gate.let(3)
    assert await bodies(asked) == [b"running", b"1", b"2"]
    gate.let()
    await bodies(ask(model, b"room again"))
    assert model.stats.rejected == 1
    await model.close()


async def test_what_is_sent_ahead_counts_as_waiting(gate: Gate):
    """A fast handler gets batches ahead; the queue's bound is the same for it."""
    model = served(MemoryEngine(gate), job_queue_size=2)
    await model.scale(1, 1)
    gate.let(20)
    await bodies(ask(model, *named(1, 2)))
    for number in range(18):
        await bodies(ask(model, b"%d" % number))
    while gate._entered._value:
        await gate.entered()
    running = ask(model, b"running")
    await gate.entered()
    waiting = ask(model, b"1", b"2")
    await asyncio.sleep(0.01)
    assert model.queue_depth == 2
    with pytest.raises(NoWorkerAvailable):
        ask(model, b"3")
    gate.let(3)
    await bodies([*running, *waiting])
    await model.close()


async def test_a_queue_smaller_than_a_batch_still_fills_a_batch_of_a_free_worker(gate: Gate):
    model = served(MemoryEngine(gate), job_queue_size=1, batch_size=4, max_batch_delay=10_000)
    await model.scale(1, 1)
    asked = ask(model, *named(1, 2, 3, 4))
    await gate.entered()
    gate.let()
    await bodies(asked)
    await model.close()


async def test_requests_whose_client_has_gone_make_room_in_a_full_queue(gate: Gate):
    model = served(MemoryEngine(gate), job_queue_size=2)
    await model.scale(1, 1)
    running = ask(model, b"running")
    await gate.entered()
    gone = ask(model, b"1", b"2")
    for one in gone:
        one.request.cancelled = True
    kept = ask(model, b"3")
    gate.let(2)
    await bodies([*running, *kept])
    assert gate.batches == [[b"running"], [b"3"]]
    assert [one.calls for one in gone] == [0, 0]
    assert adds_up(model)
    await model.close()


# --- requests that are not wanted any more ----------------------------------------------------------------------------


async def test_a_request_whose_client_has_gone_costs_no_worker_anything(gate: Gate):
    model = served(MemoryEngine(gate), batch_size=2, max_batch_delay=0)
    await model.scale(1, 1)
    running = ask(model, b"running")
    await gate.entered()
    asked = ask(model, *named(1, 2, 3, 4))
    asked[0].request.cancelled = asked[2].request.cancelled = True
    gate.let(3)
    await bodies([*running, asked[1], asked[3]])
    assert gate.batches == [[b"running"], named(2, 4)]
    await model.drain(5)
    assert asked[0].calls == asked[2].calls == 0
    assert model.stats.cancelled == 2
    assert adds_up(model)
    await model.close()


async def test_a_batch_that_was_full_of_gone_clients_waits_again(gate: Gate):
    model = served(MemoryEngine(gate), batch_size=2, max_batch_delay=30)
    await model.scale(1, 1)
    asked = ask(model, b"kept", b"gone")
    asked[1].request.cancelled = True
    await asyncio.sleep(0.01)
    assert gate.batches == []
    asked += ask(model, b"new")
    await gate.entered()
    assert gate.batches == [[b"kept", b"new"]]
    gate.let()
    await bodies([asked[0], asked[2]])
    await model.close()


async def test_a_request_past_its_deadline_is_refused_without_a_worker_even_where_none_comes():
    async def never_loads(_: MemoryWorker) -> None:
        await asyncio.Event().wait()

    model = served(MemoryEngine(echo, never_loads), response_timeout=0.02, startup_timeout=0.03)
    model.scale_soon(1, 1)
    (asked,) = ask(model, b"1")
    result = await asked.answer()
    assert isinstance(result, DeadlineExceeded)
    assert result.message == "No worker of model m was free within 0.05 seconds."
    assert model.stats.expired == 1
    await model.close()


async def test_a_request_that_waited_too_long_behind_others_never_reaches_the_worker(gate: Gate):
    model = served(MemoryEngine(gate), response_timeout=0.02, startup_timeout=0.02)
    await model.scale(1, 1)
    running = ask(model, b"running")
    await gate.entered()
    (late,) = ask(model, b"late")
    assert isinstance(await late.answer(), DeadlineExceeded)
    gate.let(2)
    await bodies([*running, *ask(model, b"in time")])
    assert gate.batches == [[b"running"], [b"in time"]]
    await model.close()


# --- failures ---------------------------------------------------------------------------------------------------------


async def test_an_error_of_the_whole_batch_reaches_each_of_its_requests():
    model = served(MemoryEngine(raises(PredictionFailed("Prediction failed"))), batch_size=2)
    await model.scale(1, 1)
    results = [await one.answer() for one in ask(model, b"1", b"2")]
    assert [result.message for result in results] == ["Prediction failed"] * 2
    assert model.stats.failed == 2
    await model.close()


async def test_an_answer_with_too_few_results_is_an_error_of_the_batch():
    async def short(worker, requests):
        return (await echo(worker, requests))[:-1]

    model = served(MemoryEngine(short), batch_size=2)
    await model.scale(1, 1)
    results = [await one.answer() for one in ask(model, b"1", b"2")]
    assert [(type(r), r.message) for r in results] == [(PredictionFailed, "number of batch response mismatched")] * 2
    await model.close()


async def test_a_front_end_that_fails_on_one_answer_does_not_cost_its_neighbours_theirs(caplog):
    model = served(MemoryEngine(echo), batch_size=3, max_batch_delay=10_000)
    await model.scale(1, 1)
    broken = Asked()

    def fail(_):
        raise RuntimeError("the connection is in a wrong state")

    broken.request.done = fail
    model.submit(broken.request)
    assert await bodies(ask(model, b"2", b"3")) == [b"2", b"3"]
    assert "could not be handed on" in caplog.text
    assert await bodies(ask(model, b"4", b"5", b"6")) == [b"4", b"5", b"6"]
    await model.close()


@pytest.mark.usefixtures("quick_back_off")
async def test_a_dead_workers_batch_fails_and_the_queue_waits_for_its_replacement(gate: Gate):
    engine = MemoryEngine(gate)
    model = served(engine, batch_size=2, max_batch_delay=0)
    await model.scale(1, 1)
    lost = ask(model, b"1", b"2")
    await gate.entered()
    waiting = ask(model, b"3", b"4")
    engine.workers[0].kill()
    results = [await one.answer() for one in lost]
    assert [(type(r), r.message) for r in results] == [(WorkerDied, "Worker died.")] * 2
    gate.let()
    assert await bodies(waiting) == [b"3", b"4"]
    assert len(engine.workers) == 2
    assert adds_up(model)
    assert model.last_error == "Worker died."
    await model.close()


@pytest.mark.usefixtures("quick_back_off")
async def test_batches_sent_ahead_to_a_worker_that_dies_go_back_to_the_head_of_the_queue(gate: Gate):
    engine = MemoryEngine(gate)
    model = served(engine)
    await model.scale(1, 1)
    gate.let(20)
    for number in range(20):
        await bodies(ask(model, b"%d" % number))
        await gate.entered()
    gate.batches.clear()
    head, *rest = ask(model, b"head", *named(1, 2, 3))
    await gate.entered()
    assert sum(len(batch.requests) for batch in engine.workers[0]._held) == 4
    engine.workers[0].kill()
    assert isinstance(await head.answer(), WorkerDied)
    gate.let(3)
    assert await bodies(rest) == named(1, 2, 3)
    assert gate.batches == [[b"head"], [b"1"], [b"2"], [b"3"]]
    await model.close()


async def test_with_no_worker_wanted_nothing_is_accepted():
    model = served(MemoryEngine(echo), min_workers=0, max_workers=0)
    with pytest.raises(NoWorkerAvailable, match="Consider increasing job queue size"):
        ask(model, b"1")
    await model.scale(1, 1)
    await bodies(ask(model, b"1"))
    await model.scale(0, 0)
    with pytest.raises(NoWorkerAvailable):
        ask(model, b"1")
    await model.close()


# --- changes while running --------------------------------------------------------------------------------------------


async def test_a_new_batch_size_holds_for_the_very_next_batch(gate: Gate):
    model = served(MemoryEngine(gate), batch_size=1)
    await model.scale(1, 1)
    first = ask(model, b"0")
    await gate.entered()
    waiting = ask(model, *named(1, 2, 3, 4))
    model.configure(replace(SETTINGS, batch_size=4))
    gate.let(2)
    await bodies([*first, *waiting])
    assert gate.batches == [[b"0"], named(1, 2, 3, 4)]
    model.configure(replace(SETTINGS, batch_size=2))
    gate.let(2)
    await bodies(ask(model, *named(5, 6, 7, 8)))
    assert gate.batches[2:] == [named(5, 6), named(7, 8)]
    await model.close()


async def test_a_shorter_delay_frees_the_batch_that_waits():
    model = served(MemoryEngine(echo), batch_size=4, max_batch_delay=60_000)
    await model.scale(1, 1)
    asked = ask(model, b"1")
    await asyncio.sleep(0.01)
    assert asked[0].result is None
    model.configure(replace(SETTINGS, batch_size=4, max_batch_delay=1))
    await bodies(asked)
    await model.close()


async def test_a_shorter_time_limit_counts_for_those_who_wait_already(gate: Gate):
    model = served(MemoryEngine(gate))
    await model.scale(1, 1)
    running = ask(model, b"running")
    await gate.entered()
    (late,) = ask(model, b"late")
    model.configure(replace(SETTINGS, response_timeout=0.01, startup_timeout=0.01))
    assert isinstance(await late.answer(), DeadlineExceeded)
    gate.let()
    await bodies(running)
    await model.close()


async def test_a_smaller_queue_refuses_new_ones_and_loses_none(gate: Gate):
    model = served(MemoryEngine(gate))
    await model.scale(1, 1)
    asked = ask(model, b"running")
    await gate.entered()
    asked += ask(model, *named(1, 2, 3))
    model.configure(replace(SETTINGS, job_queue_size=1))
    with pytest.raises(NoWorkerAvailable):
        ask(model, b"4")
    gate.let(4)
    await bodies(asked)
    await model.close()


async def test_waiting_for_the_last_answer(gate: Gate):
    model = served(MemoryEngine(gate))
    await model.scale(1, 1)
    asked = ask(model, b"1", b"2")
    idle = asyncio.create_task(model.idle())
    await gate.entered()
    assert not idle.done()
    gate.let(2)
    async with asyncio.timeout(5):
        await idle
    assert all(one.result is not None for one in asked)
    assert [worker.state for worker in model.workers] == [WorkerState.READY]
    assert isinstance(asked[1].result, bytes)
    await model.close()


async def test_waiting_for_the_last_answer_ends_where_the_last_request_expires():
    async def never_loads(_: MemoryWorker) -> None:
        await asyncio.Event().wait()

    model = served(MemoryEngine(echo, never_loads), response_timeout=0.01, startup_timeout=0.02)
    model.scale_soon(1, 1)
    ask(model, b"1")
    async with asyncio.timeout(2):
        await model.idle()
    await model.close()


async def test_a_worker_that_has_ended_unnoticed_costs_no_request(gate: Gate):
    """Between a worker's end and the word of it, its `send` raises: the batch waits for another worker."""
    engine = MemoryEngine(gate)
    model = served(engine, min_workers=2, max_workers=2)
    await model.scale(2, 2)
    last = engine.workers[1]

    def ended(_: object) -> None:
        raise RuntimeError("it takes no batch")

    last.send = ended
    asked = ask(model, b"1")
    gate.let()
    assert await bodies(asked) == [b"1"]
    assert engine.workers[0].sizes == [1]
    last.kill()
    gate.let(2)
    assert await bodies(ask(model, b"2", b"3")) == [b"2", b"3"]
    assert adds_up(model)
    await model.close()

"""Every way in which a worker fails to load or comes to its end, with real processes."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from mms.errors import LoadFailed, WorkerDied
from mms.request import Batch
from mms.workers.engine import WorkerState
from mms.workers.local import LocalEngine
from tests.unit.workers.handling import ACTOR, ECHO, Ear, Start, gone, request, spec, until, write_model

pytestmark = pytest.mark.asyncio(loop_scope="module")


# --- failing to load --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "words", "detail", "memory"),
    [
        (
            "def handle(data, context):\n    raise RuntimeError('no weights')",
            "RuntimeError: no weights",
            "line 2",
            False,
        ),
        ("def handle(data, context):\n    raise MemoryError('full')", "MemoryError: full", "MemoryError", True),
        ("import nothing_of_that_name", "No module named", "Traceback", False),
        ("import os\ndef handle(data, context):\n    os._exit(5)", "exited with status 5", "", False),
        ("import sys\ndef handle(data, context):\n    sys.exit('sorry')", "SystemExit: sorry", "", False),
        ("import ctypes\ndef handle(data, context):\n    ctypes.string_at(0)", "SIGSEGV", "Segmentation fault", False),
        ("import os\ndef handle(data, context):\n    os.kill(os.getpid(), 9)", "out of memory", "", True),
    ],
)
async def test_a_load_that_fails_says_why(start: Start, source: str, words: str, detail: str, memory: bool) -> None:
    with pytest.raises(LoadFailed) as caught:
        await start(source)
    assert words in caught.value.message
    assert detail in caught.value.detail
    assert caught.value.out_of_memory is memory
    assert not caught.value.environment


async def test_a_load_that_takes_too_long_is_given_up(engine: LocalEngine, tmp_path: Path) -> None:
    source = "import time\ndef handle(data, context):\n    time.sleep(60)"
    worker = engine.worker(spec(write_model(tmp_path / "m", source), startup_timeout=0.3))
    ear = Ear()
    with pytest.raises(LoadFailed, match=r"did not load model m within 0\.3 s"):
        await worker.start(ear)
    assert worker.state is WorkerState.DEAD
    assert ear.ends.empty()


async def test_a_load_that_nobody_waits_for_any_more_ends(engine: LocalEngine, tmp_path: Path) -> None:
    source = "import time\ndef handle(data, context):\n    print('loading', flush=True)\n    time.sleep(60)"
    worker = engine.worker(spec(write_model(tmp_path / "m", source)))
    starting = asyncio.create_task(worker.start(Ear()))
    await until(lambda: worker.state is WorkerState.LOADING)
    pid = worker.pid
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await asyncio.wait_for(asyncio.shield(worker.gone), 5)
    assert gone(pid)


async def test_a_stop_while_loading_ends_the_load(engine: LocalEngine, tmp_path: Path) -> None:
    source = "import time\ndef handle(data, context):\n    time.sleep(60)"
    worker = engine.worker(spec(write_model(tmp_path / "m", source)))
    starting = asyncio.create_task(worker.start(Ear()))
    await until(lambda: worker.state is WorkerState.LOADING)
    await worker.stop(5)
    with pytest.raises(LoadFailed, match="stopped while it was loading"):
        await starting


async def test_a_worker_stopped_before_its_start_never_runs(engine: LocalEngine, tmp_path: Path) -> None:
    worker = engine.worker(spec(write_model(tmp_path / "m", ECHO)))
    await worker.stop(1)
    with pytest.raises(LoadFailed, match="stopped before it started"):
        await worker.start(Ear())


async def test_a_runtime_that_is_not_there_fails_the_load(start: Start) -> None:
    with pytest.raises(LoadFailed, match="python2 is not installed"):
        await start(runtime="python2")


# --- ending ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "words"),
    [
        ("os._exit(0)", "exited with status 0"),
        ("sys.exit(4)", "exited with status 4"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9 (SIGKILL): most likely out of memory"),
        ("ctypes.string_at(0)", "killed by signal 11 (SIGSEGV)"),
        ("os.abort()", "killed by signal 6 (SIGABRT)"),
    ],
)
async def test_a_death_is_told_with_its_reason_and_what_was_not_answered(start: Start, act: str, words: str) -> None:
    worker, ear = await start(ACTOR)
    first, second = Batch([request(act.encode())]), Batch([request(b"1")])
    worker.send(first)
    worker.send(second)
    error, unanswered = await ear.end()
    assert isinstance(error, WorkerDied)
    assert error.message == "Worker died."
    assert words in error.detail
    assert list(unanswered) == [first, second]
    assert worker.state is WorkerState.DEAD


async def test_a_death_among_calls_that_came_together_is_told_to_the_call(start: Start) -> None:
    """What was begun is known even where its answers had not left; what was not can be given to another worker."""
    worker, ear = await start(ACTOR)
    worker.send(Batch([request(act) for act in (b"1", b"2", b"os._exit(3)", b"4", b"5")], apart=True))
    _, unanswered = await ear.end()
    answered = 5 - sum(len(batch.requests) for batch in unanswered)
    assert answered + worker.begun == 3


async def test_nothing_is_begun_by_a_worker_that_never_looked(start: Start) -> None:
    worker, ear = await start(ACTOR)
    os.kill(worker.pid, signal.SIGSTOP)
    worker.send(Batch([request(b"1"), request(b"2")]))
    worker.kill()
    await ear.end()
    assert worker.begun == 0


async def test_answers_written_before_the_death_still_count(start: Start) -> None:
    worker, ear = await start(ACTOR)
    worker.send(Batch([request(b"'first'")]))
    worker.send(Batch([request(b"os._exit(1)")]))
    assert await ear.answer() == [b"first"]
    _, unanswered = await ear.end()
    assert len(unanswered) == 1


async def test_a_worker_that_does_not_answer_in_time_is_killed(start: Start) -> None:
    worker, ear = await start(ACTOR, response_timeout=0.3)
    worker.send(Batch([request(b"time.sleep(60)")]))
    began = time.monotonic()
    error, unanswered = await ear.end()
    assert 0.2 < time.monotonic() - began < 3
    assert isinstance(error, WorkerDied)
    assert "did not answer within 0.3 s" in error.detail
    assert len(unanswered) == 1


async def test_the_time_of_a_batch_begins_when_its_turn_does(start: Start) -> None:
    worker, ear = await start(ACTOR, response_timeout=0.8)
    for _ in range(4):
        worker.send(Batch([request(b"time.sleep(0.4) or 'slept'")]))
    assert [await ear.answer() for _ in range(4)] == [[b"slept"]] * 4
    await worker.stop(5)


async def test_a_shorter_timeout_holds_for_the_batch_at_work(start: Start) -> None:
    worker, ear = await start(ACTOR, response_timeout=60)
    worker.send(Batch([request(b"time.sleep(60)")]))
    worker.configure(batch_size=1, response_timeout=0.2, max_response_size=100)
    error, _ = await ear.end()
    assert isinstance(error, WorkerDied)
    assert "within 0.2 s" in error.detail


async def test_a_stop_lets_it_finish_what_it_holds(start: Start) -> None:
    worker, ear = await start(ACTOR)
    worker.send(Batch([request(b"time.sleep(0.3) or 'slept'")]))
    worker.send(Batch([request(b"'next'")]))
    await worker.stop(10)
    assert [await ear.answer(), await ear.answer()] == [[b"slept"], [b"next"]]
    assert list((await ear.end())[1]) == []


async def test_a_stop_kills_what_does_not_finish_within_the_grace(start: Start) -> None:
    worker, ear = await start(ACTOR)
    worker.send(Batch([request(b"time.sleep(60)")]))
    await worker.stop(0.2)
    error, unanswered = await ear.end()
    assert (error.message, len(unanswered)) == ("Worker scaled down.", 1)


async def test_a_stop_does_not_wait_for_a_worker_that_holds_nothing_and_hangs(start: Start) -> None:
    worker, _ = await start(ACTOR)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    await asyncio.wait_for(worker.stop(60), 20)
    assert worker.state is WorkerState.DEAD


async def test_signals_for_the_whole_group_do_not_end_a_worker(start: Start) -> None:
    worker, ear = await start(ACTOR)
    assert worker.pid is not None
    worker.send(Batch([request(b"time.sleep(0.3) or 'slept'")]))
    os.kill(worker.pid, signal.SIGINT)
    os.kill(worker.pid, signal.SIGTERM)
    assert await ear.answer() == [b"slept"]
    await worker.stop(5)


async def test_a_worker_that_writes_nonsense_is_killed(start: Start) -> None:
    source = """
        import os, stat
        def handle(data, context):
            if data is None:
                return
            for number in range(3, 64):
                try:
                    if stat.S_ISSOCK(os.fstat(number).st_mode):
                        os.write(number, b"\\x01" * 64)
                except OSError:
                    pass
            return ["x"]
    """
    worker, ear = await start(source)
    worker.send(Batch([request()]))
    error, unanswered = await ear.end()
    assert isinstance(error, WorkerDied)
    assert "sent what is no answer" in error.detail
    assert len(unanswered) == 1


async def test_a_grandchild_that_holds_everything_open_does_not_hide_the_death(start: Start) -> None:
    source = """
        import os, time
        def handle(data, context):
            if data is None:
                return
            pid = os.fork()
            if pid == 0:
                time.sleep(20)
                os._exit(0)
            with open("grandchild", "w") as file:
                file.write(str(pid))
            os._exit(3)
    """
    worker, ear = await start(source)
    worker.send(Batch([request()]))
    error, _ = await ear.end()
    assert isinstance(error, WorkerDied)
    assert "exited with status 3" in error.detail

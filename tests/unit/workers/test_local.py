"""The engine of local processes, with real processes: working, its fork server, its end."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from mms.errors import WorkerDied
from mms.request import Batch, InferenceRequest
from mms.workers.engine import MAX_IN_FLIGHT, WorkerState
from mms.workers.fork_launcher import ForkServerLauncher
from mms.workers.local import LocalEngine, StartMethod
from tests.unit.workers.handling import ACTOR, ECHO, Ear, Start, gone, open_files, request, spec, until, write_model

pytestmark = pytest.mark.asyncio(loop_scope="module")


# --- working ---------------------------------------------------------------------------------------------------------


async def test_a_worker_loads_answers_and_stops(start: Start) -> None:
    worker, ear = await start()
    assert worker.state is WorkerState.READY
    assert worker.memory_usage > 1_000_000
    pid = worker.pid
    worker.send(Batch([request(b"one"), request(b"two")]))
    assert worker.state is WorkerState.BUSY
    assert await ear.answer() == [b"one", b"two"]
    assert worker.state is WorkerState.READY
    await worker.stop(5)
    error, unanswered = await ear.end()
    assert (error.message, list(unanswered)) == ("Worker scaled down.", [])
    assert (worker.state, worker.pid, worker.memory_usage) == (WorkerState.DEAD, None, 0)
    assert gone(pid)


async def test_batches_are_answered_in_the_order_in_which_they_were_sent(start: Start) -> None:
    worker, ear = await start()
    for number in range(MAX_IN_FLIGHT):
        worker.send(Batch([request(str(number).encode())]))
    with pytest.raises(RuntimeError, match="would hold more than"):
        worker.send(Batch([request()]))
    assert [await ear.answer() for _ in range(MAX_IN_FLIGHT)] == [[str(n).encode()] for n in range(MAX_IN_FLIGHT)]
    await worker.stop(5)
    with pytest.raises(RuntimeError, match="DEAD"):
        worker.send(Batch([request()]))


async def test_calls_that_come_together_are_answered_one_by_one(start: Start) -> None:
    worker, ear = await start()
    bodies = [str(number).encode() for number in range(MAX_IN_FLIGHT)]
    worker.send(Batch([request(body) for body in bodies], apart=True))
    answered: list[bytes] = []
    while len(answered) < len(bodies):
        answered += await ear.answer()
    assert answered == bodies
    assert worker.begun == 0
    await worker.stop(5)


async def test_payloads_of_megabytes_go_both_ways(start: Start) -> None:
    worker, ear = await start(max_response_size=20_000_000)
    body = os.urandom(9_000_000)
    parts = [("other", "", b"o" * 100_000), ("body", "", body)]
    worker.send(Batch([InferenceRequest("r", "m", [], parts, 0.0)] * 2))
    assert await ear.answer() == [body, body]
    await worker.stop(5)


async def test_live_settings_hold_from_the_next_batch_on(start: Start) -> None:
    source = """
        def handle(data, context):
            return data and ["x" * context.system_properties["batch_size"] for _ in data]
    """
    worker, ear = await start(source)
    worker.configure(batch_size=30, response_timeout=20, max_response_size=40)
    worker.send(Batch([request()]))
    worker.configure(batch_size=50, response_timeout=20, max_response_size=40)
    worker.send(Batch([request()]))
    assert await ear.answer() == [b"x" * 30]
    assert (await ear.answer())[0][0] == "ResponseTooLarge"
    await worker.stop(5)


async def test_what_a_worker_prints_reaches_the_log(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    source = """
        import logging, sys
        def handle(data, context):
            if data is None:
                return
            print("to stdout")
            print("to stderr", file=sys.stderr)
            logging.getLogger("x").info("logged")
            print("[METRICS]Mine.Count:1|#Level:Model|#hostname:h,1700000000,req")
            print("a" * 40000, end="")
            return ["done"]
    """
    caplog.set_level("INFO")
    worker, ear = await start(source, name="speaker")
    worker.send(Batch([request()]))
    assert await ear.answer() == [b"done"]
    await worker.stop(5)
    said = {(record.name, record.levelname, record.getMessage()) for record in caplog.records}
    assert ("mms.worker.speaker", "INFO", "to stdout") in said
    assert ("mms.worker.speaker", "WARNING", "to stderr") in said
    assert ("mms.worker.speaker", "INFO", "logged") in said
    metric = "Mine.Count:1|#Level:Model|#hostname:h,requestID:req,timestamp:1700000000"
    assert ("mms.model_metrics", "INFO", metric) in said
    assert sum(len(message) for name, _, message in said if set(message) == {"a"}) >= 16384


async def test_a_worker_stands_in_its_model_directory_with_its_own_environment(start: Start) -> None:
    source = """
        import os, random, sys
        def handle(data, context):
            names = ("A_VARIABLE", "OMP_NUM_THREADS", "MMS_DECODE_INPUT_REQUEST")
            return data and [[os.getcwd(), [os.environ.get(name) for name in names], context.system_properties["gpu_id"]]]
    """
    worker, ear = await start(source, environment={"A_VARIABLE": "1"}, threads=2, decode_input_request=False, gpu_id=3)
    worker.send(Batch([request()]))
    (answer,) = await ear.answer()
    text = answer.decode()
    assert '/m",' in text
    assert [part.strip(' "') for part in text.split("[")[2].split("]")[0].split(",\n")] == ["1", "2", "false"] or (
        '"1",' in text and '"2",' in text and '"false"' in text
    )
    assert worker.gpu_id == 3
    await worker.stop(5)


async def test_workers_do_not_share_their_random_numbers(start: Start) -> None:
    source = """
        import numpy, random
        def handle(data, context):
            return data and [f"{numpy.random.rand()} {random.random()}"]
    """
    drawn = []
    for _ in range(2):
        worker, ear = await start(source)
        worker.send(Batch([request()]))
        drawn += (await ear.answer())[0].split()
        await worker.stop(5)
    assert len(set(drawn)) == 4


async def test_a_worker_holds_nothing_of_the_servers_front_rooms(start: Start) -> None:
    source = """
        import sys
        def handle(data, context):
            return data and [",".join(sorted({name.partition(".")[0] for name in sys.modules}))]
    """
    worker, ear = await start(source)
    worker.send(Batch([request()]))
    loaded = set((await ear.answer())[0].decode().split(","))
    heavy = {"fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "psycopg", "structlog", "asyncio", "psutil"}
    assert not loaded & heavy
    assert {"numpy", "onnxruntime", "orjson"} <= loaded
    await worker.stop(5)


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


async def test_a_worker_leaves_precedence_to_the_server(start: Start) -> None:
    worker, _ = await start()
    pid = worker.pid
    assert pid is not None
    assert os.sched_getscheduler(pid) == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert psutil.Process(pid).nice() == psutil.Process().nice()  # the same share of the processors
    assert oom_score(pid) > oom_score(os.getpid())
    await worker.stop(5)


async def test_workers_keep_a_scheduling_policy_that_an_operator_chose(tmp_path: Path) -> None:
    choose = """
import os, runpy
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
runpy.run_module("tests.unit.workers.small_server", run_name="__main__")
"""
    command = (sys.executable, "-c", choose, "forkserver", str(write_model(tmp_path, ECHO)))
    server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    try:
        worker, fork_server = json.loads(await server.stdout.readline())["others"]
        assert [os.sched_getscheduler(pid) for pid in (server.pid, fork_server, worker)] == [os.SCHED_IDLE] * 3
    finally:
        server.kill()
        await server.wait()
    await until(lambda: gone(worker) and gone(fork_server))


# --- the fork server -------------------------------------------------------------------------------------------------


async def test_the_death_of_the_fork_server_is_no_models_fault_and_the_next_start_brings_a_new_one(
    tmp_path: Path,
) -> None:
    engine = LocalEngine()
    await engine.open()
    ear = Ear()
    worker = engine.worker(spec(write_model(tmp_path / "m", ECHO)))
    await worker.start(ear)
    pid = worker.pid
    launcher = engine._launcher
    assert isinstance(launcher, ForkServerLauncher)
    assert launcher.pid is not None
    os.kill(launcher.pid, signal.SIGKILL)
    error, _ = await ear.end()
    assert isinstance(error, WorkerDied)
    assert error.environment
    assert gone(pid)
    again = engine.worker(spec(tmp_path / "m"))
    await again.start(ear)
    again.send(Batch([request(b"back")]))
    assert await ear.answer() == [b"back"]
    await engine.close()
    assert gone(launcher.pid)


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
async def test_closing_the_engine_leaves_no_process(tmp_path: Path, method: StartMethod) -> None:
    engine = LocalEngine(start_method=method)
    await engine.open()
    folder = write_model(tmp_path / "m", ACTOR)
    workers = [engine.worker(spec(folder)) for _ in range(3)]
    await asyncio.gather(*(worker.start(Ear()) for worker in workers))
    workers[0].send(Batch([request(b"time.sleep(60)")]))
    pids = [worker.pid for worker in workers]
    assert len(set(pids)) == 3
    await engine.close()
    assert all(map(gone, pids))


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
async def test_workers_see_no_secret_and_nothing_of_the_blacklist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: StartMethod
) -> None:
    for name in ("MMS_STORE_URL", "PGPASSWORD", "APP_DATABASE_URL", "MY_SECRET_KEY", "PLAIN"):
        monkeypatch.setenv(name, "value-of-it")
    monkeypatch.setenv("OTHER", "postgresql://user:pass@host/db")
    engine = LocalEngine(start_method=method, blacklist=".*SECRET.*")
    ear = Ear()
    source = """
        import os
        def handle(data, context):
            seen = open("/proc/self/environ").read().replace(chr(0), " ")
            return data and [seen + " ".join(f"{k}={v}" for k, v in os.environ.items())]
    """
    worker = engine.worker(spec(write_model(tmp_path / "m", source)))
    await worker.start(ear)
    worker.send(Batch([request()]))
    seen = (await ear.answer())[0].decode()
    await engine.close()
    assert "PLAIN=value-of-it" in seen
    for name in ("MMS_STORE_URL", "PGPASSWORD", "APP_DATABASE_URL", "MY_SECRET_KEY", "OTHER="):
        assert name not in seen


@pytest.mark.slow
async def test_hundreds_of_starts_leave_nothing_behind(engine: LocalEngine, tmp_path: Path) -> None:
    source = """
        import numpy, onnxruntime
        from pathlib import Path
        PATH = Path(onnxruntime.__file__).parent / "datasets" / "sigmoid.onnx"
        session = onnxruntime.InferenceSession(str(PATH), providers=["CPUExecutionProvider"])
        def handle(data, context):
            return data and [session.run(None, {"x": numpy.zeros((3, 4, 5), numpy.float32)})[0].sum()]
    """
    folder = write_model(tmp_path / "m", source.replace(".sum()", ".sum().item()"))
    before = open_files()

    async def one() -> None:
        ear = Ear()
        worker = engine.worker(spec(folder))
        await worker.start(ear)
        worker.send(Batch([request()]))
        assert await ear.answer() == [b"30.0"]
        await worker.stop(10)

    for _ in range(40):
        await asyncio.gather(*(one() for _ in range(8)))
    await until(lambda: open_files() <= before)

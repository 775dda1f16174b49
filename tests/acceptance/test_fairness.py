"""No request of one model waits behind the queue or the batches of another, however large and slow these are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import quantiles

import httpx
import pytest

from tests.acceptance.running import RunningServer, make_model, wait_until

pytestmark = pytest.mark.slow

LIGHT = """
def handle(data, context):
    return None if data is None else ["ok"] * len(data)
"""
HELD = """
import time
from pathlib import Path

GATE = Path({gate!r})

def handle(data, context):
    if data is None:
        return None
    GATE.with_suffix(".reached").touch()
    deadline = time.monotonic() + 60
    while not GATE.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return [str(len(data))] * len(data)
"""
SLOW = """
import time

def handle(data, context):
    if data is None:
        return None
    time.sleep({seconds})
    return [str(len(data))] * len(data)
"""
BATCH = 32
WAITING = 300


@asynccontextmanager
async def clients(server: RunningServer, connections: int) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=connections)
    async with httpx.AsyncClient(base_url=server.inference_url, timeout=60, trust_env=False, limits=limits) as client:
        yield client


def serve(folder: Path, busy: str) -> RunningServer:
    server = RunningServer(folder, config={"job_queue_size": 1000})
    make_model(server.models, "light", LIGHT)
    make_model(server.models, "busy", busy)
    server.start()
    for model, size in (("light", 1), ("busy", BATCH)):
        wish = f"url={model}&initial_workers=1&batch_size={size}&max_batch_delay=5&synchronous=true"
        assert server.manage("POST", f"/models?{wish}").status_code == 200
    return server


async def test_a_full_queue_behind_a_batch_that_does_not_end_keeps_no_other_model_waiting(tmp_path: Path) -> None:
    gate = tmp_path / "open"
    with serve(tmp_path, HELD.format(gate=str(gate))) as server:
        async with clients(server, WAITING) as crowd, clients(server, 1) as alone:
            held = [asyncio.create_task(crowd.post("/predictions/busy", content=b"x")) for _ in range(WAITING)]
            await asyncio.to_thread(wait_until, gate.with_suffix(".reached").exists, what="the first batch")
            answers = [await alone.post("/predictions/light", content=b"x") for _ in range(400)]
            unanswered = sum(not task.done() for task in held)
            gate.touch()
            late = await asyncio.gather(*held)

    assert {answer.status_code for answer in answers} == {200}
    assert unanswered == WAITING  # every light answer came before the first of those
    assert {answer.status_code for answer in late} == {200}
    assert max(int(answer.text) for answer in late) == BATCH


@pytest.mark.parametrize("size", [1, 256 * 1024], ids=["small bodies", "large bodies"])
async def test_light_requests_wait_for_none_of_the_large_slow_batches_of_a_model_under_load(
    tmp_path: Path, size: int
) -> None:
    batch_seconds = 0.5
    with serve(tmp_path, SLOW.format(seconds=batch_seconds)) as server:
        async with clients(server, 4 * BATCH) as crowd, clients(server, 1) as alone:
            over = asyncio.Event()
            lengths: list[int] = []

            async def press() -> None:
                while not over.is_set():
                    answer = await crowd.post("/predictions/busy", content=b"x" * size)
                    assert answer.status_code == 200, answer.text
                    lengths.append(int(answer.text))

            async def asked() -> float:
                began = time.perf_counter()
                assert (await alone.post("/predictions/light", content=b"x")).text == "ok"
                return time.perf_counter() - began

            await asked()  # opens the connection
            pressing = [asyncio.create_task(press()) for _ in range(4 * BATCH)]
            await asyncio.to_thread(wait_until, lambda: len(lengths) >= 2 * BATCH, what="answers under load")
            answered = len(lengths)
            beside = []
            while len(lengths) < answered + 4 * BATCH:
                beside.append(await asked())
            over.set()
            await asyncio.gather(*pressing)

    assert max(lengths) == BATCH
    # One that waited for a batch of the other would need its half second, one behind the queue four times that.
    assert quantiles(beside, n=100)[94] < batch_seconds / 2
    assert max(beside) < 2 * batch_seconds
    assert len(beside) > 40  # of them, to five batches of the other

"""Every answer is the one to that very request, whatever its size, while workers are killed and settings change under load."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import numpy as np
import onnxruntime as ort
import psutil
import pytest

from benchmarks.onnx_models import build_mlp
from tests.acceptance.running import RunningServer, make_model

pytestmark = pytest.mark.slow

SECONDS = 15.0
ECHO_CLIENTS, MLP_CLIENTS = 12, 12
SIZES = (0, 1, 17, 1000, 4096, 65_535, 65_536, 300_000, 1 << 20)  # bytes
ROWS = (1, 1, 2, 5)
ECHO_BYTES = """
def handle(data, context):
    return None if data is None else [bytes(row.get("body") or b"") for row in data]
"""
MAY_FAIL = {500, 503}  # a worker died with the request in its hands, or none was there for it
RIGHT_SHARE = 0.9

Ask = Callable[[httpx.AsyncClient, random.Random], Awaitable[None]]


class Clients:
    """Asks both models without a pause and judges each answer; `wrong` says what was asked and what came."""

    def __init__(self, model: Path) -> None:
        self.ends: dict[str, Counter[int]] = {"echo": Counter(), "mlp": Counter()}
        self.sizes: Counter[int] = Counter()
        self.wrong: list[str] = []
        self._alone = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])

    async def echo(self, client: httpx.AsyncClient, chance: random.Random) -> None:
        """One body of random bytes, which has to come back as it is."""
        body = chance.randbytes(chance.choice(SIZES))
        headers = {"content-type": "application/octet-stream"}
        answer = await client.post("/predictions/echo", content=body, headers=headers)
        if self._counted("echo", answer):
            self.sizes[len(body)] += 1
            if answer.content != body:
                self.wrong.append(f"{len(body)} bytes were sent, {len(answer.content)} others came back")

    async def mlp(self, client: httpx.AsyncClient, chance: random.Random) -> None:
        """A few rows, whose outputs have to be those of the same rows run by themselves."""
        count = chance.choice(ROWS)
        rows = np.array([[chance.gauss(0, 1) for _ in range(64)] for _ in range(count)], np.float32)
        answer = await client.post("/predictions/mlp", json={"x": rows.tolist()})
        if self._counted("mlp", answer):
            found = np.array(json.loads(answer.content)["y"], np.float32)
            expected = self._alone.run(None, {"x": rows})[0]
            if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-4, atol=1e-5):
                self.wrong.append(f"{count} rows got {found.tolist()} instead of {expected.tolist()}")

    def _counted(self, model: str, answer: httpx.Response) -> bool:
        self.ends[model][answer.status_code] += 1
        if answer.status_code not in {200, *MAY_FAIL}:
            self.wrong.append(f"{model} answered {answer.status_code}: {answer.text[:200]}")
        return answer.status_code == 200


class Trouble:
    """What is done to the server meanwhile: a worker killed every second, settings changed all the time."""

    def __init__(self, server: RunningServer, chance: random.Random) -> None:
        self.killed = 0
        self.changed = 0
        self._server = server
        self._chance = chance

    def workers(self) -> list[psutil.Process]:
        """The children of the fork server."""
        return [process for process in self._server.children() if process.ppid() != self._server.pid]

    async def kill(self) -> None:
        """SIGKILL one worker of either model."""
        await asyncio.sleep(1.0)
        if workers := self.workers():
            self._chance.choice(workers).kill()
            self.killed += 1

    async def change(self, client: httpx.AsyncClient) -> None:
        """One change of one model."""
        model, chance = self._chance.choice(("echo", "mlp")), self._chance
        count = chance.choice((1, 2, 3))
        wish = chance.choice(
            (
                {"batch_size": chance.choice((1, 2, 4, 8, 16))},
                {"max_batch_delay": chance.choice((0, 1, 5, 20))},
                {"batch_size": chance.choice((1, 3, 7)), "max_batch_delay": chance.choice((0, 10))},
                {"min_worker": count, "max_worker": count},
                {"min_worker": count, "max_worker": count, "synchronous": "true"},
            )
        )
        answer = await client.put(f"{self._server.management_url}/models/{model}", params=wish)
        # A synchronous scale may fail where one of its workers is killed while it loads: 507,
        # since a SIGKILL that nobody asked for is most likely the kernel's, out of memory.
        assert answer.status_code in ({200, 202, 507} if "min_worker" in wish else {200}), answer.text
        self.changed += 1
        await asyncio.sleep(0.05)


@pytest.fixture
def server(tmp_path: Path) -> RunningServer:
    server = RunningServer(tmp_path, config={"job_queue_size": 1000})
    make_model(server.models, "echo", ECHO_BYTES)
    (server.models / "mlp" / "MAR-INF").mkdir(parents=True)
    manifest = {"runtime": "python", "model": {"modelName": "mlp"}}
    (server.models / "mlp" / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    build_mlp(server.models / "mlp" / "mlp.onnx")
    return server


@asynccontextmanager
async def every_client(server: RunningServer) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=ECHO_CLIENTS + MLP_CLIENTS + 1)
    async with httpx.AsyncClient(base_url=server.inference_url, timeout=60, trust_env=False, limits=limits) as client:
        yield client


async def test_every_answer_under_load_is_right_while_workers_die_and_settings_change(server: RunningServer) -> None:
    with server.start():
        for model in ("echo", "mlp"):
            wish = f"url={model}&initial_workers=2&batch_size=4&max_batch_delay=5&synchronous=true"
            assert server.manage("POST", f"/models?{wish}").status_code == 200
        clients = Clients(server.models / "mlp" / "mlp.onnx")
        trouble = Trouble(server, random.Random(3))
        until = time.monotonic() + SECONDS

        async def keep(act: Callable[[], Awaitable[None]]) -> None:
            while time.monotonic() < until and not clients.wrong:
                await act()

        async def ask(act: Ask, seed: int) -> None:
            chance = random.Random(seed)
            await keep(lambda: act(client, chance))

        async with every_client(server) as client:
            await asyncio.gather(
                *(ask(clients.echo, seed) for seed in range(ECHO_CLIENTS)),
                *(ask(clients.mlp, 100 + seed) for seed in range(MLP_CLIENTS)),
                keep(trouble.kill),
                keep(lambda: trouble.change(client)),
            )

    print(clients.ends, clients.sizes, trouble.killed, trouble.changed)  # shown where the test fails
    assert clients.wrong == []
    assert set(clients.sizes) == set(SIZES)
    assert trouble.killed >= SECONDS / 2
    assert trouble.changed >= 2 * SECONDS
    for ends in clients.ends.values():
        assert ends[200] >= RIGHT_SHARE * ends.total()
        assert ends.total() > 20 * SECONDS

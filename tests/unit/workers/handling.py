"""Help for the tests of handlers and workers: models written on the spot, requests, and a listener that can be awaited."""

from __future__ import annotations

import asyncio
import marshal
import textwrap
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from mms.errors import MmsError
from mms.records import ModelKey
from mms.request import Batch, InferenceRequest, InferenceResponse, Result
from mms.workers.engine import Worker, WorkerSpec
from mms.workers.messages import WireRequest
from mms.workers.process import LocalWorker

Start = Callable[..., Awaitable[tuple[LocalWorker, "Ear"]]]
"""What the fixture `start` gives: a worker on a handler's source, and who listens to it."""

ECHO = "def handle(data, context):\n    return data and [item['body'] for item in data]\n"

ACTOR = """
    import ctypes, os, signal, sys, time
    def handle(data, context):
        return data and [eval(item["body"]) for item in data]
"""


def write_model(folder: Path, source: str, name: str = "service.py") -> Path:
    """A model directory with one handler file."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(textwrap.dedent(source))
    return folder


def wire(body: bytes, content_type: str = "text/plain", *, request_id: str = "r", headers: Any = ()) -> WireRequest:
    """A request as the worker has it."""
    return request_id, marshal.dumps(list(headers), 2), [("body", content_type, body)]


def request(body: bytes = b"x", content_type: str = "text/plain", request_id: str = "r") -> InferenceRequest:
    """A request as the server has it."""
    return InferenceRequest(request_id, "m", [], [("body", content_type, body)], 0.0)


def spec(folder: Path, **changes: Any) -> WorkerSpec:
    """What to start for the model in `folder`."""
    wanted: dict[str, Any] = {"handler": "service:handle", "startup_timeout": 20.0, "response_timeout": 20.0, **changes}
    return WorkerSpec(ModelKey(wanted.pop("name", folder.name)), folder, **wanted)


def told(result: Result) -> Any:
    """A result in short: the body, or the error's class, message and code."""
    if isinstance(result, bytes):
        return result
    if isinstance(result, InferenceResponse):
        return result.body
    return type(result).__name__, result.message, getattr(result, "code", None)


def json_of(result: Result) -> Any:
    """The JSON of a response."""
    assert isinstance(result, bytes | InferenceResponse), told(result)
    return orjson.loads(told(result))


class Ear:
    """A listener: `answers` and `ends` arrive in queues."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[Sequence[Result] | MmsError] = asyncio.Queue()
        self.ends: asyncio.Queue[tuple[MmsError, Sequence[Batch]]] = asyncio.Queue()

    def batch_done(self, worker: Worker, batch: Batch, results: Sequence[Result] | MmsError) -> None:
        self.answers.put_nowait(results)

    def worker_gone(self, worker: Worker, error: MmsError, unanswered: Sequence[Batch]) -> None:
        self.ends.put_nowait((error, unanswered))

    async def answer(self) -> list[Any]:
        """The next batch's results, in short."""
        results = await asyncio.wait_for(self.answers.get(), 20)
        assert not isinstance(results, MmsError)
        return [told(result) for result in results]

    async def end(self) -> tuple[MmsError, Sequence[Batch]]:
        """How the worker ended."""
        return await asyncio.wait_for(self.ends.get(), 20)


def gone(pid: int | None) -> bool:
    """True where no such process runs any more (a zombie runs no more)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def open_files() -> int:
    """How many descriptors this process holds."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for what no event tells of."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the kernel's tables send no events
            await asyncio.sleep(0.005)

"""The room's promise, over drawn histories: whatever happens meanwhile, each accepted request gets exactly one result."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mms.errors import MmsError, NoWorkerAvailable, PredictionFailed
from mms.request import InferenceRequest, Result
from tests.unit.inference.building import SETTINGS, Asked, echo, served
from tests.unit.inference.memory_engine import MemoryEngine, MemoryWorker

steps = st.one_of(
    st.tuples(st.just("submit"), st.integers(1, 12)),
    st.tuples(st.just("turn"), st.integers(1, 5)),
    st.tuples(st.just("sleep"), st.integers(1, 4)),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("kill"), st.integers(0, 3)),
    st.tuples(st.just("scale"), st.integers(0, 3)),
    st.tuples(st.just("batch_size"), st.sampled_from((1, 2, 5))),
    st.tuples(st.just("delay"), st.sampled_from((0, 1, 3))),
    st.tuples(st.just("queue"), st.sampled_from((1, 4, 100))),
    st.tuples(st.just("patience"), st.sampled_from((0.002, 60.0))),
)


async def handler(worker: MemoryWorker, requests: Sequence[InferenceRequest]) -> Sequence[Result] | MmsError:
    """Sometimes slow, sometimes failing, always telling which request an answer belongs to."""
    number = int(requests[0].parts[0][2])
    if number % 7 == 0:
        await asyncio.sleep(0.002)
    if number % 11 == 10:
        return PredictionFailed("Prediction failed")
    return await echo(worker, requests)


class History:
    def __init__(self, batching: str) -> None:
        self.engine = MemoryEngine(handler)
        self.model = served(self.engine, batching=batching, max_batch_delay=1)
        self.settings = replace(SETTINGS, max_batch_delay=1)
        self.accepted: list[Asked] = []
        self.refused: list[Asked] = []
        self.gone_before_any_result: list[Asked] = []

    async def take(self, step: str, value: Any) -> None:
        match step:
            case "submit":
                for _ in range(value):
                    self.submit()
            case "turn":
                for _ in range(value):
                    await asyncio.sleep(0)
            case "sleep":
                await asyncio.sleep(value / 1000)
            case "cancel":
                if value < len(self.accepted) and self.accepted[value].calls == 0:
                    self.accepted[value].request.cancelled = True
                    self.gone_before_any_result.append(self.accepted[value])
            case "kill":
                workers = self.model.workers
                if value < len(workers):
                    workers[value].kill()
            case "scale":
                self.model.scale_soon(value, value)
            case _:
                option = {"delay": "max_batch_delay", "queue": "job_queue_size", "patience": "response_timeout"}
                changed = {option.get(step, step): value}
                if step == "patience":
                    changed["startup_timeout"] = value
                self.settings = replace(self.settings, **changed)
                self.model.configure(self.settings)

    def submit(self) -> None:
        asked = Asked("m", b"%d" % (len(self.accepted) + len(self.refused)))
        try:
            self.model.submit(asked.request)
        except NoWorkerAvailable:
            self.refused.append(asked)
        else:
            self.accepted.append(asked)

    async def end(self) -> None:
        if len(self.accepted) % 2:
            await self.model.drain(2)
        else:
            async with asyncio.timeout(5):
                await self.model.idle()
        await self.model.close()

    def check(self) -> None:
        for asked in self.accepted:
            assert asked.calls == (0 if asked in self.gone_before_any_result else 1), asked.result
            if isinstance(asked.result, bytes):
                assert asked.result == asked.request.parts[0][2], "an answer went to another request"
        assert all(asked.calls == 0 for asked in self.refused)
        s = self.model.stats
        assert s.accepted == len(self.accepted)
        assert s.rejected == len(self.refused)
        assert s.accepted == s.answered + s.failed + s.died + s.expired + s.cancelled + s.dropped
        assert self.model.in_flight == 0
        assert self.model.queue_depth == 0


@pytest.mark.parametrize("batching", ["strict", "adaptive"])
@settings(max_examples=60)
@given(history=st.lists(steps, min_size=3, max_size=40))
def test_every_accepted_request_ends_exactly_once(batching: str, history: list[tuple[str, Any]]):
    async def run() -> None:
        one = History(batching)
        await one.model.scale(1, 1)
        for step, value in history:
            await one.take(step, value)
        await one.end()
        one.check()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mms.workers.lifecycle.BACK_OFF_SECONDS", (0, 0.002))
        asyncio.run(run())

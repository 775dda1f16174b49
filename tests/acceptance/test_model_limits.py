"""Sizes, timeouts, queues and default workers are settings of each model, and kept: two models in one server, each with its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.acceptance.asking_settings import BATCH_LENGTH, change, places, shown
from tests.acceptance.running import RunningServer, make_model, wait_until

pytestmark = pytest.mark.slow

#: Answers with as many bytes as the body says.
AS_MANY_BYTES = """
def handle(data, context):
    return None if data is None else ["x" * int(bytes(row["body"])) for row in data]
"""

#: Takes a second to load.
SLOW_TO_LOAD = """
import time

class Slow:
    def initialize(self, context):
        time.sleep(1.0)

    def handle(self, data, context):
        return ["ready" for _ in data]

_service = Slow()

def handle(data, context):
    if data is None:
        _service.initialize(context)
        return None
    return _service.handle(data, context)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path) as running:
        yield running


def test_request_and_response_sizes_are_each_models_own(server: RunningServer) -> None:
    for name in ("small", "large"):
        make_model(server.models, name, AS_MANY_BYTES)
    server.config |= {"small.max_request_size": 2, "large.max_response_size": 20_000_000, "small.max_response_size": 50}
    server.start()
    for name in ("small", "large"):
        change(server, "POST", f"/models?url={name}&initial_workers=1")

    assert server.predict("small", "50").text == "x" * 50
    assert server.predict("small", "051").status_code == 413
    assert server.predict("large", "051").text == "x" * 51
    binary = {"content-type": "application/octet-stream"}
    for route in ("/invocations?model_name={}", "/models/{}/invoke", "/{}/predict"):
        assert server.infer("POST", route.format("small"), content="051", headers=binary).status_code == 413
        assert server.infer("POST", route.format("large"), content="051", headers=binary).text == "x" * 51
    refused = server.predict("small", "51")
    assert refused.status_code >= 500
    assert "max_response_size of 50 bytes" in refused.text
    assert len(server.predict("large", "10000000").content) == 10_000_000

    change(server, "PUT", "/models/small?max_request_size=3&max_response_size=51")
    assert server.predict("small", "051").text == "x" * 51
    change(server, "DELETE", "/models/small/settings/max_request_size")
    assert server.predict("small", "051").status_code == 413


def test_response_timeouts_are_each_models_own(server: RunningServer) -> None:
    for name in ("hasty", "patient"):
        make_model(server.models, name, BATCH_LENGTH)
    server.config["hasty.response_timeout"] = 0.3
    server.start()
    for name in ("hasty", "patient"):
        change(server, "POST", f"/models?url={name}&initial_workers=1")

    assert server.predict("patient", "900").text == "1"
    assert server.predict("hasty", "900").status_code == 500
    change(server, "PUT", "/models/hasty?response_timeout=20")
    wait_until(
        lambda: server.predict("hasty", "900").status_code == 200, what="an answer of the worker that replaced it"
    )


def test_startup_timeouts_are_each_models_own(server: RunningServer) -> None:
    make_model(server.models, "hasty", SLOW_TO_LOAD, model={"startupTimeout": 0.3})
    make_model(server.models, "patient", SLOW_TO_LOAD)
    server.start()

    assert server.manage("POST", "/models?url=hasty&initial_workers=1").status_code == 500
    assert server.manage("GET", "/models/hasty").status_code == 404
    change(server, "POST", "/models?url=patient&initial_workers=1")
    change(server, "POST", "/models?url=hasty&initial_workers=1&startup_timeout=20")
    assert server.predict("hasty").text == "ready"


def test_job_queue_sizes_are_each_models_own(server: RunningServer) -> None:
    for name in ("short", "long"):
        make_model(server.models, name, BATCH_LENGTH)
    server.config |= {"short.job_queue_size": 1, "job_queue_size": 50}
    server.start()
    for name in ("short", "long"):
        change(server, "POST", f"/models?url={name}&initial_workers=1")

    def statuses(model: str) -> list[int]:
        with ThreadPoolExecutor(8) as pool:
            return sorted(answer.status_code for answer in pool.map(lambda _: server.predict(model, "300"), range(8)))

    refused = statuses("short").count(503)
    assert refused >= 4
    assert statuses("long") == [200] * 8
    change(server, "PUT", "/models/short?job_queue_size=50")
    assert statuses("short") == [200] * 8


def test_default_workers_are_those_of_a_start_up_model_that_says_nothing_else(server: RunningServer) -> None:
    make_model(server.models, "says-nothing", BATCH_LENGTH)
    make_model(server.models, "by-manifest", BATCH_LENGTH, model={"minWorkers": 1})
    make_model(server.models, "by-file", BATCH_LENGTH, model={"minWorkers": 1})
    (server.models / "by-file.properties").write_text("min_workers=3\n")
    server.config |= {"load_models": "ALL", "default_workers_per_model": 2}
    server.start()

    def workers(name: str) -> int:
        return len(server.manage("GET", f"/models/{name}").json()["workers"])

    assert {name: workers(name) for name in server.model_names()} == {"by-file": 3, "by-manifest": 1, "says-nothing": 2}
    assert places(shown(server, "says-nothing", "min_workers"))[0][1:3] == ("config", "server")

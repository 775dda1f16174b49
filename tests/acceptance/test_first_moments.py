"""What a client may ask of a server in its first moments: whatever it is, from the moment the port is open."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.acceptance.running import RunningServer, make_model, wait_until

pytestmark = pytest.mark.slow

SLOW_TO_LOAD = """
import time

def handle(data, context):
    if data is None:
        time.sleep(1)
        return None
    return ["ok"] * len(data)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path, config={"load_models": "slow", "default_workers_per_model": 1}) as running:
        make_model(running.models, "slow", SLOW_TO_LOAD)
        make_model(running.models, "other", SLOW_TO_LOAD)
        yield running


def is_open(url: str) -> bool:
    where = urlsplit(url)
    with suppress(OSError), socket.create_connection((where.hostname or "", where.port or 0), timeout=1):
        return True
    return False


def test_every_route_answers_from_the_moment_the_port_is_open(server: RunningServer) -> None:
    server.launch()
    wait_until(lambda: is_open(server.management_url), what="an open port")
    asked = {
        "/livez": 200,
        "/readyz": 503,  # the model still loads
        "/models": 200,
        "/models/nobody": 404,
        "/metrics": 200,
        "/recovery": 200,
        "/journal": 200,
        "/api-description": 200,
        "/no/such/route": 404,
    }
    found: dict[str, int] = {}

    def ask(path: str) -> None:
        found[path] = httpx.get(server.management_url + path, timeout=30, trust_env=False).status_code

    threads = [threading.Thread(target=ask, args=(path,)) for path in asked]
    for thread in threads:
        thread.start()
    changed = server.manage("POST", "/models?url=other&initial_workers=1&synchronous=true")
    for thread in threads:
        thread.join()

    assert found == asked
    assert changed.status_code == 200, changed.text
    assert [server.predict(model).text for model in ("slow", "other")] == ["ok", "ok"]


def test_a_server_that_nobody_manages_stops_cleanly_at_once(server: RunningServer) -> None:
    server.launch()
    wait_until(lambda: is_open(server.inference_url), what="an open port")
    assert server.predict("slow").text == "ok"
    wait_until(lambda: "Model server started." in server.log(), what="the end of the boot")
    assert server.stop() == 0
    server.start()
    assert server.recovery()["decision"] == "MANIFEST"


def test_a_prediction_that_comes_before_the_plan_waits_for_it(server: RunningServer) -> None:
    """The port is open, but nobody has looked yet which models there are."""
    server.environment["MMS_FAILPOINTS"] = "boot.listening=sleep:1"
    server.launch()
    wait_until(lambda: is_open(server.inference_url), what="an open port")
    assert server.predict("slow").text == "ok"
    assert httpx.post(f"{server.inference_url}/predictions/nobody", trust_env=False).status_code == 404

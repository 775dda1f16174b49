"""Settings changed on a running model: in force with the next batch, no request lost, no worker replaced; bad ones refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.asking_settings import BATCH_LENGTH, change, shown
from tests.acceptance.running import RunningServer, make_model, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path) as running:
        yield running


class Load:
    """Clients that ask without a pause; `answers` are (when it was sent, status, batch length), in order of arrival."""

    def __init__(self, server: RunningServer, model: str, clients: int) -> None:
        self.answers: list[tuple[float, int, str]] = []
        self._url = f"{server.inference_url}/predictions/{model}"
        self._clients = clients
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(timeout=30, trust_env=False) as client:
            while not self._stop.is_set():
                sent = time.monotonic()
                answer = client.post(self._url, content=b"10")
                self.answers.append((sent, answer.status_code, answer.text))

    def sent_after(self, moment: float) -> list[int]:
        """Batch lengths of as many requests as there are clients and more, all sent after that moment."""
        wait_until(
            lambda: len(self._after(moment)) >= 3 * self._clients, what="answers to requests sent after a change"
        )
        return self._after(moment)

    def _after(self, moment: float) -> list[int]:
        return [int(length) for sent, _, length in list(self.answers) if sent > moment]


def test_a_batch_size_changed_under_load_is_that_of_the_next_batches_and_loses_no_request(
    server: RunningServer,
) -> None:
    make_model(server.models, "m", BATCH_LENGTH)
    server.start()
    change(server, "POST", "/models?url=m&initial_workers=1&batch_size=4&max_batch_delay=50")
    workers = server.children()
    with Load(server, "m", clients=12) as load:
        assert max(load.sent_after(time.monotonic())) == 4
        for size in (1, 6, 2, 9):
            change(server, "PUT", f"/models/m?batch_size={size}")
            lengths = load.sent_after(time.monotonic())
            assert max(lengths) == size

    assert [answer for answer in load.answers if answer[1] != 200] == []
    assert server.children() == workers  # nobody was replaced for it
    server.kill()
    server.start()
    assert shown(server, "m", "batch_size")["value"] == 9


def test_a_batch_delay_changed_on_a_running_model_is_that_of_the_next_batch(server: RunningServer) -> None:
    server.config["batching"] = "strict"
    make_model(server.models, "m", BATCH_LENGTH)
    server.start()
    change(server, "POST", "/models?url=m&initial_workers=1&batch_size=2&max_batch_delay=0")

    def seconds() -> float:
        began = time.monotonic()
        assert server.predict("m", "0").text == "1"
        return time.monotonic() - began

    seconds()  # the first one also opens the connection
    assert seconds() < 0.4
    change(server, "PUT", "/models/m?max_batch_delay=500")
    assert 0.45 < seconds() < 5
    change(server, "PUT", "/models/m?max_batch_delay=0")
    assert seconds() < 0.4


def test_one_put_changes_every_live_option_and_no_worker_is_replaced(server: RunningServer) -> None:
    make_model(server.models, "m", BATCH_LENGTH)
    server.start()
    change(server, "POST", "/models?url=m&initial_workers=1")
    workers = server.children()
    given = {
        "batch_size": 3, "max_batch_delay": 4, "response_timeout": 5.5, "startup_timeout": 6, "job_queue_size": 7,
        "max_request_size": 8000, "max_response_size": 9000,
    }  # fmt: skip
    answer = server.manage("PUT", "/models/m?" + "&".join(f"{name}={value}" for name, value in given.items()))

    assert (answer.status_code, answer.json()) == (200, {"status": 'Model "m" updated'})
    settings = server.manage("GET", "/models/m/settings").json()["settings"]
    assert {name: settings[name]["value"] for name in given} == given
    assert {settings[name]["where"] for name in given} == {"journal entry 2"}
    assert server.predict("m", "0").text == "1"
    assert server.children() == workers


def test_taking_back_a_worker_count_brings_back_the_one_of_the_next_source(server: RunningServer) -> None:
    make_model(server.models, "m", BATCH_LENGTH, model={"minWorkers": 2})
    server.start()
    change(server, "POST", "/models?url=m&initial_workers=1")

    def workers() -> int:
        return len(server.manage("GET", "/models/m").json()["workers"])

    assert workers() == 1
    change(server, "DELETE", "/models/m/settings/initial_workers")  # the API's name for it is taken as well
    wait_until(lambda: workers() == 2, what="the manifest's number of workers")
    assert shown(server, "m", "min_workers")["source"] == "manifest"


BAD_CHANGES = [
    ("PUT", "?batch_size=many", 'Parameter batch_size must be a whole number from 1 to 65536, not "many".'),
    ("PUT", "?batch_size=4&max_batch_delay=-1", "Parameter max_batch_delay must be a whole number from 0 to 3600000"),
    ("PUT", "?response_timeout=0", 'Parameter response_timeout must be a number from 0.001 to 2147483647, not "0".'),
    ("PUT", "?min_worker=2&max_worker=1", "max_worker cannot be less than min_worker."),
    ("PUT", "?preload_model=true", "Parameter preload_model cannot be changed on a running model"),
    ("DELETE", "/settings/preload_model", "Parameter preload_model cannot be changed on a running model"),
    ("DELETE", "/settings/batch_siz", 'There is no option "batch_siz"; a model has: batch_size, '),
    ("DELETE", "/settings/job_queue_size", "Model m has no override of job_queue_size"),
]


def test_a_bad_change_is_refused_by_name_and_changes_nothing(server: RunningServer) -> None:
    make_model(server.models, "m", BATCH_LENGTH)
    server.start()
    change(server, "POST", "/models?url=m&initial_workers=1&preload_model=true&batch_size=2")
    before = server.manage("GET", "/models/m/settings").json()
    for method, path, message in BAD_CHANGES:
        answer = server.manage(method, f"/models/m{path}")
        assert answer.status_code == 400
        assert answer.json()["message"].startswith(message)

    assert server.manage("GET", "/models/m/settings").json() == before
    assert [entry["seq"] for entry in server.manage("GET", "/journal").json()["entries"]] == [1]

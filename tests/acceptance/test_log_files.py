"""The log files in MMS's names and formats: what an operator's log shippers and alarms read."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.running import RunningServer, make_model, wait_until

pytestmark = pytest.mark.slow

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}"
HOST = re.escape(socket.gethostname())
TALKING = """
import logging, sys

def handle(data, context):
    if data is None:
        return None
    print("printed by the handler")
    print("said on stderr", file=sys.stderr)
    logging.info("logged by the handler")
    context.metrics.add_counter("Seen", 1)
    return ["fine"]
"""
TELLS_ITS_PID = """
import os

def handle(data, context):
    return None if data is None else [str(os.getpid())]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("logging")
    places = {"LOG_LOCATION": str(folder / "its-logs"), "METRICS_LOCATION": str(folder / "its-metrics")}
    configuration = {"metric_time_interval": 1, "number_of_netty_threads": 4, "load_models": "talking"}
    with RunningServer(folder, config=configuration, environment=places) as running:
        make_model(running.models, "talking", TALKING)
        yield running.start()


def lines(file: Path, pattern: str) -> list[str]:
    return [line for line in file.read_text().splitlines() if re.fullmatch(pattern, line)]


def test_every_file_has_its_place_its_name_and_its_lines(server: RunningServer) -> None:
    logs, metrics = server.folder / "its-logs", server.folder / "its-metrics"
    assert {file.name for file in logs.iterdir()} == {"access_log.log", "mms_log.log"}
    assert {file.name for file in metrics.iterdir()} == {"mms_metrics.log", "model_metrics.log"}
    answer = server.predict("talking")
    assert answer.status_code == 200
    server.predict("nobody")
    wait_until(lambda: "Seen" in (metrics / "model_metrics.log").read_text())
    wait_until(lambda: "said on stderr" in (logs / "mms_log.log").read_text())

    def one(file: Path, pattern: str) -> None:
        wait_until(lambda: lines(file, pattern), what=f"a line {pattern} in {file.name}", seconds=5)

    one(logs / "access_log.log", rf'{TIME} - /127\.0\.0\.1:\d+ "POST /predictions/talking HTTP/1\.1" 200 \d+')
    one(logs / "access_log.log", rf'{TIME} - /127\.0\.0\.1:\d+ "POST /predictions/nobody HTTP/1\.1" 404 \d+')
    one(logs / "mms_log.log", rf"{TIME} \[INFO \] \S+ \S+ - printed by the handler")
    one(logs / "mms_log.log", rf"{TIME} \[INFO \] \S+ \S+ - logged by the handler")
    one(logs / "mms_log.log", rf"{TIME} \[WARN \] \S+ \S+ - said on stderr")
    one(logs / "mms_log.log", rf"{TIME} \[INFO \] \S+ \S+ - Model server started\.")
    one(metrics / "mms_metrics.log", rf"{TIME} - Requests2XX\.Count:1\|#Level:Host\|#hostname:{HOST},timestamp:null")
    one(metrics / "mms_metrics.log", rf"{TIME} - Requests4XX\.Count:1\|#Level:Host\|#hostname:{HOST},timestamp:null")
    request = re.escape(answer.headers["x-request-id"])
    one(
        metrics / "model_metrics.log",
        rf"({TIME} - )?Seen\.Count:1\|#ModelName:talking,Level:Model\|#hostname:{HOST},requestID:{request},timestamp:\d+",
    )


@pytest.mark.parametrize(
    "figure",
    [
        "CPUUtilization.Percent",
        "DiskAvailable.Gigabytes",
        "DiskUsage.Gigabytes",
        "DiskUtilization.Percent",
        "MemoryAvailable.Megabytes",
        "MemoryUsed.Megabytes",
        "MemoryUtilization.Percent",
    ],
)
def test_the_load_of_the_machine_is_written_every_metric_time_interval(server: RunningServer, figure: str) -> None:
    file = server.folder / "its-metrics" / "mms_metrics.log"
    pattern = rf"{TIME} - {re.escape(figure)}:\d+(\.\d+)?(e-?\d+)?\|#Level:Host\|#hostname:{HOST},timestamp:\d{{10}}"
    wait_until(lambda: len(lines(file, pattern)) >= 3, what=f"three lines of {figure}")
    times = [int(line.rpartition(":")[2]) for line in lines(file, pattern)]

    assert abs(times[0] - time.time()) < 60
    assert 1 <= times[2] - times[0] <= 6


def test_each_worker_that_has_loaded_leaves_its_line_in_the_metrics_log(server: RunningServer) -> None:
    make_model(server.models, "counted", TELLS_ITS_PID)
    answer = server.manage("POST", "/models?url=counted&initial_workers=2&synchronous=true")
    assert answer.status_code == 200
    file = server.folder / "its-metrics" / "mms_metrics.log"

    def loads() -> dict[str, int]:
        pattern = rf"{TIME} - W-\d+-counted\.ms:\d+\|#Level:Host\|#hostname:{HOST},timestamp:\d{{10}}"
        found = [re.search(r"W-(\d+)-counted\.ms:(\d+)", line) for line in lines(file, pattern)]
        return {match[1]: int(match[2]) for match in found if match}

    def workers() -> set[str]:
        described = server.manage("GET", "/models/counted").json()
        return {worker["id"] for worker in described["workers"] if worker["status"] == "READY"}

    first = workers()
    wait_until(lambda: loads().keys() == first, what="one line for each worker")
    assert all(0 < milliseconds < 60_000 for milliseconds in loads().values())

    os.kill(int(server.predict("counted").text), signal.SIGKILL)
    wait_until(lambda: len(loads()) == 3, what="a line for the replacement")
    wait_until(lambda: set(loads()) - first <= workers(), what="the replacement in service")


def test_a_setting_of_the_java_server_is_said_to_have_no_effect_once(server: RunningServer) -> None:
    assert server.log().count("number_of_netty_threads has no effect: it is a setting of the Java server.") == 1


def test_preload_model_is_accepted_and_said_to_have_no_effect(server: RunningServer) -> None:
    make_model(server.models, "eager", TALKING)
    answer = server.manage("POST", "/models?url=eager&preload_model=true&initial_workers=1&synchronous=true")

    assert answer.status_code == 200
    assert server.predict("eager").text == "fine"
    assert server.manage("GET", "/models/eager/settings").json()["settings"]["preload_model"]["value"] is True
    assert server.log().count("Model eager: preload_model has no effect: each worker loads the model itself.") == 1

"""What GET /metrics says of a real server: each figure is caused by something that the test does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.running import ECHO, RunningServer, make_model, wait_until

pytestmark = pytest.mark.slow

SHAKY = """
import os

def handle(data, context):
    if data is None:
        return None
    text = bytes(data[0]["body"])
    if text == b"die":
        os._exit(3)
    if text == b"raise":
        raise ValueError("asked to")
    return ["fine"]
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path, config={"default_response_timeout": 20}) as running:
        make_model(running.models, "echo", ECHO)
        make_model(running.models, "shaky", SHAKY)
        yield running.start()


def figures(server: RunningServer) -> dict[str, float]:
    """Every sample by its name and its labels, as `name{a=b,c=d}` with the labels in the order of their names."""
    answer = server.manage("GET", "/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        f"{sample.name}{{{','.join(f'{k}={v}' for k, v in sorted(sample.labels.items()))}}}": sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def ended(found: dict[str, float], model: str, outcome: str, reason: str) -> float:
    return found[f"mms_requests_total{{model={model},outcome={outcome},reason={reason},version=}}"]


def register(server: RunningServer, name: str) -> None:
    answer = server.manage("POST", f"/models?url={name}&initial_workers=1&synchronous=true")
    assert answer.status_code == 200, answer.text


def test_each_answered_request_is_counted_once_in_every_histogram(server: RunningServer) -> None:
    register(server, "echo")
    for number in range(5):
        assert server.predict("echo", str(number)).status_code == 200
    found = figures(server)
    assert ended(found, "echo", "answered", "handler") == 5
    assert found["mms_rows_total{model=echo,version=}"] == 5
    assert found["mms_batches_total{model=echo,version=}"] == found["mms_batch_rows_count{model=echo,version=}"] == 5
    for name in ("mms_queue_seconds", "mms_handler_seconds", "mms_request_seconds"):
        assert found[f"{name}_count{{model=echo,version=}}"] == 5
        assert found[f"{name}_bucket{{le=+Inf,model=echo,version=}}"] == 5
    assert (
        found["mms_request_seconds_sum{model=echo,version=}"] >= found["mms_queue_seconds_sum{model=echo,version=}"] > 0
    )
    assert found["mms_queue_depth{model=echo,version=}"] == found["mms_requests_in_flight{model=echo,version=}"] == 0


def test_every_way_to_end_has_its_own_reason(server: RunningServer) -> None:
    register(server, "shaky")
    assert server.predict("shaky", "raise").status_code == 503
    assert server.predict("shaky", "die").status_code in (500, 503)
    wait_until(lambda: server.predict("shaky", "go on").status_code == 200, what="the replacement")
    assert server.manage("PUT", "/models/shaky?min_worker=0&max_worker=0&synchronous=true").status_code == 200
    assert server.predict("shaky", "nobody there").status_code == 503
    found = figures(server)
    assert ended(found, "shaky", "failed", "handler") == 1
    assert ended(found, "shaky", "failed", "worker_died") == 1
    assert ended(found, "shaky", "refused", "no_worker_or_queue_full") == 1
    assert found["mms_worker_restarts_total{model=shaky,version=}"] == 1
    assert found["mms_worker_load_seconds_count{model=shaky,version=}"] == 2
    assert found["mms_worker_load_seconds_sum{model=shaky,version=}"] > 0


def test_workers_show_in_their_true_states(server: RunningServer) -> None:
    register(server, "echo")
    assert server.manage("PUT", "/models/echo?min_worker=2&synchronous=true").status_code == 200
    found = figures(server)
    assert found["mms_workers_wanted{model=echo,version=}"] == 2
    assert found["mms_workers{model=echo,state=READY,version=}"] == 2
    assert found["mms_workers{model=echo,state=DEAD,version=}"] == 0
    assert found["mms_workers_resident_bytes{model=echo,version=}"] > 1e6


def test_the_store_the_boot_and_the_recovery_are_told(server: RunningServer) -> None:
    before = figures(server)
    assert before["mms_boot_decision{decision=manifest,safe_mode=false}"] == 1
    register(server, "echo")
    after = figures(server)
    commits = "mms_store_commit_seconds_count{}"
    assert after[commits] == before[commits] + 2  # the wish and its outcome, and no more
    assert after["mms_store_commit_seconds_sum{}"] > before["mms_store_commit_seconds_sum{}"]
    assert after["mms_journal_seq{}"] > before["mms_journal_seq{}"]
    assert after["mms_store_health{health=ok}"] == 1
    server.kill()
    server.start()
    again = figures(server)
    assert again["mms_boot_decision{decision=replay,safe_mode=false}"] == 1
    assert again["mms_store_epoch{}"] == after["mms_store_epoch{}"] + 1
    assert again["mms_recovery_complete{}"] == again["mms_ready{}"] == 1
    assert again["mms_recovery_models{outcome=active}"] == 1
    assert 0 < again["mms_recovery_seconds{}"] < 30
    assert again["mms_models_degraded{}"] == 0


def test_http_answers_are_counted_by_class(server: RunningServer) -> None:
    before = figures(server)
    assert server.predict("nothing").status_code == 404
    after = figures(server)
    four = "mms_http_answers_total{status=4xx}"
    assert after[four] == before[four] + 1
    assert after["mms_http_answers_total{status=2xx}"] > before["mms_http_answers_total{status=2xx}"]

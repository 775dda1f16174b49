"""Idempotency-Key, through the public doors: one effect and one answer for each key, whatever was killed in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.poison import RAISES, poison
from tests.acceptance.running import ECHO, RunningServer, make_model

pytestmark = pytest.mark.slow

HEADER = "idempotent-replayed"


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def server(tmp_path: Path, store_url: str | None) -> Iterator[RunningServer]:
    config = {"store_url": store_url, "store_lock_wait": 20} if store_url else {}
    with RunningServer(tmp_path, config=config) as running:
        make_model(running.models, "echo", ECHO)
        yield running


def ask(server: RunningServer, key: str, method: str, path: str, **more: object) -> httpx.Response:
    return server.manage(method, path, headers={"Idempotency-Key": key}, **more)


def same(first: httpx.Response, second: httpx.Response) -> bool:
    return (first.status_code, first.content) == (second.status_code, second.content)


CHANGES = [
    ("register", "POST", "/models?url=echo&initial_workers=1&batch_size=3"),
    ("update", "PUT", "/models/echo?batch_size=5"),
    ("scale", "PUT", "/models/echo?min_worker=2&synchronous=true"),
    ("override", "DELETE", "/models/echo/settings/batch_size"),
    ("unregister", "DELETE", "/models/echo"),
]


def test_every_change_is_made_once_and_answered_the_same_also_after_sigkill(server: RunningServer) -> None:
    server.start()
    answers = {}
    for key, method, path in CHANGES:
        answers[key] = ask(server, key, method, path)
        assert answers[key].status_code == 200, answers[key].text
        assert HEADER not in answers[key].headers
        again = ask(server, key, method, path)
        assert same(again, answers[key])
        assert again.headers[HEADER] == "true"
    entries = server.manage("GET", "/journal").json()["entries"]
    assert len(entries) == len(CHANGES)
    server.kill()
    server.start()
    for key, method, path in CHANGES:
        again = ask(server, key, method, path)
        assert same(again, answers[key])
        assert again.headers[HEADER] == "true"
    assert server.model_names() == []
    assert len(server.manage("GET", "/journal").json()["entries"]) == len(CHANGES)


def test_a_key_belongs_to_one_request_method_path_query_and_body(server: RunningServer) -> None:
    server.start()
    assert ask(server, "k", "POST", "/models", json={"url": "echo"}).status_code == 200
    for method, path, body in (
        ("POST", "/models", {"url": "echo", "batch_size": 2}),
        ("POST", "/models?x=1", {"url": "echo"}),
        ("PUT", "/models/echo", {"url": "echo"}),
        ("DELETE", "/models/echo", None),
    ):
        refused = ask(server, "k", method, path, json=body)
        assert refused.status_code == 422, path
        assert refused.json()["type"] == "IdempotencyMismatchException"
    assert server.model_names() == ["echo"]
    assert len(server.manage("GET", "/journal").json()["entries"]) == 1


def test_a_stored_refusal_is_told_again_and_says_so(server: RunningServer) -> None:
    poison(server.models, "bad", RAISES)
    server.start()
    first = ask(server, "k", "POST", "/models?url=bad&initial_workers=1")
    assert first.status_code == 500
    second = ask(server, "k", "POST", "/models?url=bad&initial_workers=1")
    assert same(first, second)
    assert second.headers[HEADER] == "true"
    assert [entry["outcome"] for entry in server.manage("GET", "/journal").json()["entries"]] == ["failed"]


@pytest.mark.parametrize("place", ["begin.before_commit", "begin.after_commit", "change.begun", "finish.after_witness"])
def test_a_request_whose_server_died_is_repeated_under_its_key_with_one_effect(tmp_path: Path, place: str) -> None:
    with RunningServer(tmp_path, environment={"MMS_FAILPOINTS": f"{place}=kill"}) as server:
        make_model(server.models, "echo", ECHO)
        server.start()
        with pytest.raises(httpx.TransportError):
            ask(server, "k", "POST", "/models?url=echo&initial_workers=1&batch_size=7")
        assert server.exit_code() == -9
        server.environment = {}
        server.start()
        answer = ask(server, "k", "POST", "/models?url=echo&initial_workers=1&batch_size=7")
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"status": "Workers scaled"}
        assert (answer.headers.get(HEADER) == "true") is (place != "begin.before_commit")
        assert server.manage("GET", "/models/echo").json()["batchSize"] == 7
        kinds = [entry["operation"] for entry in server.manage("GET", "/journal").json()["entries"]]
        assert kinds.count("register") == 1


def test_clearing_a_quarantine_is_answered_once_more_under_its_key(tmp_path: Path) -> None:
    config = {"load_models": "bad", "default_workers_per_model": 1, "quarantine_after": 1}
    with RunningServer(tmp_path, config=config) as server:
        harmless = tmp_path / "harmless"
        poison(server.models, "bad", RAISES, unless=harmless)
        server.start()
        assert server.outcomes() == {"bad": "quarantined"}
        harmless.touch()
        first = ask(server, "k", "DELETE", "/models/bad/quarantine")
        assert first.json() == {"status": 'Quarantine of model "bad" cleared'}
        second = ask(server, "k", "DELETE", "/models/bad/quarantine")
        assert same(first, second)
        assert second.headers[HEADER] == "true"
        server.kill()
        server.start()
        third = ask(server, "k", "DELETE", "/models/bad/quarantine")
        assert same(first, third)
        assert third.headers[HEADER] == "true"

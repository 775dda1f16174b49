"""Undo, through the public doors: a restore shows its plan, applies it step by step, touches nothing else, can be undone itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.command_line import mms, mms_ok
from tests.acceptance.running import ECHO, RunningServer, make_model

pytestmark = pytest.mark.slow


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def server(tmp_path: Path, store_url: str | None) -> Iterator[RunningServer]:
    config = {"store_url": store_url, "store_lock_wait": 20} if store_url else {}
    with RunningServer(tmp_path, config=config) as running:
        for name in ("echo", "other", "third"):
            make_model(running.models, name, ECHO)
        yield running


def ok(answer: Any) -> Any:
    assert 200 <= answer.status_code < 300, answer.text
    return answer.json()


def last_seq(server: RunningServer) -> int:
    entries = ok(server.manage("GET", "/journal?limit=1000"))["entries"]
    return int(entries[-1]["seq"]) if entries else 0


def worker_pids(server: RunningServer, model: str) -> list[str]:
    return [worker["id"] for worker in ok(server.manage("GET", f"/models/{model}"))["workers"]]


def workers_started(server: RunningServer, model: str) -> list[str]:
    return [worker["startTime"] for worker in ok(server.manage("GET", f"/models/{model}"))["workers"]]


def test_a_restore_shows_its_plan_applies_just_that_and_can_be_undone(server: RunningServer) -> None:
    server.start()
    ok(server.manage("POST", "/models?url=echo&initial_workers=1&batch_size=4"))
    ok(server.manage("POST", "/models?url=third&initial_workers=1"))
    point = last_seq(server)
    ok(server.manage("POST", "/models?url=other&initial_workers=1"))
    ok(server.manage("PUT", "/models/echo?batch_size=8"))
    ok(server.manage("DELETE", "/models/echo/settings/batch_size"))
    before = last_seq(server)
    untouched = worker_pids(server, "third"), workers_started(server, "third")
    kept = workers_started(server, "echo")

    planned = ok(server.manage("POST", f"/restore?seq={point}&dry_run=true"))
    assert list(planned) == ["plan", "applied", "seq"]
    assert (planned["applied"], planned["seq"]) == (False, before)
    assert [(step["operation"], step["modelName"]) for step in planned["plan"]] == [
        ("override", "echo"),
        ("unregister", "other"),
    ]
    override, unregister = planned["plan"]
    assert list(override) == ["operation", "modelName", "modelVersion", "from", "to"]
    assert (override["from"]["overrides"], override["to"]["overrides"]) == (
        {"min_workers": 1},
        {"min_workers": 1, "batch_size": 4},
    )
    assert unregister["to"] is None
    assert last_seq(server) == before
    assert server.model_names() == ["echo", "other", "third"]

    done = ok(server.manage("POST", f"/restore?seq={point}"))
    assert done == {**planned, "applied": True}
    assert server.model_names() == ["echo", "third"]
    assert ok(server.manage("GET", "/models/echo"))["batchSize"] == 4
    assert (worker_pids(server, "third"), workers_started(server, "third")) == untouched
    assert workers_started(server, "echo") == kept
    entries = ok(server.manage("GET", f"/journal?after={before}"))["entries"]
    assert [(entry["operation"], entry["modelName"], entry["outcome"]) for entry in entries] == [
        ("restore", "echo", "done"),
        ("restore", "other", "done"),
    ]

    server.kill()
    server.start()  # what was restored is what is replayed
    assert server.model_names() == ["echo", "third"]
    assert ok(server.manage("GET", "/models/echo"))["batchSize"] == 4

    undone = ok(server.manage("POST", f"/restore?seq={done['seq']}"))
    assert undone["applied"] is True
    assert server.model_names() == ["echo", "other", "third"]
    assert ok(server.manage("GET", "/models/echo"))["batchSize"] == 1
    assert server.predict("other", "x").text == "other:x"
    again = ok(server.manage("POST", f"/restore?seq={undone['seq']}&dry_run=true"))["plan"]
    assert {step["modelName"] for step in again} == {"echo", "other"}


def test_a_generation_that_a_clean_start_set_aside_can_be_brought_back(server: RunningServer) -> None:
    server.start()
    ok(server.manage("POST", "/models?url=echo&initial_workers=2&batch_size=4"))
    generation = server.recovery()["generation"]
    server.kill()
    server.start("--clean-start")
    assert server.model_names() == []
    by_number = server.manage("POST", "/restore?seq=1")
    assert by_number.status_code == 400
    assert "--to-generation" in by_number.json()["message"]
    ok(server.manage("POST", f"/restore?generation={generation}"))
    described = ok(server.manage("GET", "/models/echo"))
    assert (described["batchSize"], len(described["workers"])) == (4, 2)
    server.kill()
    server.start()
    assert server.model_names() == ["echo"]


def test_a_step_that_fails_is_told_and_leaves_the_others_applied(server: RunningServer) -> None:
    server.start()
    ok(server.manage("POST", "/models?url=echo&initial_workers=1"))
    ok(server.manage("POST", "/models?url=other&initial_workers=1"))
    point = last_seq(server)
    ok(server.manage("DELETE", "/models/echo"))
    ok(server.manage("DELETE", "/models/other"))
    (server.models / "echo" / "service.py").unlink()
    answer = server.manage("POST", f"/restore?seq={point}")
    assert answer.status_code == 210
    done = answer.json()
    assert done["applied"] is False
    errors = {step["modelName"]: step.get("error") for step in done["plan"]}
    assert errors["other"] is None
    assert errors["echo"]
    assert server.model_names() == ["other"]
    server.kill()
    server.start()
    assert server.model_names() == ["other"]


def test_an_archive_that_another_took_the_place_of_comes_back_and_a_failed_exchange_leaves_what_is_there(
    server: RunningServer,
) -> None:
    make_model(server.models, "v1", ECHO.replace("{context.model_name}", "one"), model={"modelName": "swap"})
    make_model(server.models, "v2", ECHO.replace("{context.model_name}", "two"), model={"modelName": "swap"})
    server.start()
    ok(server.manage("POST", "/models?url=v1&initial_workers=1"))
    first = last_seq(server)
    ok(server.manage("DELETE", "/models/swap"))
    ok(server.manage("POST", "/models?url=v2&initial_workers=1"))
    second = last_seq(server)
    assert server.predict("swap", "x").text == "two:x"
    (plan,) = ok(server.manage("POST", f"/restore?seq={first}"))["plan"]
    assert (plan["operation"], plan["from"]["url"], plan["to"]["url"]) == ("register", "v2", "v1")
    assert server.predict("swap", "x").text == "one:x"

    (server.models / "v2" / "service.py").write_text("raise SystemExit('not today')\n")
    failed = server.manage("POST", f"/restore?seq={second}")
    assert failed.status_code == 210
    assert server.predict("swap", "x").text == "one:x"
    server.kill()
    server.start()
    assert server.predict("swap", "x").text == "one:x"


def test_a_restore_under_an_idempotency_key_is_made_once_and_its_answer_kept(server: RunningServer) -> None:
    server.start()
    ok(server.manage("POST", "/models?url=echo&initial_workers=1"))
    point = last_seq(server)
    ok(server.manage("POST", "/models?url=other&initial_workers=1"))
    key = {"Idempotency-Key": "undo-1"}
    first = server.manage("POST", f"/restore?seq={point}", headers=key)
    assert "idempotent-replayed" not in first.headers
    assert ok(first)["plan"][0]["modelName"] == "other"
    ok(server.manage("POST", "/models?url=third&initial_workers=1"))
    server.kill()
    server.start()
    second = server.manage("POST", f"/restore?seq={point}", headers=key)
    assert second.headers["idempotent-replayed"] == "true"
    assert ok(second) == ok(first)
    assert server.model_names() == ["echo", "third"]
    other = server.manage("POST", "/restore?seq=0", headers=key)
    assert other.status_code == 422
    assert server.model_names() == ["echo", "third"]


def test_the_command_shows_a_readable_difference_asks_and_applies(tmp_path: Path) -> None:
    with RunningServer(tmp_path) as server:
        make_model(server.models, "echo", ECHO)
        make_model(server.models, "other", ECHO)
        server.start()
        ok(server.manage("POST", "/models?url=echo&initial_workers=1&batch_size=4"))
        moment = datetime.now(UTC).isoformat()
        ok(server.manage("PUT", "/models/echo?batch_size=8"))
        ok(server.manage("POST", "/models?url=other"))

        shown = mms_ok(server, "restore", "--before", moment, "--dry-run")
        assert "  override echo\n    - batch_size=8\n    + batch_size=4\n" in shown
        assert "  unregister other\n" in shown
        assert "    - url=other\n" in shown
        refused = mms(server, "restore", "--before", moment, answer="n\n")
        assert refused.returncode == 1
        assert server.model_names() == ["echo", "other"]
        done = mms_ok(server, "restore", "--before", moment, answer="y\n")
        assert "2 changes applied. `mms restore --to 3` undoes this." in done
        assert server.model_names() == ["echo"]
        assert "2 changes applied" in mms_ok(server, "restore", "--to", "3", "--yes")
        assert ok(server.manage("GET", "/models/echo"))["batchSize"] == 8
        assert mms_ok(server, "restore", "--to-generation", "1", "--dry-run") == "Nothing would change.\n"
        assert mms(server, "restore", "--to", "1", "--to-generation", "1").returncode == 2
        beyond = mms(server, "restore", "--to", "99")
        assert beyond.returncode == 1
        assert "expected a journal number from 0 to" in beyond.stderr


def test_configured_models_go_back_to_what_the_configuration_says(tmp_path: Path) -> None:
    with RunningServer(tmp_path, config={"load_models": "echo,other", "default_workers_per_model": 1}) as server:
        make_model(server.models, "echo", ECHO)
        make_model(server.models, "other", ECHO)
        server.start()
        ok(server.manage("PUT", "/models/echo?min_worker=2&batch_size=6&synchronous=true"))
        ok(server.manage("DELETE", "/models/other"))
        plan = ok(server.manage("POST", "/restore?seq=0"))["plan"]
        assert [(step["operation"], step["modelName"], step["to"]["overrides"]) for step in plan] == [
            ("scale", "echo", {}),
            ("register", "other", {}),
        ]
        described = ok(server.manage("GET", "/models/echo"))
        assert (described["minWorkers"], described["batchSize"], described["loadedAtStartup"]) == (1, 1, True)
        assert server.predict("other", "x").text == "other:x"
        server.kill()
        server.start()
        assert server.outcomes() == {"echo": "active", "other": "active"}

"""The promise, through the public doors: what was acknowledged comes back after SIGKILL; on SQLite and on PostgreSQL."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.acceptance.running import ECHO, RunningServer, make_model, wait_until


@pytest.fixture
def server(tmp_path: Path, store_url: str | None) -> Iterator[RunningServer]:
    config = {"store_url": store_url, "store_lock_wait": 20} if store_url else {}
    with RunningServer(tmp_path, config=config) as running:
        make_model(running.models, "echo", ECHO)
        make_model(running.models, "other", ECHO)
        yield running


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def store_url(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


def register(server: RunningServer, url: str, query: str = "initial_workers=1") -> None:
    answer = server.manage("POST", f"/models?url={url}&{query}")
    assert answer.status_code == 200, answer.text


def test_a_registration_survives_sigkill_and_a_clean_stop_falls_back_to_the_manifest(server: RunningServer) -> None:
    server.start()
    assert server.recovery()["decision"] == "MANIFEST"
    assert server.recovery()["previous"] is None
    register(server, "echo", "initial_workers=2&batch_size=8&max_batch_delay=5&response_timeout=30")
    assert server.predict("echo", "hello").text == "echo:hello"
    server.kill()

    server.start()
    report = server.recovery()
    assert report["decision"] == "REPLAY"
    assert "clean" in report["reason"]
    assert report["state"] == "complete"
    assert report["previous"]["state"] == "running"
    assert [(m["modelName"], m["outcome"], m["origin"]) for m in report["models"]] == [("echo", "active", "api")]
    described = server.manage("GET", "/models/echo").json()
    assert (described["minWorkers"], described["batchSize"], described["maxBatchDelay"]) == (2, 8, 5)
    assert server.predict("echo", "again").text == "echo:again"
    assert server.stop() == 0
    assert "1 API registrations will not return without --recover" in server.log()

    server.start()
    assert server.recovery()["decision"] == "MANIFEST"
    assert server.model_names() == []
    assert server.stop() == 0

    server.start("--recover")
    assert server.recovery()["decision"] == "REPLAY"
    assert server.predict("echo", "back").text == "echo:back"
    assert server.stop() == 0

    server.start("--clean-start")
    assert server.recovery()["decision"] == "CLEAN"
    assert server.model_names() == []
    server.kill()

    server.start()  # the plain boot after a crash of the clean one repeats the new, empty generation
    assert server.recovery()["decision"] == "REPLAY"
    assert server.model_names() == []


def test_scaling_overrides_and_unregistration_survive_a_chain_of_crashes(server: RunningServer) -> None:
    server.start()
    register(server, "echo")
    register(server, "other")
    answer = server.manage("PUT", "/models/echo?min_worker=2&batch_size=4&synchronous=true")
    assert answer.status_code == 200, answer.text
    assert server.manage("DELETE", "/models/other").status_code == 200
    for epoch in (2, 3, 4):
        server.kill()
        server.start()
        assert server.recovery()["incarnation"] == epoch
        assert server.model_names() == ["echo"]
        described = server.manage("GET", "/models/echo").json()
        assert (described["minWorkers"], described["batchSize"], len(described["workers"])) == (2, 4, 2)
        assert server.predict("other").status_code == 404


def test_what_the_operator_said_about_a_configured_model_is_laid_over_todays_configuration(
    server: RunningServer,
) -> None:
    server.config |= {"load_models": "echo=echo,other=other", "default_workers_per_model": 1}
    server.start()
    assert server.model_names() == ["echo", "other"]
    assert server.manage("PUT", "/models/echo?batch_size=7").status_code == 200
    assert server.manage("DELETE", "/models/other").status_code == 200
    make_model(server.models, "third", ECHO)
    server.kill()

    server.config["load_models"] = "echo=echo,other=other,third=third"
    server.config["max_batch_delay"] = 33
    server.start()
    assert server.outcomes() == {"echo": "active", "other": "skipped", "third": "active"}
    described = server.manage("GET", "/models/echo").json()
    assert (described["batchSize"], described["maxBatchDelay"], described["loadedAtStartup"]) == (7, 33, True)


def test_a_model_that_cannot_come_back_leaves_the_others_alone_and_is_kept(server: RunningServer) -> None:
    server.start()
    register(server, "echo")
    register(server, "other")
    server.kill()
    (server.models / "other" / "service.py").unlink()
    server.start()
    assert server.outcomes() == {"echo": "active", "other": "changed_archive"}
    assert server.predict("echo", "x").text == "echo:x"
    assert server.predict("other").status_code == 503
    server.kill()
    (server.models / "other" / "service.py").write_text(ECHO)
    server.start()
    assert server.outcomes() == {"echo": "active", "other": "active"}


def test_no_process_of_a_killed_server_survives_it(server: RunningServer) -> None:
    server.start()
    register(server, "echo", "initial_workers=2")
    family = server.children()
    assert len(family) >= 3  # two workers and the fork server
    server.kill()
    psutil.wait_procs(family, timeout=5)
    assert [process for process in family if process.is_running()] == []


def test_a_second_server_on_the_store_is_refused_and_says_who_holds_it(server: RunningServer) -> None:
    server.start()
    server.config["store_lock_wait"] = 0
    with RunningServer(server.folder, config={**server.config}) as second:
        second.config |= {"inference_address": second.inference_url, "management_address": second.management_url}
        second.log_file = server.folder / "second.log"
        second.launch()
        assert second.exit_code() == 75
        assert str(server.pid) in second.log()
        assert "Traceback" not in second.log()


def test_a_stop_while_booting_repeats_the_decision(server: RunningServer) -> None:
    slow = "import time\n" + ECHO.replace("return None", "time.sleep(60)")
    make_model(server.models, "slow", slow)
    server.start()
    assert server.manage("POST", "/models?url=slow&initial_workers=1&synchronous=false").status_code == 202
    server.kill()
    server.launch()
    wait_until(lambda: "Boot decision: REPLAY" in server.log().rpartition("Data directory")[2], what="the decision")
    wait_until(server.is_live, what="live")
    assert server.manage("GET", "/readyz").status_code == 503
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    assert server.exit_code() == 0
    server.launch()
    wait_until(server.is_live, what="live")
    assert server.recovery()["decision"] == "REPLAY"
    assert server.recovery()["previous"]["state"] == "booting"

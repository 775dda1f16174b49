"""The commands that ask a running server, typed as an operator types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.running import ECHO, RunningServer, make_model

pytestmark = pytest.mark.slow

BROKEN = """
def handle(data, context):
    raise RuntimeError("no [weights] here")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Epoch 1 registered two models, scaled one, failed with one and took one out; epoch 2 follows its SIGKILL."""
    folder: Path = tmp_path_factory.mktemp("server")
    with RunningServer(folder, config={"job_queue_size": 50}) as running:
        for name in ("Res-Net.v1", "other"):
            make_model(running.models, name, ECHO, model={"batchSize": 8})
        make_model(running.models, "broken", BROKEN)
        running.start()
        assert running.manage("POST", "/models?url=Res-Net.v1&initial_workers=1&batch_size=16").status_code == 200
        assert running.manage("POST", "/models?url=other").status_code == 200
        assert running.manage("POST", "/models?url=broken&initial_workers=1").status_code == 500
        assert running.manage("PUT", "/models/Res-Net.v1?max_batch_delay=5").status_code == 200
        assert running.manage("DELETE", "/models/other").status_code == 200
        running.kill()
        (running.models / "Res-Net.v1" / "service.py").write_text(ECHO)  # the same content: nothing has changed
        running.start()
        yield running


def run(server: RunningServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "mms", *arguments],
        env={**os.environ, "MMS_MANAGEMENT_URL": server.management_url},
        cwd=server.folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


def printed(server: RunningServer, *arguments: str) -> str:
    answer = run(server, *arguments)
    assert (answer.returncode, answer.stderr) == (0, "")
    return answer.stdout


def rows(table: str) -> list[list[str]]:
    """The cells of a printed table, below its head and its rule."""
    return [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in table.splitlines()[2:]]


def test_models_shows_states_and_workers(server: RunningServer) -> None:
    table = printed(server, "models")

    assert table.splitlines()[0].split() == ["model", "version", "state", "workers", "waiting", "url", "last", "error"]
    assert rows(table) == [["Res-Net.v1", "active", "1 of 1", "0", "Res-Net.v1"]]
    assert rows(printed(server, "models", "--state", "quarantined")) == []
    (model,) = json.loads(printed(server, "models", "--json"))["models"]
    assert model["readyWorkers"] == 1


def test_settings_shows_every_option_with_its_source(server: RunningServer) -> None:
    table = {row[0]: row[1:] for row in rows(printed(server, "settings", "Res-Net.v1"))}

    document = server.manage("GET", "/models/Res-Net.v1/settings").json()
    assert list(table) == list(document["settings"])
    assert table["batch_size"] == [
        "16", "requests", "api", "journal entry 1", "yes", "8 (manifest: model.batchSize), 1 (default: built-in)",
    ]  # fmt: skip
    place = f"{server.folder}/config.properties:4"
    assert table["job_queue_size"] == ["50", "requests", "config server", place, "yes", "100 (default: built-in)"]
    assert table["max_batch_delay"][3] == "journal entry 4"
    assert json.loads(printed(server, "settings", "Res-Net.v1", "--json")) == document


def test_one_setting_is_explained_in_a_sentence(server: RunningServer) -> None:
    assert printed(server, "settings", "Res-Net.v1", "--explain", "batch_size") == (
        "batch_size of Res-Net.v1 is 16 requests, from the management API (journal entry 1);"
        " it beats 8, from the archive's manifest (model.batchSize); and 1, the built-in default.\n"
    )


def test_the_journal_shows_who_did_what(server: RunningServer) -> None:
    entries = [(row[0], row[4], row[5], row[6]) for row in rows(printed(server, "journal"))]

    assert entries[:5] == [
        ("1", "register", "Res-Net.v1", "done"),
        ("2", "register", "other", "done"),
        ("3", "register", "broken", "failed"),
        ("4", "update", "Res-Net.v1", "done"),
        ("5", "unregister", "other", "done"),
    ]
    assert "batch_size=16 min_workers=1 max_batch_delay=5" in printed(server, "journal", "--model", "Res-Net.v1")
    assert [row[0] for row in rows(printed(server, "journal", "--limit", "2"))] == ["4", "5"]
    assert [row[0] for row in rows(printed(server, "journal", "--after", "1", "--limit", "2"))] == ["2", "3"]
    assert [row[0] for row in rows(printed(server, "journal", "--model", "other"))] == ["2", "5"]


def test_the_recovery_shows_the_decision_and_each_model(server: RunningServer) -> None:
    shown = printed(server, "recovery")

    assert shown.startswith("REPLAY: the last server (epoch 1, pid ")
    assert shown.splitlines()[1].startswith("Epoch 2, generation 1, complete after ")
    assert "Res-Net.v1" in shown
    assert json.loads(printed(server, "recovery", "--json"))["decision"] == "REPLAY"


def test_the_incarnations_are_the_lives_newest_first(server: RunningServer) -> None:
    lives = rows(printed(server, "incarnations"))

    assert [(row[0], row[3]) for row in lives] == [("2", "REPLAY"), ("1", "MANIFEST")]
    assert len(rows(printed(server, "incarnations", "--limit", "1"))) == 1


def test_what_the_server_refuses_is_told_in_its_words_with_exit_1(server: RunningServer) -> None:
    answer = run(server, "settings", "nobody")

    assert (answer.returncode, answer.stdout, answer.stderr) == (1, "", "Model not found: nobody\n")


def test_the_inference_port_is_told_from_the_management_port(server: RunningServer) -> None:
    answer = run(server, "recovery", "--server", server.inference_url)

    assert answer.returncode == 1
    assert answer.stderr.count("\n") == 1

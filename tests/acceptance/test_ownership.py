"""One owner at a time, whoever comes when: starts at the same moment, an owner that hangs, an owner that was killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.acceptance.running import ECHO, RunningServer, make_model, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


def server(folder: Path, data: Path, store_url: str | None) -> RunningServer:
    config: dict[str, object] = {"data_dir": data, **({"store_url": store_url} if store_url else {})}
    made = RunningServer(folder, config=config)
    make_model(made.models, "echo", ECHO)
    return made


def test_of_three_servers_started_at_once_on_one_store_just_one_serves(tmp_path: Path, store_url: str | None) -> None:
    racers = [server(tmp_path / str(number), tmp_path / "data", store_url) for number in range(3)]
    with racers[0], racers[1], racers[2]:
        for racer in racers:
            racer.launch()

        def decided() -> bool:
            return sum(racer.process is not None and racer.process.poll() is not None for racer in racers) >= 2

        wait_until(decided, seconds=60, what="two losers")
        losers = [racer for racer in racers if racer.process is not None and racer.process.poll() is not None]
        assert [loser.exit_code() for loser in losers] == [75, 75]
        (winner,) = [racer for racer in racers if racer not in losers]
        wait_until(winner.is_ready, seconds=60, what="ready")
        assert winner.recovery()["incarnation"] == 1
        assert all("Traceback" not in loser.log() for loser in losers)


def test_a_server_that_hangs_keeps_its_store_and_a_killed_one_gives_it_up(
    tmp_path: Path, store_url: str | None
) -> None:
    first = server(tmp_path / "first", tmp_path / "data", store_url)
    second = server(tmp_path / "second", tmp_path / "data", store_url)
    with first, second:
        first.start()
        assert first.manage("POST", "/models?url=echo&initial_workers=1").status_code == 200
        os.kill(first.pid, signal.SIGSTOP)
        second.launch()
        assert second.exit_code() == 75
        assert str(first.pid) in second.log()
        os.kill(first.pid, signal.SIGCONT)
        assert first.predict("echo", "x").text == "echo:x"
        first.kill()
        second.config["store_lock_wait"] = 20
        second.config["model_store"] = first.models
        second.start()
        assert second.recovery()["decision"] == "REPLAY"
        assert second.outcomes() == {"echo": "active"}

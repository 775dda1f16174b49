"""Who owned the store is decided by lock and epoch: a process id that comes again and a clock that jumps change nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.running import ECHO, RunningServer, make_model

pytestmark = pytest.mark.slow

FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path) as running:
        make_model(running.models, "echo", ECHO)
        yield running


def live_through_a_crash(server: RunningServer) -> None:
    """Two lives: registered and killed; replayed."""
    server.start()
    assert server.manage("POST", "/models?url=echo&initial_workers=1").status_code == 200
    server.kill()
    server.start()
    assert server.recovery()["decision"] == "REPLAY"
    assert server.predict("echo", "x").text == "echo:x"


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare")
def test_a_server_that_is_process_1_in_every_life_is_not_taken_for_its_predecessor(server: RunningServer) -> None:
    server.wrapper = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    live_through_a_crash(server)
    assert "(epoch 1, pid 1 on" in server.recovery()["reason"]
    lives = server.manage("GET", "/incarnations").json()["incarnations"]
    assert [(life["epoch"], life["pid"]) for life in lives] == [(2, 1), (1, 1)]


@pytest.mark.skipif(not FAKETIME, reason="libfaketime is not installed")
@pytest.mark.parametrize("years", ["-10y", "+10y"])
def test_a_clock_that_is_ten_years_off_after_the_crash_changes_no_decision(server: RunningServer, years: str) -> None:
    server.start()
    assert server.manage("POST", "/models?url=echo&initial_workers=1").status_code == 200
    server.kill()
    server.environment |= {"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME": years, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    server.start()
    assert server.recovery()["decision"] == "REPLAY"
    assert server.predict("echo", "x").text == "echo:x"
    assert server.stop() == 0
    server.environment.clear()
    server.start()
    assert server.recovery()["decision"] == "MANIFEST"
    assert [life["epoch"] for life in server.manage("GET", "/incarnations").json()["incarnations"]] == [3, 2, 1]

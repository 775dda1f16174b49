"""Every named place of `mms/failpoints.py`: the server is killed there, and the next plain boot finds what the table demands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from mms.failpoints import TABLE, Failpoint, Holds
from tests.acceptance.poison import RAISES, poison
from tests.acceptance.running import ECHO, EndedOnItsOwn, RunningServer, make_model

pytestmark = pytest.mark.slow

ON_POSTGRES = (
    "claim.after_commit",
    "begin.before_commit",
    "begin.after_commit",
    "finish.before_commit",
    "clean.after_commit",
    "pack.after_commit",
)


def cases() -> Iterator[object]:
    for place in TABLE:
        yield pytest.param(place, "sqlite", id=f"{place.name}-sqlite")
        if place.name in ON_POSTGRES:
            yield pytest.param(place, "postgres", id=f"{place.name}-postgres")


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> Iterator[RunningServer]:
    config: dict[str, object] = {"load_models": "configured", "default_workers_per_model": 1}
    if kind == "postgres":
        config |= {"store_url": request.getfixturevalue("postgres_url"), "store_lock_wait": 20}
    with RunningServer(tmp_path, config=config) as running:
        for name in ("configured", "kept", "echo"):
            make_model(running.models, name, ECHO)
        poison(running.models, "bad", RAISES)
        yield running


def arm(server: RunningServer, place: Failpoint) -> None:
    server.environment = {"MMS_FAILPOINTS": f"{place.name}=kill"}


def until_killed(server: RunningServer) -> None:
    assert server.exit_code() == -9, server.log()
    server.environment = {}


@pytest.mark.parametrize(("place", "kind"), list(cases()))
def test_a_crash_at_this_place_leaves_what_the_table_says(server: RunningServer, place: Failpoint) -> None:
    if place.kind in ("boot", "replay"):
        crash_in_a_boot(server, place)
    elif place.kind == "stop":
        crash_in_a_stop(server, place)
    elif place.kind == "upkeep":
        crash_in_upkeep(server, place)
    else:
        crash_in_a_change(server, place)


def crash_in_a_boot(server: RunningServer, place: Failpoint) -> None:
    """A manifest boot after a clean stop: what ended cleanly must not come back, whether or not the boot left a trace."""
    server.start()
    assert server.manage("POST", "/models?url=kept&initial_workers=1").status_code == 200
    assert server.stop() == 0
    arm(server, place)
    server.launch()
    until_killed(server)
    server.start()
    report = server.recovery()
    assert report["decision"] == ("MANIFEST" if place.holds is Holds.NO_TRACE else "REPLAY")
    assert report["incarnation"] == (2 if place.holds is Holds.NO_TRACE else 3)
    assert report["generation"] == 2
    assert server.model_names() == ["configured"]
    assert server.predict("configured", "x").text == "configured:x"
    if place.name.startswith("claim"):  # what was left behind is still there
        assert server.stop() == 0
        server.start("--recover")
        assert server.model_names() == ["configured", "kept"]


def crash_in_a_stop(server: RunningServer, place: Failpoint) -> None:
    arm(server, place)
    server.start()
    assert server.manage("POST", "/models?url=kept&initial_workers=1").status_code == 200
    server.stop()
    until_killed(server)
    server.start()
    clean = place.holds is Holds.CLEAN
    assert server.recovery()["decision"] == ("MANIFEST" if clean else "REPLAY")
    assert server.model_names() == (["configured"] if clean else ["configured", "kept"])


def crash_in_upkeep(server: RunningServer, place: Failpoint) -> None:
    """Beside the work, while it goes on: whatever was acknowledged is there, and in the journal once."""
    assert place.holds is Holds.SAME
    arm(server, place)
    server.start()
    done = 0
    with suppress(httpx.TransportError, EndedOnItsOwn):  # within a request, or between two
        for size in range(2, 5000):
            answer = server.manage(
                "POST" if size == 2 else "PUT", f"/models{'?url=kept&' if size == 2 else '/kept?'}batch_size={size}"
            )
            assert answer.status_code == 200
            done = size
    until_killed(server)
    server.start()
    assert server.recovery()["decision"] == "REPLAY"
    assert found_after(server)["kept"] in (done, done + 1)
    sizes = [entry["after"]["overrides"]["batch_size"] for entry in journal_of(server)]
    assert sizes == list(range(2, 2 + len(sizes)))
    assert len(sizes) in (done - 1, done)
    assert server.stop() == 0
    server.start("--recover")
    assert found_after(server)["kept"] == sizes[-1]


def journal_of(server: RunningServer) -> list[dict[str, Any]]:
    answer = server.manage("GET", "/journal?limit=1000").json()
    assert answer["next"] is None
    return list(answer["entries"])


CHANGES = {
    "change": ("POST", "/models?url=echo&initial_workers=1&batch_size=6"),
    "register": ("POST", "/models?url=echo&initial_workers=1&batch_size=6"),
    "update": ("PUT", "/models/kept?batch_size=6"),
    "unregister": ("DELETE", "/models/kept"),
    "failure": ("POST", "/models?url=bad&initial_workers=1"),
}


def crash_in_a_change(server: RunningServer, place: Failpoint) -> None:
    server.start()
    assert server.manage("POST", "/models?url=kept&initial_workers=1&batch_size=2").status_code == 200
    server.kill()
    arm(server, place)
    server.start()
    method, path = CHANGES[place.kind]
    with pytest.raises(httpx.TransportError):
        server.manage(method, path)
    until_killed(server)
    server.start()
    assert server.recovery()["decision"] == "REPLAY"
    assert server.recovery()["safeMode"] is False
    assert found_after(server) == expected(place)
    for model in server.model_names():
        assert server.predict(model, "x").text == f"{model}:x"
    outcomes = {entry["outcome"] for entry in server.manage("GET", "/journal").json()["entries"]}
    assert "pending" not in outcomes


def found_after(server: RunningServer) -> dict[str, int]:
    return {name: server.manage("GET", f"/models/{name}").json()["batchSize"] for name in server.model_names()}


def expected(place: Failpoint) -> dict[str, int]:
    before = {"configured": 1, "kept": 2}
    if place.holds is Holds.ABSENT:
        return before
    if place.kind == "unregister":
        return {"configured": 1}
    if place.kind == "update":
        return {"configured": 1, "kept": 6}
    return {**before, "echo": 6}


@pytest.mark.parametrize("kind", ["sqlite"])
def test_k_crashes_in_a_row_give_what_one_gives(server: RunningServer) -> None:
    server.start()
    assert server.manage("POST", "/models?url=kept&initial_workers=1").status_code == 200
    server.kill()
    for place in ("replay.loaded", "boot.replayed"):
        server.environment = {"MMS_FAILPOINTS": f"{place}=kill"}
        server.launch()
        until_killed(server)
    server.start()
    assert server.recovery()["incarnation"] == 4
    assert server.outcomes() == {"configured": "active", "kept": "active"}


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize(("flag", "decision", "names"), [
    ("--recover", "REPLAY", ["configured", "kept"]),
    ("--clean-start", "REPLAY", ["configured"]),
])  # fmt: skip
def test_a_crash_of_a_boot_with_a_flag_repeats_that_decision_without_it(
    server: RunningServer, flag: str, decision: str, names: list[str]
) -> None:
    server.start()
    assert server.manage("POST", "/models?url=kept&initial_workers=1").status_code == 200
    assert server.stop() == 0
    server.environment = {"MMS_FAILPOINTS": "boot.planned=kill"}
    server.launch(flag)
    until_killed(server)
    server.start()
    assert server.recovery()["decision"] == decision
    assert server.model_names() == names

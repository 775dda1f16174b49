"""A model must not keep the server down: quarantine, what lifts it, and safe mode when even that is not enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.acceptance.command_line import mms, mms_ok
from tests.acceptance.poison import ABORT, EXIT_0, HANG, KILLS_SERVER, RAISES, SEGFAULT, poison
from tests.acceptance.running import ECHO, RunningServer, make_model, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def server(tmp_path: Path, store_url: str | None) -> Iterator[RunningServer]:
    config = {"store_url": store_url, "store_lock_wait": 20} if store_url else {}
    with RunningServer(tmp_path, config=config) as running:
        for name in ("echo", "other"):
            make_model(running.models, name, ECHO)
        yield running


def register(server: RunningServer, url: str) -> None:
    answer = server.manage("POST", f"/models?url={url}&initial_workers=1")
    assert answer.status_code == 200, answer.text


def boots_until_ready(server: RunningServer, most: int) -> int:
    """Start again whenever the server is killed; how many boots it took."""
    for boot in range(1, most + 1):
        server.launch()
        assert server.process is not None

        def ended_or_ready() -> bool:
            assert server.process is not None
            if server.process.poll() is not None:
                return True
            with suppress(httpx.TransportError):
                return server.manage("GET", "/readyz").status_code == 200
            return False

        wait_until(ended_or_ready, seconds=40, what="an end or readiness")
        if server.process.poll() is None:
            return boot
        assert server.process.returncode == -9
    raise AssertionError(f"not ready after {most} boots\n{server.log()}")


def test_a_registration_that_kills_the_server_is_out_after_three_boots_and_the_others_are_served(
    server: RunningServer,
) -> None:
    harmless = server.folder / "harmless"
    poison(server.models, "deadly", KILLS_SERVER, unless=harmless)
    server.start()
    register(server, "echo")
    register(server, "other")
    with suppress(httpx.TransportError):
        server.manage("POST", "/models?url=deadly&initial_workers=1")
    assert server.exit_code() == -9

    assert boots_until_ready(server, 3) <= 3
    assert server.recovery()["safeMode"] is False
    assert server.outcomes() == {"echo": "active", "other": "active", "deadly": "quarantined"}
    assert server.manage("GET", "/readyz").json()["degraded"] == ["deadly"]
    assert server.predict("echo", "x").text == "echo:x"
    assert server.predict("other", "x").text == "other:x"

    described = server.manage("GET", "/models/deadly")
    assert described.status_code == 200
    assert described.json()["state"] == "quarantined"
    assert "died while it loaded only this model (charge 3 of 3)" in described.json()["lastError"]
    refused = server.predict("deadly")
    assert refused.status_code == 503
    assert "quarantined" in refused.json()["message"]
    listed = server.manage("GET", "/models?state=quarantined").json()["models"]
    assert [model["modelName"] for model in listed] == ["deadly"]
    assert "deadly" in mms_ok(server, "quarantine", "list")

    server.kill()  # the quarantine is durable
    server.start()
    assert server.outcomes()["deadly"] == "quarantined"
    harmless.touch()
    assert mms_ok(server, "quarantine", "clear", "deadly") == 'Quarantine of model "deadly" cleared\n'
    assert server.predict("deadly", "x").text == "deadly:x"
    assert server.manage("GET", "/readyz").json()["degraded"] == []
    assert mms_ok(server, "quarantine", "list") == "No model is quarantined.\n"
    assert mms(server, "quarantine", "clear", "deadly").returncode == 1
    server.kill()
    server.start()
    assert server.outcomes()["deadly"] == "active"


HARMS = {
    "segfault": (SEGFAULT, "Segmentation fault"),
    "abort": (ABORT, "Aborted"),
    "exit": (EXIT_0, "while it was loading"),
    "raises": (RAISES, "no weights today"),
}


def test_a_load_that_harms_only_its_worker_is_charged_each_boot_and_quarantined_at_the_third(tmp_path: Path) -> None:
    with RunningServer(tmp_path) as server:
        make_model(server.models, "echo", ECHO)
        harmless = tmp_path / "harmless"
        harmless.touch()
        for name, (how, _) in HARMS.items():
            poison(server.models, name, how, unless=harmless)
        server.start()
        for name in ("echo", *HARMS):
            register(server, name)
        harmless.unlink()
        for outcome in ("failed", "failed", "quarantined"):
            server.kill()
            server.start()
            assert server.outcomes() == {"echo": "active", **dict.fromkeys(HARMS, outcome)}
            assert server.manage("GET", "/readyz").json()["degraded"] == sorted(HARMS)
            assert server.predict("echo", "x").text == "echo:x"
        for name, (_, told) in HARMS.items():
            assert told in server.manage("GET", f"/models/{name}").json()["lastError"]
            assert server.predict(name).status_code == 503
        # A new registration ends it, and is refused like any other where the model still cannot load.
        still = server.manage("POST", "/models?url=raises&initial_workers=1")
        assert still.status_code == 500
        assert server.manage("GET", "/models/raises").json()["state"] == "quarantined"
        harmless.touch()
        register(server, "raises")
        assert server.predict("raises", "x").text == "raises:x"
        server.kill()
        server.start()
        assert server.outcomes()["raises"] == "active"


def test_a_load_that_hangs_ends_at_its_deadline_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    with RunningServer(tmp_path) as server:
        make_model(server.models, "echo", ECHO)
        harmless = tmp_path / "harmless"
        harmless.touch()
        poison(server.models, "slow", HANG, unless=harmless)
        server.start()
        register(server, "echo")
        answer = server.manage("POST", "/models?url=slow&initial_workers=1&startup_timeout=2")
        assert answer.status_code == 200, answer.text
        harmless.unlink()
        server.kill()
        server.start()
        assert server.outcomes() == {"echo": "active", "slow": "failed"}
        assert server.predict("echo", "x").text == "echo:x"
        assert server.recovery()["seconds"] < 15


def test_a_new_archive_of_a_configured_model_ends_its_quarantine(tmp_path: Path) -> None:
    config = {"load_models": "echo,bad", "default_workers_per_model": 1, "quarantine_after": 1}
    with RunningServer(tmp_path, config=config) as server:
        make_model(server.models, "echo", ECHO)
        folder = poison(server.models, "bad", RAISES)
        server.start()
        assert server.outcomes() == {"echo": "active", "bad": "quarantined"}
        server.kill()
        server.start()
        assert server.outcomes() == {"echo": "active", "bad": "quarantined"}
        server.kill()
        (folder / "service.py").write_text(ECHO)
        server.start()
        assert server.outcomes() == {"echo": "active", "bad": "active"}
        assert server.manage("GET", "/readyz").json()["degraded"] == []


def test_three_boots_that_crash_bring_up_safe_mode_and_resume_leaves_it(server: RunningServer) -> None:
    armed = server.folder / "armed"
    make_model(server.models, "configured", ECHO)
    poison(server.models, "deadly", f"os.path.exists({str(armed)!r}) and ({KILLS_SERVER.replace(';', ',')})")
    server.config |= {"quarantine_after": 10, "load_models": "configured", "default_workers_per_model": 1}
    server.start()
    register(server, "echo")
    register(server, "deadly")
    assert server.manage("PUT", "/models/echo?batch_size=5").status_code == 200
    server.kill()
    armed.touch()
    for _ in range(3):
        server.launch()
        assert server.exit_code(40) == -9
    server.launch()
    wait_until(lambda: server.is_live() and server.recovery()["state"] == "complete", what="safe mode")
    report = server.recovery()
    assert report["safeMode"] is True
    assert set(server.outcomes().values()) == {"skipped"}
    unready = server.manage("GET", "/readyz")
    assert unready.status_code == 503
    assert "safe mode" in unready.json()["reason"]
    assert server.model_names() == ["configured", "deadly", "echo"]
    assert server.manage("GET", "/models/configured?details=true").json()["state"] == "pending"
    assert server.predict("echo").status_code == 503
    assert "Safe mode" in mms_ok(server, "recovery")

    # Management is open: the bad one goes, another one is changed without being loaded.
    assert server.manage("DELETE", "/models/deadly").status_code == 200
    assert server.manage("PUT", "/models/echo?batch_size=6").status_code == 200
    assert server.manage("GET", "/models/echo").json()["workers"] == []
    lives = server.manage("GET", "/incarnations").json()["incarnations"]
    assert [life["state"] for life in lives[:4]] == ["booting"] * 4

    assert "echo" in mms_ok(server, "recovery", "resume")
    assert server.manage("GET", "/readyz").json()["reason"] == "ready"
    assert server.recovery()["safeMode"] is False
    assert server.outcomes() == {"configured": "active", "deadly": "skipped", "echo": "active"}
    assert server.manage("GET", "/models/echo").json()["batchSize"] == 6
    assert server.predict("echo", "x").text == "echo:x"
    assert server.manage("GET", "/incarnations").json()["incarnations"][0]["state"] == "running"
    assert server.manage("POST", "/recovery/resume").status_code == 200  # nothing is left to do
    assert server.stop() == 0
    server.start("--recover")
    assert server.model_names() == ["configured", "echo"]


def test_a_server_in_safe_mode_is_never_marked_clean(tmp_path: Path) -> None:
    with RunningServer(tmp_path, environment={"MMS_FAILPOINTS": "boot.planned=kill"}) as server:
        make_model(server.models, "echo", ECHO)
        server.environment = {}
        server.start()
        register(server, "echo")
        server.kill()
        server.environment = {"MMS_FAILPOINTS": "boot.planned=kill"}
        for _ in range(3):
            server.launch()
            assert server.exit_code() == -9
        server.environment = {}
        server.launch()
        wait_until(lambda: server.is_live() and server.recovery()["state"] == "complete", what="safe mode")
        assert server.recovery()["safeMode"] is True
        server.stop()
        server.start()
        assert server.recovery()["decision"] == "REPLAY"
        assert server.outcomes() == {"echo": "active"}

"""A real server whose database goes away, lies or hangs: predictions never notice, changes are refused or made, never lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.acceptance.running import ECHO, RunningServer, make_model, wait_until
from tests.postgres_proxy import Fault, PostgresProxy
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.slow


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """One that a test may kill without harm to the others."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


def started(folder: Path, url: str, **config: object) -> RunningServer:
    server = RunningServer(folder, config={"store_url": url, "heartbeat_interval": 1, **config})
    for name in ("echo", "other"):
        make_model(server.models, name, ECHO)
    return server


def register(server: RunningServer, url: str) -> httpx.Response:
    return server.manage("POST", f"/models?url={url}&initial_workers=1")


def store_says(server: RunningServer, health: str) -> None:
    def answers() -> bool:
        readiness = server.manage("GET", "/readyz")
        assert readiness.status_code == 200, readiness.text
        return bool(readiness.json()["store"] == health)

    wait_until(answers, seconds=30, what=f"store {health}")


def refused_without_effect(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.json()["outcome"] == "not-committed"


def test_two_servers_in_one_database_do_not_see_each_other_and_a_second_one_of_a_name_is_refused(
    tmp_path: Path, postgres_url: str
) -> None:
    first = started(tmp_path / "first", postgres_url, server_id="first")
    second = started(tmp_path / "second", postgres_url, server_id="second")
    twin = started(tmp_path / "twin", postgres_url, server_id="first")
    with first, second, twin:
        first.start()
        second.start()
        assert register(first, "echo").status_code == 200
        assert register(second, "other").status_code == 200
        assert (first.model_names(), second.model_names()) == (["echo"], ["other"])
        assert [entry["seq"] for entry in second.manage("GET", "/journal").json()["entries"]] == [1]
        began = time.monotonic()
        twin.launch()
        assert twin.exit_code() == 75
        assert time.monotonic() - began < 20
        assert str(first.pid) in twin.log()
        assert register(first, "other").status_code == 200  # the one that holds it goes on
        first.kill()
        second.kill()
        first.config["store_lock_wait"] = second.config["store_lock_wait"] = 20
        first.start()
        second.start()
        assert (first.model_names(), second.model_names()) == (["echo", "other"], ["other"])


def test_a_database_that_is_killed_and_comes_back_is_used_again_by_itself(
    tmp_path: Path, own_postgres: PostgresServer
) -> None:
    with started(tmp_path, own_postgres.url("postgres")) as server:
        server.start()
        assert register(server, "echo").status_code == 200
        own_postgres.kill()
        store_says(server, "unreachable")
        refused_without_effect(register(server, "other"))
        refused_without_effect(server.manage("DELETE", "/models/echo"))
        assert server.predict("echo", "x").text == "echo:x"
        assert server.model_names() == ["echo"]
        assert server.manage("GET", "/recovery").status_code == 200
        own_postgres.start()
        store_says(server, "ok")
        assert register(server, "other").status_code == 200
        own_postgres.restart()  # an orderly one, between two heartbeats or not
        wait_until(lambda: server.manage("PUT", "/models/echo?batch_size=4").status_code == 200, what="a change")
        server.kill()
        server.config["store_lock_wait"] = 20
        server.start()
        assert server.model_names() == ["echo", "other"]
        assert server.manage("GET", "/models/echo").json()["batchSize"] == 4


def test_a_failover_to_a_synchronous_standby_is_survived_without_a_restart(
    tmp_path: Path, own_postgres: PostgresServer
) -> None:
    standby = PostgresServer(primary=own_postgres)
    proxy = PostgresProxy(own_postgres.port)
    try:
        standby.start()
        own_postgres.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        own_postgres.execute("SELECT pg_reload_conf()")
        with started(tmp_path, proxy.url(own_postgres.url("postgres"))) as server:
            server.start()
            assert register(server, "echo").status_code == 200
            proxy.arm(Fault.REFUSE)
            own_postgres.kill()
            store_says(server, "unreachable")
            proxy.lead_to(standby.port)
            proxy.arm(Fault.NONE)  # the standby answers, and takes no writes yet
            refused_without_effect(register(server, "other"))
            assert server.predict("echo", "x").text == "echo:x"
            standby.execute("SELECT pg_promote()")
            store_says(server, "ok")
            assert register(server, "other").status_code == 200
            server.kill()
            server.config["store_lock_wait"] = 20
            server.start()
            assert server.model_names() == ["echo", "other"]
    finally:
        proxy.close()
        standby.remove()


def test_a_database_that_is_away_at_boot_is_waited_for(tmp_path: Path, own_postgres: PostgresServer) -> None:
    with started(tmp_path, own_postgres.url("postgres"), store_lock_wait=20) as server:
        server.start()
        assert register(server, "echo").status_code == 200
        server.kill()
        own_postgres.kill()
        server.launch()
        wait_until(lambda: "cannot be reached yet" in server.log(), what="the wait")
        own_postgres.start()
        wait_until(server.is_ready, what="ready")
        assert server.outcomes() == {"echo": "active"}


@pytest.fixture
def proxied(tmp_path: Path, postgres_server: PostgresServer) -> Iterator[tuple[RunningServer, PostgresProxy]]:
    proxy = PostgresProxy(postgres_server.port)
    name = postgres_server.new_database()
    try:
        with started(tmp_path, proxy.url(postgres_server.url(name))) as server:
            server.start()
            assert register(server, "echo").status_code == 200
            yield server, proxy
    finally:
        proxy.close()
        postgres_server.drop_database(name)


def test_connections_that_are_cut_are_made_anew(proxied: tuple[RunningServer, PostgresProxy]) -> None:
    server, proxy = proxied
    proxy.arm(Fault.REFUSE)
    refused_without_effect(register(server, "other"))
    store_says(server, "unreachable")
    assert server.predict("echo", "x").text == "echo:x"
    proxy.arm(Fault.NONE)
    store_says(server, "ok")
    assert register(server, "other").status_code == 200


@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE_COMMIT, Fault.CUT_AFTER_COMMIT, Fault.SILENT_FROM_COMMIT])
def test_a_commit_whose_answer_never_comes_has_one_effect_or_none_and_the_answer_says_which(
    proxied: tuple[RunningServer, PostgresProxy], fault: Fault
) -> None:
    server, proxy = proxied
    proxy.arm(fault)
    began = time.monotonic()
    answer = server.manage(
        "POST", "/models?url=other&initial_workers=1&batch_size=3", headers={"Idempotency-Key": "once"}
    )
    assert time.monotonic() - began < 30
    assert server.predict("echo", "x").text == "echo:x"
    if answer.status_code == 200:
        assert server.model_names() == ["echo", "other"]
    else:
        assert answer.status_code == 503
        assert answer.json()["outcome"] in ("not-committed", "unknown")
    proxy.arm(Fault.NONE)

    def repeated() -> bool:
        with suppress(httpx.TransportError):
            again = server.manage(
                "POST", "/models?url=other&initial_workers=1&batch_size=3", headers={"Idempotency-Key": "once"}
            )
            return again.status_code == 200
        return False

    wait_until(repeated, seconds=40, what="the repeated request's answer")
    assert server.manage("GET", "/models/other").json()["batchSize"] == 3
    server.kill()
    server.config["store_lock_wait"] = 30
    server.start()
    assert server.model_names() == ["echo", "other"]
    entries = server.manage("GET", "/journal?model=other").json()["entries"]
    assert {entry["operation"] for entry in entries} == {"register"}
    assert entries[-1]["outcome"] == "done"

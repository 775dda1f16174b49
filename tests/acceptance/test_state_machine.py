"""Any order of changes, stops, crashes and boot flags against a real server, checked against a ten-line model of what must be there."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.acceptance.running import ECHO, RunningServer, make_model
from tests.postgres_server import PostgresServer

EXAMPLES = int(os.environ.get("MMS_STATE_MACHINE_EXAMPLES", "4"))
STEPS = int(os.environ.get("MMS_STATE_MACHINE_STEPS", "14"))
NAMES = ("a", "b", "c")
CONFIGURED = "conf"  # a start-up model: what the operator says of it is laid over the configuration

Rows = dict[str, dict[str, int] | None]
"""Model name to overrides; None is a tombstone."""


class Expected:
    """What must be there: the rows of each generation, which of them hold changes, which a clean start abandoned."""

    def __init__(self) -> None:
        self.generations: list[Rows] = [{}]
        self.abandoned: set[int] = set()
        self.current = 0
        self.images: dict[int, tuple[int, Rows]] = {}  # journal number -> generation, rows right after it

    @property
    def rows(self) -> Rows:
        return self.generations[self.current]

    def begin(self, *, clean: bool) -> None:
        if clean:
            self.abandoned |= set(range(len(self.generations)))
        self.generations.append({})
        self.current = len(self.generations) - 1

    def recover(self) -> None:
        held = [i for i, rows in enumerate(self.generations) if rows and i not in self.abandoned]
        self.current = held[-1] if held else self.current

    def served(self) -> dict[str, dict[str, int]]:
        configured: Rows = {CONFIGURED: {}}
        return {name: said for name, said in (configured | self.rows).items() if said is not None}


class Story(RuleBasedStateMachine):
    """One server's life after life; `postgres` is set by the test."""

    postgres: PostgresServer | None = None

    def __init__(self) -> None:
        super().__init__()
        self.expected = Expected()
        self.folder = Path(tempfile.mkdtemp(prefix="mms-story-"))
        config: dict[str, Any] = {"load_models": f"{CONFIGURED}=echo", "default_workers_per_model": 1}
        self.database = self.postgres.new_database() if self.postgres else None
        if self.postgres and self.database:
            config |= {"store_url": self.postgres.url(self.database), "store_lock_wait": 30}
        self.server = RunningServer(self.folder, config=config)
        make_model(self.server.models, "echo", ECHO)

    @initialize()
    def first_boot(self) -> None:
        self.boot("MANIFEST")

    def teardown(self) -> None:
        self.server.__exit__(None, None, None)
        if self.postgres and self.database:
            self.postgres.drop_database(self.database)
        shutil.rmtree(self.folder)

    # --- changes -----------------------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), workers=st.integers(0, 1), size=st.integers(1, 9))
    def register(self, name: str, workers: int, size: int) -> None:
        query = f"url=echo&model_name={name}&initial_workers={workers}&batch_size={size}"
        answer = self.server.manage("POST", f"/models?{query}")
        if self.expected.rows.get(name) is not None:
            assert answer.status_code == 409, answer.text
            return
        assert answer.status_code == 200, answer.text
        self.expected.rows[name] = {"min_workers": workers, "batch_size": size}
        self.acknowledged()

    @rule(name=st.sampled_from((*NAMES, CONFIGURED)), size=st.integers(1, 9))
    def override(self, name: str, size: int) -> None:
        self.change("PUT", f"/models/{name}?batch_size={size}", name, {"batch_size": size})

    @rule(name=st.sampled_from((*NAMES, CONFIGURED)), workers=st.integers(0, 2))
    def scale(self, name: str, workers: int) -> None:
        path = f"/models/{name}?min_worker={workers}&max_worker={workers}&synchronous=true"
        self.change("PUT", path, name, {"min_workers": workers, "max_workers": workers})

    @rule(name=st.sampled_from((*NAMES, CONFIGURED)))
    def unregister(self, name: str) -> None:
        self.change("DELETE", f"/models/{name}", name, None)

    def change(self, method: str, path: str, name: str, said: dict[str, int] | None) -> None:
        answer = self.server.manage(method, path)
        before = self.expected.served().get(name)
        if before is None:
            assert answer.status_code == 404, answer.text
            return
        assert answer.status_code == 200, answer.text
        self.expected.rows[name] = None if said is None else {**before, **said}
        self.acknowledged()

    @precondition(lambda self: bool(self.expected.images))
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(sorted(self.expected.images)))
        generation, rows = self.expected.images[seq]
        answer = self.server.manage("POST", f"/restore?seq={seq}")
        if generation in self.expected.abandoned:
            assert answer.status_code == 400, answer.text
            return
        assert answer.status_code == 200, answer.text
        assert answer.json()["applied"] is True or answer.json()["plan"] == []
        self.expected.generations[self.expected.current] = _restored(self.expected.rows, rows)
        if answer.json()["plan"]:
            self.acknowledged()

    def acknowledged(self) -> None:
        self.expected.images[self.last_seq()] = (self.expected.current, copy.deepcopy(self.expected.rows))
        self.check()

    def last_seq(self) -> int:
        after = 0
        while entries := self.server.manage("GET", f"/journal?after={after}").json()["entries"]:
            after = entries[-1]["seq"]
        return after

    # --- lives -------------------------------------------------------------------------------------------------------

    @rule(flag=st.sampled_from(("", "--recover", "--clean-start")))
    def crash(self, flag: str) -> None:
        self.server.kill()
        self.next_life(flag, crashed=True)

    @rule(flag=st.sampled_from(("", "--recover", "--clean-start")))
    def clean_stop(self, flag: str) -> None:
        assert self.server.stop() == 0
        self.next_life(flag, crashed=False)

    def next_life(self, flag: str, *, crashed: bool) -> None:
        if flag == "--clean-start":
            self.expected.begin(clean=True)
            self.boot("CLEAN", flag)
        elif flag == "--recover":
            self.expected.recover()
            self.boot("REPLAY", flag)
        elif crashed:
            self.boot("REPLAY")
        else:
            self.expected.begin(clean=False)
            self.boot("MANIFEST")

    def boot(self, decision: str, *flags: str) -> None:
        self.server.start(*flags)
        assert self.server.recovery()["decision"] == decision
        self.check()

    def check(self) -> None:
        """The models that are there, and what was said of each, are those of the model of what must be there."""
        expected = self.expected.served()
        assert self.server.model_names() == sorted(expected)
        for name, said in expected.items():
            described = self.server.manage("GET", f"/models/{name}").json()
            assert described["batchSize"] == said.get("batch_size", 1)
            assert described["minWorkers"] == said.get("min_workers", 1)
            if described["minWorkers"]:
                assert self.server.predict(name, "x").text == f"{name}:x"


def _restored(now: Rows, then: Rows) -> Rows:
    """Rows after a restore: those of then; what has come since is a tombstone, or back to its configuration."""
    rows = copy.deepcopy(then)
    for name in now:
        if name not in then:
            rows[name] = {} if name == CONFIGURED else None
    return rows


def run(postgres: PostgresServer | None) -> None:
    story = type("TheStory", (Story,), {"postgres": postgres})
    run_state_machine_as_test(
        story,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # a failing story prints its steps; shrinking it would take hundreds of boots
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_any_order_of_changes_and_lives_on_sqlite() -> None:
    run(None)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_any_order_of_changes_and_lives_on_postgres(postgres_server: PostgresServer) -> None:
    run(postgres_server)

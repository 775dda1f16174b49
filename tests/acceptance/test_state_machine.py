"""Any order of what operators and accidents do, against a real server, beside a model of ten lines of what must be there.

`MMS_STATE_MACHINE=RUNSxSTEPS` draws more and longer stories than the suite does.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.acceptance.running import ECHO, RunningServer, make_model
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.slow

RUNS, STEPS = (int(part) for part in os.environ.get("MMS_STATE_MACHINE", "2x12").split("x"))
NAMES = st.sampled_from(["a", "b", "c"])
CONFIGURED = "conf"

Wanted = dict[str, dict[str, int]]
"""Model name to its overrides; the configured model is there from the start."""


@dataclass
class Expected:
    """The model: generations of wanted rows, which of them is current, and what every journal number left behind."""

    generations: dict[int, Wanted] = field(default_factory=dict)
    current: int = 0
    abandoned_below: int = 0
    touched: dict[int, set[str]] = field(
        default_factory=dict
    )  # by generation: names that the API ever registered in it
    points: list[tuple[int, int, Wanted]] = field(default_factory=list)  # journal number, generation, wanted then

    @property
    def wanted(self) -> Wanted:
        return self.generations[self.current]

    def boot(self, decision: str, generation: int) -> None:
        if decision != "REPLAY":
            self.generations[generation] = {CONFIGURED: {}}
        self.abandoned_below = generation if decision == "CLEAN" else self.abandoned_below
        self.current = generation

    def recoverable(self) -> int:
        changed = [g for g, rows in self.generations.items() if self.touched.get(g) or rows != {CONFIGURED: {}}]
        return max((g for g in changed if g >= self.abandoned_below), default=self.current)

    def note(self, seq: int) -> None:
        self.touched.setdefault(self.current, set()).update(set(self.wanted) - {CONFIGURED})
        self.points.append((seq, self.current, {name: dict(said) for name, said in self.wanted.items()}))


class OperatorsAndAccidents(RuleBasedStateMachine):
    """Every rule leaves the server ready, so that the invariants can be asked after each."""

    store_url: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="mms-machine-")
        self.expected = Expected()

    @initialize()
    def begin(self) -> None:
        config: dict[str, object] = {"load_models": CONFIGURED, "default_workers_per_model": 1, "access_log": "false"}
        if self.store_url:
            config |= {"store_url": self.new_store(), "store_lock_wait": 20}
        self.server = RunningServer(Path(self.folder.name), config=config)
        for name in (CONFIGURED, "a", "b", "c"):
            make_model(self.server.models, name, ECHO)
        self.boot("MANIFEST")

    def new_store(self) -> str:
        raise NotImplementedError

    def boot(self, decision: str, *flags: str) -> None:
        self.server.start(*flags)
        report = self.server.recovery()
        assert report["decision"] == decision, report["reason"]
        self.expected.boot(decision, report["generation"])

    def change(self, method: str, path: str) -> Any:
        answer = self.server.manage(method, path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def seq(self) -> int:
        entries = self.server.manage("GET", "/journal?limit=1000").json()["entries"]
        return max((int(entry["seq"]) for entry in entries), default=0)

    def changed(self) -> None:
        self.expected.note(self.seq())

    # --- what operators do -------------------------------------------------------------------------------------------

    @rule(name=NAMES, batch_size=st.integers(2, 9))
    def register(self, name: str, batch_size: int) -> None:
        path = f"/models?url={name}&initial_workers=1&batch_size={batch_size}"
        if name in self.expected.wanted:
            assert self.server.manage("POST", path).status_code == 409
            return
        self.change("POST", path)
        self.expected.wanted[name] = {"min_workers": 1, "batch_size": batch_size}
        self.changed()

    @rule(name=st.one_of(NAMES, st.just(CONFIGURED)), batch_size=st.integers(2, 9))
    def override(self, name: str, batch_size: int) -> None:
        path = f"/models/{name}?batch_size={batch_size}"
        if name not in self.expected.wanted:
            assert self.server.manage("PUT", path).status_code == 404
            return
        self.change("PUT", path)
        self.expected.wanted[name]["batch_size"] = batch_size
        self.changed()

    @rule(name=NAMES, workers=st.integers(0, 2))
    def scale(self, name: str, workers: int) -> None:
        if name in self.expected.wanted:
            self.change("PUT", f"/models/{name}?min_worker={workers}&synchronous=true")
            self.expected.wanted[name] |= {"min_workers": workers, "max_workers": workers}
            self.changed()

    @rule(name=st.one_of(NAMES, st.just(CONFIGURED)))
    def unregister(self, name: str) -> None:
        if name not in self.expected.wanted:
            assert self.server.manage("DELETE", f"/models/{name}").status_code == 404
            return
        self.change("DELETE", f"/models/{name}")
        del self.expected.wanted[name]
        self.changed()

    @precondition(lambda self: self.expected.points)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        seq, generation, then = data.draw(st.sampled_from(self.expected.points))
        if generation < self.expected.abandoned_below:
            assert self.server.manage("POST", f"/restore?seq={seq}").status_code == 400
            return
        answer = self.change("POST", f"/restore?seq={seq}")
        assert answer["applied"] is True, answer
        self.expected.generations[self.expected.current] = {name: dict(said) for name, said in then.items()}
        self.changed()

    # --- lives -------------------------------------------------------------------------------------------------------

    @rule()
    def crash(self) -> None:
        self.server.kill()
        self.boot("REPLAY")

    @rule()
    def stop_cleanly(self) -> None:
        assert self.server.stop() == 0
        self.boot("MANIFEST")

    @rule(crashed=st.booleans())
    def recover(self, crashed: bool) -> None:
        self.end(crashed)
        generation = self.expected.recoverable()
        self.boot("REPLAY", "--recover")
        assert self.expected.current == generation

    @rule(crashed=st.booleans())
    def clean_start(self, crashed: bool) -> None:
        self.end(crashed)
        self.boot("CLEAN", "--clean-start")

    def end(self, crashed: bool) -> None:
        if crashed:
            self.server.kill()
        else:
            assert self.server.stop() == 0

    # --- what must be there ------------------------------------------------------------------------------------------

    @invariant()
    def what_was_acknowledged_is_there_and_nothing_else(self) -> None:
        if not self.expected.current:
            return
        assert self.server.model_names() == sorted(self.expected.wanted)
        for name, said in self.expected.wanted.items():
            described = self.server.manage("GET", f"/models/{name}").json()
            workers = said.get("min_workers", 1)
            assert (described["batchSize"], described["minWorkers"]) == (said.get("batch_size", 1), workers), name
            assert len(described["workers"]) == workers, name
            if workers:
                assert self.server.predict(name, "x").text == f"{name}:x"

    def teardown(self) -> None:
        with suppress(AttributeError):
            self.server.__exit__(None, None, None)
        self.folder.cleanup()


@pytest.mark.timeout(240 + 20 * RUNS * STEPS)
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_in_any_order_what_was_acknowledged_is_there(kind: str, request: pytest.FixtureRequest) -> None:
    class Machine(OperatorsAndAccidents):
        pass

    if kind == "postgres":
        postgres: PostgresServer = request.getfixturevalue("postgres_server")
        Machine.store_url = "postgres"
        Machine.new_store = lambda self: postgres.url(postgres.new_database())  # type: ignore[method-assign]
    profile = settings(
        max_examples=RUNS,
        stateful_step_count=STEPS,
        deadline=None,
        phases=(Phase.generate,),  # each step costs a second: shrinking is for whoever looks into a failure
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(Machine, settings=profile)  # type: ignore[no-untyped-call]

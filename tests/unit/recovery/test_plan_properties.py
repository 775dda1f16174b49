"""What holds for every plan, whatever is stored, configured or was loading when a server died."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from mms.records import (
    BootDecision,
    BootFacts,
    Decision,
    LoadAttempt,
    ModelKey,
    Origin,
    Registration,
    RegistrationState,
    ReplayOutcome,
    StartupModel,
)
from mms.recovery.plan import NamedStartupModel, Plan, make_plan

REPLAY = BootDecision(Decision.REPLAY, "crashed", 3)
NAMES = "abcdef"

rows = st.builds(
    Registration,
    key=st.builds(ModelKey, st.sampled_from(NAMES), st.sampled_from(["", "1", "2"])),
    origin=st.sampled_from(Origin),
    state=st.sampled_from(RegistrationState),
    url=st.sampled_from(["", "x.mar"]),
    sha256=st.sampled_from(["", "s1", "s2"]),
    overrides=st.dictionaries(st.sampled_from(["batch_size", "min_workers"]), st.integers(0, 9)),
    charges=st.integers(0, 3),
    requests_seen=st.integers(0, 3),
)
snapshots = st.lists(rows, unique_by=lambda row: row.key, max_size=8).map(
    lambda found: [replace(row, seq=seq) for seq, row in enumerate(found, start=1)]
)
startups = st.lists(
    st.builds(
        NamedStartupModel,
        name=st.sampled_from(NAMES),
        model=st.builds(StartupModel, url=st.sampled_from(["a.mar", "b.mar"])),
        version=st.sampled_from(["", "1"]),
        error=st.sampled_from(["", "", "", "Model not found in model store: a.mar"]),
        sha256=st.sampled_from(["", "s1", "s2"]),
    ),
    max_size=6,
)
facts = st.builds(
    BootFacts,
    last=st.none(),
    open_attempts=st.lists(
        st.builds(
            LoadAttempt,
            epoch=st.integers(1, 3),
            key=st.builds(ModelKey, st.sampled_from(NAMES), st.sampled_from(["", "1"])),
            sha256=st.sampled_from(["", "s1", "s2"]),
        ),
        max_size=4,
    ).map(tuple),
)


@given(snapshots, startups, facts, st.booleans(), st.integers(1, 4))
def test_nothing_that_is_stored_or_configured_is_ever_dropped(
    snapshot: list[Registration], startup: list[NamedStartupModel], facts: BootFacts, safe: bool, limit: int
) -> None:
    plan = make_plan(replace(REPLAY, safe_mode=safe), facts, snapshot, startup, quarantine_after=limit)
    told = Counter(item.registration.key for item in plan.items if item.registration is not None)
    assert told == Counter(row.key for row in snapshot)
    assert Counter(item.url for item in plan.items if item.startup) == Counter(m.model.url for m in startup)
    assert all(item.registration is not None or item.startup for item in plan.items)
    assert not any(item.error for item in plan.items if item.outcome is ReplayOutcome.PENDING)
    if safe:
        assert not any(item.outcome is ReplayOutcome.PENDING for item in plan.items)


@given(snapshots, startups, facts)
def test_what_is_loaded_is_what_the_rules_name(
    snapshot: list[Registration], startup: list[NamedStartupModel], facts: BootFacts
) -> None:
    """The rules of replay once more, name by name and in another form."""
    plan = make_plan(REPLAY, facts, snapshot, startup)
    quarantined_now = {charge.key for charge in plan.charges if charge.quarantine}
    loaded = {(i.key, i.startup) for i in plan.items if i.outcome is ReplayOutcome.PENDING}
    wanted: set[tuple[ModelKey, bool]] = set()
    last_words = {row.key.name: row for row in snapshot}
    for row in last_words.values():
        if row.origin is Origin.API and row.state not in (
            RegistrationState.UNREGISTERED,
            RegistrationState.QUARANTINED,
        ):
            wanted.add((row.key, False))
    for name in {model.name for model in startup}:
        first = next(model for model in startup if model.name == name)
        about = [row for row in snapshot if row.key.name == name]
        last = about[-1:]
        if first.error or any(r.origin is Origin.API and r.state != RegistrationState.UNREGISTERED for r in last):
            continue
        if not about:
            wanted.add((ModelKey(name, first.version), True))
        elif about[-1].state is RegistrationState.QUARANTINED:
            if first.sha256 and about[-1].sha256 and first.sha256 != about[-1].sha256:
                wanted.add((about[-1].key, True))
        elif about[-1].state is not RegistrationState.UNREGISTERED:
            wanted.add((about[-1].key, True))
    assert loaded == {(key, start) for key, start in wanted if key not in quarantined_now}


@given(snapshots, startups, facts, st.randoms())
def test_the_waves_are_in_order_and_every_suspect_is_alone(
    snapshot: list[Registration], startup: list[NamedStartupModel], facts: BootFacts, shuffle: random.Random
) -> None:
    plan = make_plan(REPLAY, facts, snapshot, startup)
    waves = [item.wave for item in plan.items]
    assert waves == sorted(waves)
    assert [wave for wave in waves if wave] == list(range(1, max(waves, default=0) + 1))
    assert all(item.wave == 0 for item in plan.items if item.outcome is not ReplayOutcome.PENDING)
    seen = [i.registration.requests_seen if i.registration else 0 for i in plan.items if i.wave == 0]
    assert seen == sorted(seen, reverse=True)
    shuffled = list(snapshot)
    shuffle.shuffle(shuffled)
    assert make_plan(REPLAY, facts, shuffled, startup) == plan, "the order in which rows are read does not matter"


@given(snapshots, startups, facts, st.integers(1, 4))
def test_a_charge_is_for_a_model_that_was_alone_and_is_wanted(
    snapshot: list[Registration], startup: list[NamedStartupModel], facts: BootFacts, limit: int
) -> None:
    plan = make_plan(REPLAY, facts, snapshot, startup, quarantine_after=limit)
    newest = max((a.epoch for a in facts.open_attempts), default=0)
    alone = [a for a in facts.open_attempts if a.epoch == newest]
    for charge in plan.charges:
        assert len(alone) == 1
        assert charge.key.name == alone[0].key.name
        assert charge.quarantine == (charge.charges >= limit)
        assert any(item.key == charge.key for item in plan.items)


# --- a small world that boots, loads, dies and boots again ------------------------------------------------------------


@dataclass
class World:
    """A store and its servers, reduced to what planning sees. A poison model kills the server that loads it."""

    rows: dict[ModelKey, Registration]
    poison: frozenset[str]
    parallel: int
    chance: random.Random
    epoch: int = 0
    open: list[LoadAttempt] = field(default_factory=list)
    active: set[str] = field(default_factory=set)
    quarantined: set[str] = field(default_factory=set)

    def plan(self) -> Plan:
        facts = BootFacts(last=None, open_attempts=tuple(self.open))
        return make_plan(REPLAY, facts, list(self.rows.values()), [])

    def boot(self, *, killed_after: int | None = None) -> bool:
        """True if the boot came to its end; `killed_after` is the number of loads after which somebody kills the server."""
        self.epoch += 1
        self.active = set()
        plan = self.plan()
        for charge in plan.charges:
            state = RegistrationState.QUARANTINED if charge.quarantine else self.rows[charge.key].state
            charged = replace(self.rows[charge.key], charges=charge.charges, state=state, last_error=charge.error)
            self.rows[charge.key] = charged
            self.close(charge.key)
        plan_items = [item for item in plan.items if item.outcome is ReplayOutcome.PENDING]
        self.quarantined = {item.key.name for item in plan.items if item.outcome is ReplayOutcome.QUARANTINED}
        loads = 0
        for wave in sorted({item.wave for item in plan_items}):
            waiting = [item.key for item in plan_items if item.wave == wave]
            loading: list[ModelKey] = []
            while waiting or loading:
                while waiting and len(loading) < self.parallel:
                    key = waiting.pop(0)
                    self.open.append(LoadAttempt(self.epoch, key, self.rows[key].sha256))
                    loading.append(key)
                if killed_after is not None and loads >= killed_after:
                    return False
                done = self.chance.choice(loading)
                if done.name in self.poison:
                    return False
                loading.remove(done)
                self.close(done)
                self.rows[done] = replace(self.rows[done], charges=0)
                self.active.add(done.name)
                loads += 1
        return True

    def close(self, key: ModelKey) -> None:
        self.open = [attempt for attempt in self.open if attempt.key != key]


def world_of(count: int, poison: int, parallel: int, chance: random.Random) -> World:
    keys = [ModelKey(f"m{i}", "1") for i in range(count)]
    stored = {
        key: Registration(
            key, Origin.API, RegistrationState.ACTIVE, "x", f"s{i}", seq=i, requests_seen=chance.randrange(4)
        )
        for i, key in enumerate(keys)
    }
    return World(stored, frozenset(key.name for key in chance.sample(keys, poison)), parallel, chance)


@given(st.integers(1, 8), st.integers(0, 3), st.integers(1, 4), st.randoms(use_true_random=False))
def test_poison_is_found_in_a_bounded_number_of_boots_and_nobody_else_is_blamed(
    count: int, poison: int, parallel: int, chance: random.Random
) -> None:
    poison = min(poison, count)
    world = world_of(count, poison, parallel, chance)
    most_boots = 4 * poison + 1  # at worst: one death among others and three alone, for each
    boots = 1
    while not world.boot():
        boots += 1
        assert boots <= most_boots
    assert world.quarantined == world.poison
    assert world.active == {key.name for key in world.rows} - world.poison
    assert world.open == []
    assert world.boot(), "and it stays so"


@given(
    st.integers(1, 8),
    st.integers(1, 4),
    st.lists(st.integers(0, 8), min_size=1, max_size=2),
    st.randoms(use_true_random=False),
)
def test_killed_k_times_during_replay_gives_what_once_gives(
    count: int, parallel: int, kills: list[int], chance: random.Random
) -> None:
    world = world_of(count, 0, parallel, chance)
    everything = {key.name for key in world.rows}
    for kill in kills:
        world.boot(killed_after=kill)
    assert world.boot()
    assert (world.active, world.quarantined, world.epoch) == (everything, set(), len(kills) + 1)
    assert all(row.charges == 0 for row in world.rows.values())

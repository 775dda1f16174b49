"""The five stories of a store that crash points are walked through: what lies there before, one life, and what must hold after it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mms.errors import BootError
from mms.records import (
    BootOptions,
    Caller,
    Change,
    ChangeOutcome,
    Decision,
    IncarnationState,
    ModelKey,
    Operation,
    Origin,
    ProcessIdentity,
    Registration,
    RegistrationState,
)
from mms.recovery.decision import decide
from mms.store.store import Store, StoreConfig

Rows = Mapping[str, tuple[str, int]]
"""Model name to state and batch size, as the snapshot holds them."""

_WHO = ProcessIdentity(host="here", boot_id="b", pid=1, start_ticks=2, version="0")
_STEPS = (
    (Operation.REGISTER, "red", 1),
    (Operation.REGISTER, "blue", 2),
    (Operation.UPDATE, "red", 3),
    (Operation.UNREGISTER, "blue", 2),
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """`before`: how earlier lives ended (`clean`, `crash`), none for a fresh store; `options`: of the life that is killed."""

    name: str
    before: tuple[str, ...]
    options: BootOptions
    goes_on: bool  # whether the killed life continues the generation of the one before it


SCENARIOS: Mapping[str, Scenario] = {
    each.name: each
    for each in (
        Scenario("fresh", (), BootOptions(), goes_on=False),
        Scenario("replay", ("crash",), BootOptions(), goes_on=True),
        Scenario("clean-start", ("crash",), BootOptions(clean_start=True), goes_on=False),
        Scenario("manifest-after-clean", ("clean",), BootOptions(), goes_on=False),
        Scenario("recover", ("clean",), BootOptions(recover=True), goes_on=True),
    )
}


def config(folder: Path) -> StoreConfig:
    """An SQLite store and its witness in one folder; its journal is packed soon, so that each life comes by that."""
    return StoreConfig(
        url=f"sqlite:///{folder}/store.db", server_id="default", data_dir=folder, journal_loose=1, journal_segment=2
    )


def prepare(scenario: Scenario, folder: Path) -> None:
    """Live the earlier lives: one more model than the killed life has, so that generations can be told apart."""
    for end in scenario.before:
        asyncio.run(_live(folder, BootOptions(), lambda _text: None, (*_STEPS, (Operation.REGISTER, "old", 9)), end))


def victim(scenario: Scenario, folder: Path, acknowledgements: int) -> None:
    """The life that is killed; what it acknowledges, it writes into the given file descriptor."""
    # Other names than the earlier life's, so that each journal entry says whose it is.
    steps = [(operation, f"new-{name}", size) for operation, name, size in _STEPS]
    asyncio.run(_live(folder, scenario.options, lambda text: _say(acknowledgements, text), steps, "clean"))


def _say(descriptor: int, text: str) -> None:
    os.write(descriptor, text.encode() + b"\n")


async def _live(
    folder: Path,
    options: BootOptions,
    say: Callable[[str], None],
    steps: Sequence[tuple[Operation, str, int]],
    end: str,
) -> None:
    async with AsyncExitStack() as stack:
        store = await Store.open(replace(config(folder), clean_start=options.clean_start))
        stack.push_async_callback(store.close)
        await store.claim(partial(decide, options=options), _WHO, options.flags)
        say("claimed")
        await store.advance(IncarnationState.RUNNING)
        say("running")
        for number, (operation, name, size) in enumerate(steps):
            state = RegistrationState.UNREGISTERED if operation is Operation.UNREGISTER else RegistrationState.PENDING
            row = Registration(
                ModelKey(name), Origin.API, state, url=f"{name}.mar", sha256="s", overrides={"batch_size": size}
            )
            begun = await store.begin(Change(operation, row, Caller("tester", "r", f"{end}-{name}-{number}", "digest")))
            say("begun")
            assert hasattr(begun, "row")
            after = (
                begun.row if operation is Operation.UNREGISTER else replace(begun.row, state=RegistrationState.ACTIVE)
            )
            await store.finish(begun, ChangeOutcome.DONE, {"status": 200}, after)  # type: ignore[arg-type]
            say("finished")
            await store.pack()
            say("packed")
        if end == "clean":
            await store.advance(IncarnationState.STOPPING, "stop")
            say("stopping")
            await store.advance(IncarnationState.CLEAN, "stop")
            say("clean")
    say("closed")


def _stages(prefix: str, steps: Sequence[tuple[Operation, str, int]], start: Rows) -> list[Rows]:
    """The rows before the first transaction of a change and after each of them."""
    rows = dict(start)
    stages: list[Rows] = [dict(rows)]
    for operation, name, size in steps:
        gone = operation is Operation.UNREGISTER
        rows[prefix + name] = ("unregistered" if gone else "pending", size)
        stages.append(dict(rows))
        rows[prefix + name] = ("unregistered" if gone else "active", size)
        stages.append(dict(rows))
    return stages


def wrong_after(scenario: Scenario, folder: Path, said: Sequence[str]) -> list[str]:
    """The next plain boot, and all that is wrong with it, given what the killed life had acknowledged."""
    try:
        return asyncio.run(_judge(scenario, folder, said))
    except BootError as error:
        return [f"the store cannot be opened any more: {error.message}"]


async def _judge(scenario: Scenario, folder: Path, said: Sequence[str]) -> list[str]:
    store = await Store.open(config(folder))
    try:
        incarnation, decision, facts = await store.claim(partial(decide, options=BootOptions()), _WHO, ())
        rows = {row.key.name: (row.state.value, row.overrides["batch_size"]) for row in await store.snapshot()}
        numbers = [entry.seq for entry in await store.journal(limit=1000)]
        if numbers != list(range(1, store.last_seq + 1)):
            return [f"the journal reaches number {store.last_seq} and has the entries {numbers}"]
    finally:
        await store.close()
    lives = len(scenario.before)
    visible = facts.last is not None and facts.last.epoch == lives + 1
    if not visible and "claimed" in said:
        return [f"the claim was acknowledged and is forgotten: the last life is {facts.last}"]
    if facts.last is not None and incarnation.epoch != facts.last.epoch + 1:
        return [f"epoch {incarnation.epoch} follows {facts.last.epoch}"]
    if not visible:
        return _world_before(scenario, decision.decision, rows)
    assert facts.last is not None
    return _world_after(scenario, facts.last.state, decision.decision, rows, said)


def _old_rows(scenario: Scenario) -> Rows:
    if not scenario.before:
        return {}
    return _stages("", (*_STEPS, (Operation.REGISTER, "old", 9)), {})[-1]


def _world_before(scenario: Scenario, decision: Decision, rows: Rows) -> list[str]:
    """The claim never happened: everything is as the life before left it."""
    crashed = scenario.before[-1:] == ("crash",)
    wanted = (Decision.REPLAY, _old_rows(scenario)) if crashed else (Decision.MANIFEST, {})
    return [] if (decision, rows) == wanted else [f"before the claim: {decision}, {rows}; not {wanted}"]


def _world_after(
    scenario: Scenario, state: IncarnationState, decision: Decision, rows: Rows, said: Sequence[str]
) -> list[str]:
    found = []
    order = list(IncarnationState)
    reached = [each for each in order if each.value in said]
    least = reached[-1] if reached else IncarnationState.BOOTING
    if order.index(state) < order.index(least):
        found.append(f"the state {least} was acknowledged and the store says {state}")
    if order.index(state) > order.index(least) + 1:
        found.append(f"the store says {state}, and no more than {least} was acknowledged")
    if state is IncarnationState.CLEAN:
        if (decision, rows) != (Decision.MANIFEST, {}):
            found.append(f"after the clean mark: {decision} with {rows}")
        return found
    if decision is not Decision.REPLAY:
        found.append(f"after a crash while {state} the decision was {decision}")
    stages = _stages("new-", _STEPS, _old_rows(scenario) if scenario.goes_on else {})
    done = sum(text in ("begun", "finished") for text in said)
    if rows not in stages[done : done + 2]:
        found.append(f"after {done} acknowledged transactions of changes the rows are {rows}, not {stages[done]}")
    return found

"""Small words for tests about the store: a life of a server, a change, a decision."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from mms.records import (
    Begun,
    BootDecision,
    BootFacts,
    Caller,
    Change,
    ChangeOutcome,
    Decision,
    ModelKey,
    Operation,
    Origin,
    ProcessIdentity,
    Registration,
    RegistrationState,
)
from mms.store.store import Store, StoreConfig

WHO = ProcessIdentity(host="here", boot_id="b", pid=1, start_ticks=2, version="0")


def manifest(_facts: BootFacts) -> BootDecision:
    return BootDecision(Decision.MANIFEST, "it stopped cleanly")


def clean(_facts: BootFacts) -> BootDecision:
    return BootDecision(Decision.CLEAN, "asked for")


def replay(facts: BootFacts) -> BootDecision:
    assert facts.last is not None
    return BootDecision(Decision.REPLAY, "it crashed", generation=facts.last.generation)


def auto(facts: BootFacts) -> BootDecision:
    return manifest(facts) if facts.last is None or not facts.last.crashed else replay(facts)


@asynccontextmanager
async def life(config: StoreConfig, decide: Callable[[BootFacts], BootDecision] = auto) -> AsyncIterator[Store]:
    """A claimed store; closing it without CLEAN is what a crash leaves."""
    store = await Store.open(config)
    try:
        await store.claim(decide, WHO, ())
        yield store
    finally:
        await store.close()


def wish(name: str = "magika", *, version: str = "", overrides: Mapping[str, Any] | None = None) -> Registration:
    return Registration(
        key=ModelKey(name, version),
        origin=Origin.API,
        state=RegistrationState.PENDING,
        url=f"{name}.mar",
        sha256=f"sha-{name}",
        overrides=overrides or {},
    )


def change(row: Registration, operation: Operation = Operation.REGISTER, *, key: str | None = None) -> Change:
    return Change(operation, row, Caller("tester", "r-1", key, f"digest of {key}"))


async def begun(store: Store, row: Registration, operation: Operation = Operation.REGISTER) -> Begun:
    answer = await store.begin(change(row, operation))
    assert isinstance(answer, Begun)
    return answer


async def registered(store: Store, name: str = "magika", **overrides: Any) -> Registration:
    """Register a model, well."""
    first = await begun(store, wish(name, overrides=overrides))
    active = replace(first.row, state=RegistrationState.ACTIVE)
    await store.finish(first, ChangeOutcome.DONE, {"status": 200}, active)
    return active

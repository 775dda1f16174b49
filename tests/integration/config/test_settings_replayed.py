"""Storing and replaying changes no setting and no provenance: any history of overrides, through a real store and a crash."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mms.config.options import MODEL_OPTIONS
from mms.config.provenance import numbered
from mms.config.resolve import resolve_model
from mms.config.sources import ConfigSources
from mms.config.values import parse_api
from mms.records import Caller, Operation, Registration, RegistrationState
from mms.store.store import StoreConfig
from mms.wanted import WantedState
from mms.wishes import ChangeResult, ChangeStatus
from tests.store_life import life, wish

VALUES = {
    "preload_model": ["true", "false"],
    "response_timeout": ["0.25", "1", "3600"],
    "startup_timeout": ["0.5", "2"],
}
OPTIONS = {option.name: option for option in MODEL_OPTIONS}
SAID = st.dictionaries(
    st.sampled_from(sorted(OPTIONS)), st.integers(0, 2), max_size=4
)  # by option, which of its values; parsed as the API does
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just(Operation.UPDATE), SAID),
        st.tuples(st.just(Operation.REMOVE_OVERRIDE), st.sampled_from(sorted(OPTIONS))),
        st.tuples(st.just(Operation.UNREGISTER), st.just(None)),
    ),
    max_size=6,
)


def parsed(said: dict[str, int]) -> dict[str, Any]:
    texts = {name: VALUES.get(name, ["3", "4", "5"]) for name in said}
    return {name: parse_api(OPTIONS[name], texts[name][which % len(texts[name])]) for name, which in said.items()}


async def change(state: WantedState, operation: Operation, row: Registration) -> None:
    begun = await state.begin(operation, row, Caller())
    assert not isinstance(begun, ChangeResult)
    await state.done(begun, ChangeResult(ChangeStatus.UPDATED, row.key.name))


async def tell(state: WantedState, name: str, first: dict[str, int], steps: list[tuple[Operation, Any]]) -> None:
    """Register a model and change it, as the manager does; what is unregistered is registered anew."""
    await change(state, Operation.REGISTER, wish(name, overrides=parsed(first)))
    for operation, what in steps:
        row = state.rows[name]
        if operation is Operation.UPDATE:
            await change(state, operation, replace(row, overrides={**row.overrides, **parsed(what)}))
        elif operation is Operation.REMOVE_OVERRIDE and what in row.overrides:
            rest = {option: value for option, value in row.overrides.items() if option != what}
            await change(state, operation, replace(row, overrides=rest))
        elif operation is Operation.UNREGISTER:
            await change(state, operation, replace(row, state=RegistrationState.UNREGISTERED))
            await change(state, Operation.REGISTER, wish(name, overrides=parsed(first)))


async def explained(state: WantedState, name: str) -> Any:
    resolved = resolve_model(
        ConfigSources(), name, overrides=state.rows[name].overrides, manifest_settings={"batchSize": 2}, startup=False
    )
    return replace(resolved, explained=numbered(resolved.explained, await state.override_numbers(name)))


async def live_twice(config: StoreConfig, name: str, first: dict[str, int], steps: list[tuple[Operation, Any]]) -> None:
    async with life(config) as store:
        state = WantedState(store)
        state.adopt(await store.snapshot())
        await tell(state, name, first, steps)
        before = await explained(state, name)
        assert set(state.override_seqs[name]) == set(state.rows[name].overrides)  # all known, none left over
    async with life(config) as store:
        state = WantedState(store)
        state.adopt(await store.snapshot())
        after = await explained(state, name)

    assert after == before
    for option, one in after.explained.items():
        assert type(one.value) is type(before.explained[option].value)
        if one.chosen.source == "api":
            assert one.chosen.where.startswith("journal entry ")


@pytest.mark.slow
@settings(max_examples=25)
@given(first=SAID, steps=STEPS)
def test_after_a_replay_every_setting_has_the_same_value_and_the_same_provenance(
    tmp_path_factory: Any, first: dict[str, int], steps: list[tuple[Operation, Any]]
) -> None:
    folder: Path = tmp_path_factory.mktemp("store")
    config = StoreConfig(url=f"sqlite:///{folder / 'store.db'}", server_id="default", data_dir=folder)
    asyncio.run(live_twice(config, "Res-Net.v1", first, steps))

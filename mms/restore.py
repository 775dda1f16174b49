"""The way back to an earlier snapshot, as a readable plan: two sets of rows in, steps out; pure, no database, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from mms.records import Origin, Registration, RegistrationState

_WORKERS = ("min_workers", "max_workers")


class StepKind(StrEnum):
    """What a step does to its model."""

    REGISTER = "register"
    UNREGISTER = "unregister"
    OVERRIDE = "override"
    SCALE = "scale"


@dataclass(frozen=True, slots=True)
class RestoreStep:
    """One model that changes: from `before` (None: not there, or a start-up model nobody touched) to `after`."""

    kind: StepKind
    before: Registration | None
    after: Registration


def restore_plan(current: Mapping[str, Registration], target: Iterable[Registration]) -> list[RestoreStep]:
    """The steps from `current` (by name) to `target`, by name; models that do not change have none.

    A start-up model without a row in the target goes back to what the configuration says of it.
    """
    wanted_then = {row.key.name: row for row in target}  # by seq: the last word on each name
    steps = []
    for name in sorted({*current, *wanted_then}):
        step = _step(current.get(name), wanted_then.get(name))
        if step is not None:
            steps.append(step)
    return steps


def _step(now: Registration | None, then: Registration | None) -> RestoreStep | None:
    if then is None:
        if now is None:
            return None
        if now.origin is Origin.MANIFEST:
            then = replace(now, overrides={}, state=RegistrationState.ACTIVE)
        elif now.wanted:
            return RestoreStep(StepKind.UNREGISTER, now, replace(now, state=RegistrationState.UNREGISTERED))
        else:
            return None
    is_there = now.wanted if now is not None else then.origin is Origin.MANIFEST
    if not then.wanted:
        return RestoreStep(StepKind.UNREGISTER, now, then) if is_there else None
    # States, counters and charges are not what the operator said: they begin anew.
    then = replace(then, state=RegistrationState.PENDING, last_error="", charges=0)
    if not is_there or (now is not None and _archive(now) != _archive(then)):
        return RestoreStep(StepKind.REGISTER, now, then)
    before = now.overrides if now is not None else {}
    if before == then.overrides:
        return None
    scales = any(before.get(option) != then.overrides.get(option) for option in _WORKERS)
    return RestoreStep(StepKind.SCALE if scales else StepKind.OVERRIDE, now, then)


def _archive(row: Registration) -> tuple[Any, ...]:
    """What makes it another model rather than other settings; a start-up model's archive is always today's."""
    if row.origin is Origin.MANIFEST:
        return (row.origin,)
    return row.origin, row.url, row.sha256, row.handler, row.runtime

"""The way back to an earlier snapshot, as a readable plan: two sets of rows in, steps out; pure, no database, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from mms.config.options import MODEL_OPTIONS
from mms.records import Origin, Registration, RegistrationState

_WORKERS = ("min_workers", "max_workers")
_NOT_LIVE = tuple(option.name for option in MODEL_OPTIONS if not option.live)


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
    before = now.overrides if now is not None else {}
    anew = any(before.get(option) != then.overrides.get(option) for option in _NOT_LIVE)
    if not is_there or anew or (now is not None and _identity(now) != _identity(then)):
        return RestoreStep(StepKind.REGISTER, now, then)
    if before == then.overrides:
        return None
    scales = any(before.get(option) != then.overrides.get(option) for option in _WORKERS)
    return RestoreStep(StepKind.SCALE if scales else StepKind.OVERRIDE, now, then)


def _identity(row: Registration) -> tuple[Any, ...]:
    """What makes it another model rather than other settings; a start-up model's archive is always today's."""
    if row.origin is Origin.MANIFEST:
        return (row.origin,)
    return row.origin, row.key.version, row.url, row.sha256, row.handler, row.runtime


def document(steps: Sequence[RestoreStep], errors: Mapping[str, str], *, applied: bool, seq: int) -> dict[str, Any]:
    """A restore as its answer says it and as the journal keeps that answer.

    `errors` are those of single steps, by model name; `seq` is the journal number from which the plan starts: a restore
    to it undoes this one.
    """
    plan = [{**_shown_step(step), **_shown_error(errors.get(step.after.key.name))} for step in steps]
    return {"plan": plan, "applied": applied, "seq": seq}


def _shown_step(step: RestoreStep) -> dict[str, Any]:
    as_configured = step.before is None and step.kind is not StepKind.REGISTER
    before = replace(step.after, overrides={}) if as_configured else step.before
    return {
        "operation": step.kind.value,
        "modelName": step.after.key.name,
        "modelVersion": step.after.key.version,
        "from": _shown_row(before) if before is not None and (as_configured or before.wanted) else None,
        "to": _shown_row(step.after) if step.after.wanted else None,
    }


def _shown_row(row: Registration) -> dict[str, Any]:
    return {
        "origin": row.origin.value,
        "version": row.key.version,
        "url": row.url,
        "sha256": row.sha256,
        "handler": row.handler,
        "runtime": row.runtime,
        "overrides": dict(row.overrides),
    }


def _shown_error(error: str | None) -> dict[str, str]:
    return {} if error is None else {"error": error}

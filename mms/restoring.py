"""Carries out a restore: each step an ordinary change of its own journal entry, one after the other, failures told and isolated."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mms.activation import Prepared
from mms.changes import Changes, untouched_row
from mms.errors import MmsError, ModelConflict, NotCommitted
from mms.gate import Gate
from mms.inference.registry import Registry
from mms.records import Caller, ChangeOutcome, Operation, Registration
from mms.restore import RestoreStep, StepKind, document, restore_plan
from mms.store.store import Store
from mms.wanted import WantedState
from mms.wishes import ChangeResult, ChangeStatus

logger = logging.getLogger(__name__)

PrepareRow = Callable[[Registration], Awaitable[Prepared]]

_ANSWER = "restore"
"""Key of a restore's whole answer in the stored response of its last journal entry."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did, or with a dry run would do; `whole` is False where a step failed."""

    document: Mapping[str, Any]
    whole: bool
    replayed: bool = False


class Restorer:
    """One restore at a time. Single changes may come between its steps; one that hits a step's model makes that step fail."""

    def __init__(
        self,
        state: WantedState,
        gate: Gate,
        registry: Registry,
        changes: Changes,
        store: Store,
        prepare_row: PrepareRow,
    ) -> None:
        self._state = state
        self._gate = gate
        self._registry = registry
        self._changes = changes
        self._store = store
        self._prepare_row = prepare_row
        self._turn = asyncio.Lock()

    async def plan(self, **point: Any) -> list[RestoreStep]:
        """What would change: `seq`, `generation` or `before` name the point to go back to. Raises BadInput, NotCommitted."""
        return restore_plan(self._state.rows, await self._store.snapshot_at(**point))

    async def restore(self, caller: Caller, *, dry_run: bool = False, **point: Any) -> Restored:
        """Go back to a point. Raises BadInput, and NotCommitted where nothing was changed; failures of steps are in the answer.

        Once begun it runs to its end, even where the client that asked has gone.
        """
        if dry_run:
            seq = self._store.last_seq
            return Restored(document(await self.plan(**point), {}, applied=False, seq=seq), True)
        await self._gate.enter()
        return await asyncio.shield(asyncio.ensure_future(self._run(caller, point)))

    async def _run(self, caller: Caller, point: Mapping[str, Any]) -> Restored:
        async with self._turn:
            stored = await self._store.answered(caller)
            if stored is not None:
                answer = stored.response[_ANSWER]
                return Restored(answer, bool(answer["applied"]), replayed=True)
            seq = self._store.last_seq
            steps = await self.plan(**point)
            errors = await self._apply(steps, replace(caller, idempotency_key=None))
            made = document(steps, errors, applied=not errors, seq=seq)
            await self._keep_answer(steps, made, caller)
            return Restored(made, not errors)

    async def _apply(self, steps: Sequence[RestoreStep], caller: Caller) -> dict[str, str]:
        """Every step; the errors by model. Raises NotCommitted where the very first one could not be written."""
        errors: dict[str, str] = {}
        for step in steps:
            name = step.after.key.name
            try:
                await self._gate.change(name, partial(self._take, step, caller))
            except NotCommitted as error:
                if step is steps[0]:
                    raise
                errors[name] = error.message
            except MmsError as error:
                errors[name] = getattr(error, "detail", "") or error.message
            if name in errors:
                logger.warning("Restore of model %s failed: %s", name, errors[name])
        return errors

    async def _keep_answer(self, steps: Sequence[RestoreStep], made: Mapping[str, Any], caller: Caller) -> None:
        """With an Idempotency-Key, one more entry keeps the whole answer; a server that dies before it lets a retry go on."""
        rows = [self._state.rows[step.after.key.name] for step in steps if step.after.key.name in self._state.rows]
        if caller.idempotency_key is None or not rows:
            return
        try:
            begun = await self._state.begin(Operation.RESTORE, rows[-1], caller)
        except MmsError as error:
            logger.warning("The answer of a restore could not be kept under its Idempotency-Key: %s", error.message)
            return
        if not isinstance(begun, ChangeResult):
            await self._state.finish(begun, ChangeOutcome.DONE, {_ANSWER: dict(made)}, begun.row)

    # --- one step ----------------------------------------------------------------------------------------------------

    async def _take(self, step: RestoreStep, caller: Caller) -> ChangeResult:
        name = step.after.key.name
        now, served = self._state.rows.get(name), self._registry.get(name)
        if (now.seq if now else 0) != (step.before.seq if step.before else 0):
            raise ModelConflict(f"Model {name} was changed meanwhile; make the restore again.")
        if step.kind is StepKind.UNREGISTER:
            row = now or (untouched_row(served) if served is not None else step.after)
            return await self._changes.remove(Operation.RESTORE, row, caller)
        if step.kind is StepKind.REGISTER:
            return await self._changes.install(
                Operation.RESTORE, step.after, await self._prepare_row(step.after), caller
            )
        updated = ChangeResult(ChangeStatus.UPDATED, name)
        if served is None:  # quarantined, or left out by safe mode: only the wish goes back
            return await self._changes.note(Operation.RESTORE, _overridden(now or step.after, step), caller, updated)
        return await self._changes.reconfigure(
            Operation.RESTORE,
            served,
            _overridden(now or untouched_row(served), step),
            caller,
            updated,
            scale=step.kind is StepKind.SCALE,
            synchronous=True,
        )


def _overridden(row: Registration, step: RestoreStep) -> Registration:
    return replace(row, overrides=step.after.overrides)

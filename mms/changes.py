"""How a wish becomes fact: bring a model into service, reconfigure it, take it out; each between its two transactions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mms.activation import Activator, Prepared, Said, warn_of_overruled_manifest, with_numbers
from mms.attempts import Attempts
from mms.config.resolve import ModelSettings
from mms.errors import LoadFailed, MmsError, RequestTimedOut
from mms.failpoints import reached
from mms.gate import Gate
from mms.inference.registry import Registry, ServedModel
from mms.records import Begun, Caller, ChangeOutcome, Operation, Origin, Registration, RegistrationState
from mms.wanted import WantedState
from mms.wishes import ChangeResult, ChangeStatus

logger = logging.getLogger(__name__)


class Changes:
    """Applies one change of one model; the caller holds that model's turn at the gate.

    Each verb begins with the transaction that makes the change durable, and ends with the one that records its outcome.
    """

    def __init__(
        self,
        state: WantedState,
        gate: Gate,
        activator: Activator,
        registry: Registry,
        attempts: Attempts,
        *,
        unregister_timeout: float,
    ) -> None:
        self._state = state
        self._gate = gate
        self._attempts = attempts
        self._activator = activator
        self._registry = registry
        self._unregister_timeout = unregister_timeout
        self._watching: set[asyncio.Task[None]] = set()

    # --- into service ------------------------------------------------------------------------------------------------

    async def install(
        self,
        operation: Operation,
        row: Registration,
        prepared: Prepared,
        caller: Caller,
        *,
        synchronous: bool = True,
        told: ChangeStatus | None = None,
    ) -> ChangeResult:
        """Serve `prepared` as `row` says, in place of what is served under its name; that one goes once the new one is there.

        Raises LoadFailed, and then leaves everything as it was; asynchronous ones go on trying. `told` is the answer's
        status where that of the workers is not what was asked for.
        """
        replaced = self._registry.get(row.key.name)
        loads = prepared.settings.min_workers > 0
        begun = await self._state.begin(operation, row, caller, loads=loads)
        if isinstance(begun, ChangeResult):
            return begun
        prepared = replace(prepared, settings=self.numbered(row.key.name, prepared.settings))
        warn_of_overruled_manifest(row.key.name, prepared.settings)
        try:
            status = await self._serve(prepared, synchronous)
        except MmsError as error:
            reached("register.failed")
            await self._state.compensate(begun, error)
            raise
        except Exception as error:
            await self._state.compensate(begun, LoadFailed("Failed to start workers", detail=repr(error)))
            raise
        reached("register.published")
        if replaced is not None:
            await replaced.drain(self._unregister_timeout)
            await replaced.close()
        pending = status is ChangeStatus.PROCESSING
        state = RegistrationState.PENDING if pending else RegistrationState.ACTIVE
        return await self._state.done(begun, ChangeResult(told or status, row.key.name), state=state)

    async def _serve(self, prepared: Prepared, synchronous: bool) -> ChangeStatus:
        served = self._activator.serve(prepared)
        settings = prepared.settings
        if settings.min_workers <= 0:
            self._registry.publish(served)
            return ChangeStatus.REGISTERED
        if not synchronous:
            self._registry.publish(served)
            self._scale_and_watch(served)
            return ChangeStatus.PROCESSING
        try:
            await served.scale(settings.min_workers, settings.max_workers)
        except BaseException:
            await served.close()
            raise
        reached("register.loaded")
        self._registry.publish(served)
        return ChangeStatus.SCALED

    async def _scale_soon(self, served: ServedModel) -> None:
        """Begin to bring the workers to the target, and record later how they fared."""
        if served.settings.min_workers > 0:
            await self._attempts.open(served.key, served.archive.sha256)
        self._scale_and_watch(served)

    def _scale_and_watch(self, served: ServedModel) -> None:
        served.scale_soon(served.settings.min_workers, served.settings.max_workers)
        task = asyncio.create_task(self._settle_when_known(served))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    # --- while in service --------------------------------------------------------------------------------------------

    async def reconfigure(
        self,
        operation: Operation,
        served: ServedModel,
        after: Registration,
        caller: Caller,
        result: ChangeResult,
        *,
        scale: bool,
        synchronous: bool = False,
    ) -> ChangeResult:
        """Put `after`'s overrides in force, live; `result` is the answer where no worker count changes.

        Raises LoadFailed for workers that do not come up; the wish is then kept and they go on being tried, as in MMS.
        """
        name = after.key.name
        settings = self.resolve(served, after.overrides)  # a contradiction is found before anything is written
        begun = await self._state.begin(operation, after, caller)
        if isinstance(begun, ChangeResult):
            return begun
        settings = self.numbered(name, settings)
        before = begun.before.overrides if begun.before is not None else {}
        changed = [option for option, value in after.overrides.items() if before.get(option) != value]
        warn_of_overruled_manifest(name, settings, changed)
        served.configure(settings)
        reached("update.configured")
        if not scale:
            return await self._state.done(begun, result)
        if not synchronous:
            await self._scale_soon(served)
            return await self._state.done(begun, result)
        try:
            async with self._attempts.around(served.key, served.archive.sha256):
                await served.scale(settings.min_workers, settings.max_workers)
        except LoadFailed as error:
            kept = replace(begun.row, state=RegistrationState.FAILED, last_error=error.detail or error.message)
            await self._state.finish(begun, ChangeOutcome.DONE, ChangeResult.failure(error), kept)
            raise
        return await self._state.done(begun, ChangeResult(ChangeStatus.SCALED, name), state=RegistrationState.ACTIVE)

    async def note(
        self, operation: Operation, after: Registration, caller: Caller, result: ChangeResult
    ) -> ChangeResult:
        """Change what is wanted of a model that is kept but not in service: it counts once the model is tried again."""
        begun = await self._state.begin(operation, after, caller)
        return begun if isinstance(begun, ChangeResult) else await self._state.done(begun, result)

    def resolve(self, served: ServedModel, overrides: Mapping[str, Any]) -> ModelSettings:
        """The settings of a served model under these overrides."""
        said = Said(overrides=overrides, startup=served.startup)
        return self._activator.resolve(served.key, served.archive, said)

    def numbered(self, name: str, settings: ModelSettings) -> ModelSettings:
        """The same settings with the journal numbers of the API's values, as far as they are known."""
        return with_numbers(settings, self._state.override_seqs[name])

    # --- out of service ----------------------------------------------------------------------------------------------

    async def remove(self, operation: Operation, row: Registration, caller: Caller) -> ChangeResult:
        """Leave a tombstone; what was accepted is answered first. Raises RequestTimedOut (the model is left with 0 workers)."""
        name = row.key.name
        served = self._registry.get(name)
        tombstone = replace(row, state=RegistrationState.UNREGISTERED, last_error="")
        begun = await self._state.begin(operation, tombstone, caller)
        if isinstance(begun, ChangeResult):
            return begun
        self._registry.withdraw(name)
        reached("unregister.withdrawn")
        if served is not None and not await served.drain(self._unregister_timeout):
            return await self._removal_timed_out(begun, served, row)
        if served is not None:
            await served.close()
        reached("unregister.closed")
        logger.info("Model %s unregistered.", name)
        return await self._state.done(begun, ChangeResult(ChangeStatus.UNREGISTERED, name))

    async def _removal_timed_out(self, begun: Begun, served: ServedModel, row: Registration) -> ChangeResult:
        """MMS's own exception to "4xx: no effect": the model is kept, with no workers."""
        none = {"min_workers": 0, "max_workers": 0}
        await served.close()
        kept = replace(begun.row, state=row.state, overrides={**row.overrides, **none})
        self._state.note_overrides(row.key.name, none, begun.seq)
        error = RequestTimedOut(f"Timed out while cleaning resources: {row.key.name}")
        await self._state.finish(begun, ChangeOutcome.DONE, ChangeResult.failure(error), kept)
        settings = self.numbered(row.key.name, self.resolve(served, kept.overrides))
        again = Prepared(served.key, served.archive, served.handler, served.runtime, settings, served.startup)
        self._registry.publish(self._activator.serve(again))
        raise error

    # --- what is found out later -------------------------------------------------------------------------------------

    async def _settle_when_known(self, served: ServedModel) -> None:
        error = await served.first_outcome()
        if served.settings.min_workers > 0:
            await self._attempts.close(served.key)
        name = served.key.name
        async with self._gate.lock(name):
            row = self._state.rows.get(name)
            if row is None or not row.wanted or self._registry.get(name) is not served:
                return
            state = RegistrationState.ACTIVE if error is None else RegistrationState.FAILED
            text = "" if error is None else (error.detail or error.message)
            if (row.state, row.last_error) != (state, text):
                await self._state.settle(replace(row, state=state, last_error=text))

    async def close(self) -> None:
        """Stop watching; after the gate is drained."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)


def untouched_row(served: ServedModel) -> Registration:
    """The row that a start-up model gets at the operator's first word about it."""
    return Registration(
        key=served.key, origin=Origin.MANIFEST, state=RegistrationState.ACTIVE, sha256=served.archive.sha256
    )

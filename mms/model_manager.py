"""The one write path: register, update, unregister; each change is durable in the store before it is applied or answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from mms.activation import Activator, Prepared, Said
from mms.catalogue import describe
from mms.config.resolve import Explained, ModelSettings
from mms.errors import (
    BadInput,
    LoadFailed,
    ModelConflict,
    ModelNotFound,
    RequestTimedOut,
)
from mms.gate import Gate
from mms.inference.registry import Registry, ServedModel
from mms.records import (
    Begun,
    Caller,
    ChangeOutcome,
    Operation,
    Origin,
    Registration,
    RegistrationState,
)
from mms.wanted import WantedState
from mms.wishes import ChangeResult, ChangeStatus, ModelDescription, RegisterModel, UpdateModel

logger = logging.getLogger(__name__)


class ModelManager:
    """Changes the wanted state and brings the served state in line with it.

    Changes of one model are taken one after the other; changes of different models run side by side.
    """

    def __init__(
        self,
        state: WantedState,
        gate: Gate,
        activator: Activator,
        registry: Registry,
        *,
        unregister_timeout: float,
    ) -> None:
        self._state = state
        self._gate = gate
        self._activator = activator
        self._registry = registry
        self._unregister_timeout = unregister_timeout
        self._watching: set[asyncio.Task[None]] = set()

    async def _change(self, name: str, caller: Caller, verb: Callable[[], Awaitable[ChangeResult]]) -> ChangeResult:
        """One change of one model; a request that was answered before under the same key gets that answer again."""

        async def once() -> ChangeResult:
            return await self._state.answered(caller) or await verb()

        return await self._gate.change(name, once)

    async def close(self) -> None:
        """Stop watching for outcomes; after the gate is drained."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)

    # --- verbs -------------------------------------------------------------------------------------------------------

    async def register(self, wish: RegisterModel, caller: Caller) -> ChangeResult:
        """Register a model. Raises BadInput, ModelNotFound, DownloadFailed, InvalidModel, ModelConflict, LoadFailed, NotCommitted."""
        self._gate.check()
        if answered := await self._state.answered(caller):
            return answered
        archive = await self._activator.open(wish.url)
        said = Said(wish.model_name, wish.handler, wish.runtime, wish.overrides)
        prepared = self._activator.prepare(archive, said)
        name = prepared.key.name
        return await self._change(name, caller, lambda: self._register(wish, prepared, caller))

    async def _register(self, wish: RegisterModel, prepared: Prepared, caller: Caller) -> ChangeResult:
        key = prepared.key
        self._refuse_taken(key.name)
        row = Registration(
            key=key,
            origin=Origin.API,
            state=RegistrationState.PENDING,
            url=wish.url,
            sha256=prepared.archive.sha256,
            handler=wish.handler,
            runtime=wish.runtime,
            overrides=dict(wish.overrides),
        )
        begun = await self._state.begin(Operation.REGISTER, row, caller)
        if isinstance(begun, ChangeResult):
            return begun
        served = self._activator.serve(prepared)
        workers = prepared.settings.min_workers
        if workers <= 0 or not wish.synchronous:
            self._registry.publish(served)
            status = ChangeStatus.REGISTERED if workers <= 0 else ChangeStatus.PROCESSING
            if workers > 0:
                served.scale_soon(workers, prepared.settings.max_workers)
                self._watch(served)
        else:
            try:
                await served.scale(workers, prepared.settings.max_workers)
            except LoadFailed as error:
                await served.close()
                await self._state.compensate(begun, error)
                raise
            self._registry.publish(served)
            status = ChangeStatus.SCALED
        state = RegistrationState.PENDING if status is ChangeStatus.PROCESSING else RegistrationState.ACTIVE
        return await self._state.done(begun, ChangeResult(status, key.name), state=state)

    def _refuse_taken(self, name: str) -> None:
        """A name in service is taken; one that is kept but not in service (quarantined, missing) may be registered anew."""
        if self._registry.get(name) is not None:
            raise ModelConflict(f"Model {name} is already registered.")

    async def update(self, wish: UpdateModel, caller: Caller) -> ChangeResult:
        """Set overrides and scale. Raises BadInput, ModelNotFound, LoadFailed (the wish is kept, as in MMS), NotCommitted."""
        overrides = dict(wish.overrides)
        if wish.scale:
            least = overrides.setdefault("min_workers", 1)
            if overrides.setdefault("max_workers", least) < least:
                raise BadInput("max_worker cannot be less than min_worker.")
        return await self._change(wish.name, caller, lambda: self._update(wish, overrides, caller))

    async def _update(self, wish: UpdateModel, overrides: Mapping[str, Any], caller: Caller) -> ChangeResult:
        served, row = self._wanted(wish.name)
        after = replace(row, overrides={**row.overrides, **overrides})
        resolved = self._resolve(served, after.overrides)
        begun = await self._state.begin(Operation.UPDATE, after, caller)
        if isinstance(begun, ChangeResult):
            return begun
        self._state.note_overrides(wish.name, overrides, begun.seq)
        served.configure(self._resolve(served, after.overrides))
        if not wish.scale:
            return await self._state.done(begun, ChangeResult(ChangeStatus.UPDATED, wish.name))
        target = (resolved.min_workers, resolved.max_workers)
        if not wish.synchronous:
            served.scale_soon(*target)
            self._watch(served)
            return await self._state.done(begun, ChangeResult(ChangeStatus.PROCESSING, wish.name))
        try:
            await served.scale(*target)
        except LoadFailed as error:
            kept = replace(begun.row, state=RegistrationState.FAILED, last_error=error.detail or error.message)
            await self._state.finish(begun, ChangeOutcome.DONE, ChangeResult.failure(error), kept)
            raise
        return await self._state.done(
            begun, ChangeResult(ChangeStatus.SCALED, wish.name), state=RegistrationState.ACTIVE
        )

    async def remove_override(self, name: str, option: str, caller: Caller) -> ChangeResult:
        """Take one override back; the next source shows through. Raises ModelNotFound, BadInput (no such override)."""
        return await self._change(name, caller, lambda: self._remove_override(name, option, caller))

    async def _remove_override(self, name: str, option: str, caller: Caller) -> ChangeResult:
        served, row = self._wanted(name)
        if option not in row.overrides:
            raise BadInput(f"Model {name} has no override of {option}; GET /models/{name}/settings shows what it has.")
        rest = {key: value for key, value in row.overrides.items() if key != option}
        self._resolve(served, rest)
        begun = await self._state.begin(Operation.REMOVE_OVERRIDE, replace(row, overrides=rest), caller)
        if isinstance(begun, ChangeResult):
            return begun
        self._state.override_seqs[name].pop(option, None)
        settings = self._resolve(served, rest)
        served.configure(settings)
        if option in ("min_workers", "max_workers"):
            served.scale_soon(settings.min_workers, settings.max_workers)
            self._watch(served)
        return await self._state.done(begun, ChangeResult(ChangeStatus.OVERRIDE_REMOVED, name, option))

    async def unregister(self, name: str, caller: Caller) -> ChangeResult:
        """Stop serving a model; what was accepted is answered first. Raises ModelNotFound, RequestTimedOut (0 workers are left)."""
        return await self._change(name, caller, lambda: self._unregister(name, caller))

    async def _unregister(self, name: str, caller: Caller) -> ChangeResult:
        served = self._registry.get(name)
        row = self._state.rows.get(name) or self._untouched_row(name)
        if row is None or not row.wanted:
            raise ModelNotFound(f"Model not found: {name}")
        tombstone = replace(row, state=RegistrationState.UNREGISTERED, last_error="")
        begun = await self._state.begin(Operation.UNREGISTER, tombstone, caller)
        if isinstance(begun, ChangeResult):
            return begun
        self._registry.withdraw(name)
        if served is not None and not await served.drain(self._unregister_timeout):
            return await self._unregister_timed_out(begun, served, row)
        if served is not None:
            await served.close()
        logger.info("Model %s unregistered.", name)
        return await self._state.done(begun, ChangeResult(ChangeStatus.UNREGISTERED, name))

    async def _unregister_timed_out(self, begun: Begun, served: ServedModel, row: Registration) -> ChangeResult:
        """MMS's own exception to "4xx: no effect": the model is kept, with no workers."""
        none = {"min_workers": 0, "max_workers": 0}
        await served.close()
        kept = replace(begun.row, state=row.state, overrides={**row.overrides, **none})
        self._state.note_overrides(row.key.name, none, begun.seq)
        error = RequestTimedOut(f"Timed out while cleaning resources: {row.key.name}")
        await self._state.finish(begun, ChangeOutcome.DONE, ChangeResult.failure(error), kept)
        settings = self._resolve(served, kept.overrides)
        again = Prepared(served.key, served.archive, served.handler, served.runtime, settings, served.startup)
        self._registry.publish(self._activator.serve(again))
        raise error

    # --- helpers -----------------------------------------------------------------------------------------------------

    def _wanted(self, name: str) -> tuple[ServedModel, Registration]:
        served = self._registry.get(name)
        row = self._state.rows.get(name) or self._untouched_row(name)
        if served is None or row is None or not row.wanted:
            raise ModelNotFound(f"Model not found: {name}")
        return served, row

    def _untouched_row(self, name: str) -> Registration | None:
        """The row that a start-up model gets at the operator's first word about it."""
        served = self._registry.get(name)
        if served is None:
            return None
        return Registration(
            key=served.key, origin=Origin.MANIFEST, state=RegistrationState.ACTIVE, sha256=served.archive.sha256
        )

    def _resolve(self, served: ServedModel, overrides: Mapping[str, Any]) -> ModelSettings:
        seqs = self._state.override_seqs[served.key.name]
        said = Said(overrides=overrides, override_seqs=seqs, startup=served.startup)
        return self._activator.resolve(served.key, served.archive, said)

    def _watch(self, served: ServedModel) -> None:
        """Record the outcome of workers that come up after the answer."""
        task = asyncio.create_task(self._settle_when_known(served))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def _settle_when_known(self, served: ServedModel) -> None:
        error = await served.first_outcome()
        name = served.key.name
        async with self._gate.lock(name):
            row = self._state.rows.get(name)
            if row is None or not row.wanted or self._registry.get(name) is not served:
                return
            state = RegistrationState.ACTIVE if error is None else RegistrationState.FAILED
            text = "" if error is None else (error.detail or error.message)
            if (row.state, row.last_error) == (state, text):
                return
            await self._state.settle(replace(row, state=state, last_error=text))

    # --- reading, from memory ----------------------------------------------------------------------------------------

    def describe(self, name: str) -> ModelDescription:
        """One model, in service or kept out of it. Raises ModelNotFound."""
        described = describe(self._registry.get(name), self._state.rows.get(name))
        if described is None:
            raise ModelNotFound(f"Model not found: {name}")
        return described

    def list_models(self) -> list[ModelDescription]:
        """Every model, by name."""
        names = {*self._registry.names(), *(name for name, row in self._state.rows.items() if row.wanted)}
        found = (describe(self._registry.get(name), self._state.rows.get(name)) for name in sorted(names))
        return [description for description in found if description is not None]

    def explain(self, name: str) -> Mapping[str, Explained]:
        """Every option of a model with its provenance. Raises ModelNotFound."""
        served = self._registry.get(name)
        if served is None:
            raise ModelNotFound(f"Model not found: {name}")
        return served.settings.explained

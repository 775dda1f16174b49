"""The one write path: what callers wish is checked here, takes its model's turn at the gate, and becomes a change."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import mms
from mms.activation import Activator, Prepared, Said
from mms.catalogue import describe
from mms.changes import Changes, untouched_row
from mms.config.provenance import numbered
from mms.config.resolve import Explained
from mms.errors import BadInput, ModelConflict, ModelNotFound
from mms.export import Export, exported_model
from mms.gate import Gate
from mms.inference.registry import Registry, ServedModel
from mms.records import Caller, Operation, Origin, Registration, RegistrationState
from mms.restoring import Restored, Restorer
from mms.store.store import Store
from mms.wanted import WantedState
from mms.wishes import ChangeResult, ChangeStatus, ModelDescription, RegisterModel, UpdateModel

logger = logging.getLogger(__name__)


class ModelManager:
    """Changes what is wanted and brings what is served in line with it.

    Changes of one model are taken one after the other; changes of different models run side by side.
    """

    def __init__(
        self,
        state: WantedState,
        gate: Gate,
        activator: Activator,
        registry: Registry,
        changes: Changes,
        store: Store,
    ) -> None:
        self._state = state
        self._gate = gate
        self._activator = activator
        self._registry = registry
        self._changes = changes
        self._store = store
        self._restorer = Restorer(state, gate, registry, changes, store, self._prepare_row)
        self._startup_urls: Mapping[str, str] = {}

    def know_startup_models(self, urls: Mapping[str, str]) -> None:
        """Where today's configuration has each start-up model, by name."""
        self._startup_urls = urls

    async def _change(self, name: str, caller: Caller, verb: Callable[[], Awaitable[ChangeResult]]) -> ChangeResult:
        """One change of one model; a request that was answered before under the same key gets that answer again."""

        async def once() -> ChangeResult:
            return await self._state.answered(caller) or await verb()

        return await self._gate.change(name, once)

    # --- register and unregister -------------------------------------------------------------------------------------

    async def register(self, wish: RegisterModel, caller: Caller) -> ChangeResult:
        """Register a model. Raises BadInput, ModelNotFound, DownloadFailed, InvalidModel, ModelConflict, LoadFailed, NotCommitted."""
        await self._gate.enter()
        if answered := await self._state.answered(caller):
            return answered
        archive = await self._activator.open(wish.url)
        said = Said(wish.model_name, wish.handler, wish.runtime, wish.overrides)
        prepared = self._activator.prepare(archive, said)
        return await self._change(prepared.key.name, caller, lambda: self._register(wish, prepared, caller))

    async def _register(self, wish: RegisterModel, prepared: Prepared, caller: Caller) -> ChangeResult:
        # A name in service is taken; one that is kept but not in service (quarantined, missing) may be registered anew.
        if self._registry.get(prepared.key.name) is not None:
            raise ModelConflict(f"Model {prepared.key.name} is already registered.")
        row = Registration(
            key=prepared.key,
            origin=Origin.API,
            state=RegistrationState.PENDING,
            url=wish.url,
            sha256=prepared.archive.sha256,
            handler=wish.handler,
            runtime=wish.runtime,
            overrides=dict(wish.overrides),
        )
        return await self._changes.install(Operation.REGISTER, row, prepared, caller, synchronous=wish.synchronous)

    async def unregister(self, name: str, caller: Caller) -> ChangeResult:
        """Stop serving a model; what was accepted is answered first. Raises ModelNotFound, RequestTimedOut (0 workers are left)."""

        async def verb() -> ChangeResult:
            return await self._changes.remove(Operation.UNREGISTER, self._row(name), caller)

        return await self._change(name, caller, verb)

    # --- overrides ---------------------------------------------------------------------------------------------------

    async def update(self, wish: UpdateModel, caller: Caller) -> ChangeResult:
        """Set overrides and scale. Raises BadInput, ModelNotFound, LoadFailed (the wish is kept, as in MMS), NotCommitted."""
        overrides = dict(wish.overrides)
        if wish.scale:
            least = overrides.setdefault("min_workers", 1)
            if overrides.setdefault("max_workers", least) < least:
                raise BadInput("max_worker cannot be less than min_worker.")
        status = ChangeStatus.PROCESSING if wish.scale else ChangeStatus.UPDATED

        async def verb() -> ChangeResult:
            row = self._row(wish.name)
            after = replace(row, overrides={**row.overrides, **overrides})
            served = self._registry.get(wish.name)
            if served is None:
                return await self._changes.note(
                    Operation.UPDATE, after, caller, ChangeResult(ChangeStatus.UPDATED, wish.name)
                )
            return await self._changes.reconfigure(
                Operation.UPDATE,
                served,
                after,
                caller,
                ChangeResult(status, wish.name),
                scale=wish.scale,
                synchronous=wish.synchronous,
            )

        return await self._change(wish.name, caller, verb)

    async def remove_override(self, name: str, option: str, caller: Caller) -> ChangeResult:
        """Take one override back; the next source shows through. Raises ModelNotFound, BadInput (no such override)."""

        async def verb() -> ChangeResult:
            row, served = self._row(name), self._registry.get(name)
            if option not in row.overrides:
                raise BadInput(
                    f"Model {name} has no override of {option}; GET /models/{name}/settings shows what it has."
                )
            rest = {key: value for key, value in row.overrides.items() if key != option}
            after, removed = replace(row, overrides=rest), ChangeResult(ChangeStatus.OVERRIDE_REMOVED, name, option)
            if served is None:
                return await self._changes.note(Operation.REMOVE_OVERRIDE, after, caller, removed)
            return await self._changes.reconfigure(
                Operation.REMOVE_OVERRIDE,
                served,
                after,
                caller,
                removed,
                scale=option in ("min_workers", "max_workers"),
            )

        return await self._change(name, caller, verb)

    # --- quarantine --------------------------------------------------------------------------------------------------

    async def clear_quarantine(self, name: str, caller: Caller) -> ChangeResult:
        """Take a model out of quarantine and try it at once. Raises ModelNotFound, BadInput (not quarantined), LoadFailed."""

        async def verb() -> ChangeResult:
            row = self._row(name)
            if row.state is not RegistrationState.QUARANTINED:
                raise BadInput(f"Model {name} is not quarantined; its state is {row.state.value}.")
            cleared = replace(row, state=RegistrationState.PENDING, charges=0, last_error="")
            prepared = await self._prepare_row(cleared)
            told = ChangeStatus.QUARANTINE_CLEARED
            return await self._changes.install(Operation.CLEAR_QUARANTINE, cleared, prepared, caller, told=told)

        return await self._change(name, caller, verb)

    async def _prepare_row(self, row: Registration) -> Prepared:
        """A stored row's model: what was registered, or today's archive of a configured one. Raises as opening does."""
        name = row.key.name
        if row.origin is Origin.API:
            archive = await self._activator.reopen(row.url, row.sha256)
            return self._activator.prepare(archive, Said(name, row.handler, row.runtime, row.overrides))
        url = self._startup_urls.get(name)
        if url is None:
            raise ModelNotFound(f"Model {name} is no longer among the configured start-up models.")
        archive = await self._activator.open(url)
        return self._activator.prepare(archive, Said(name, overrides=row.overrides, startup=True))

    # --- restore and export ------------------------------------------------------------------------------------------

    async def restore(self, caller: Caller, *, dry_run: bool = False, **point: Any) -> Restored:
        """Go back to `seq`, `generation` or `before`. Raises BadInput, NotCommitted; failed steps are told in the answer."""
        return await self._restorer.restore(caller, dry_run=dry_run, **point)

    def export(self) -> Export:
        """What is wanted now, model by model, with the settings in force."""
        wanted = (name for name, row in self._state.rows.items() if row.wanted)
        names = {*self._registry.names(), *self._registry.held_names(), *wanted}
        models = (
            exported_model(self._registry.get(name), self._known_row(name), self._startup_urls.get(name))
            for name in sorted(names)
        )
        return Export(self._store.generation, self._store.last_seq, mms.__version__, tuple(models))

    # --- reading, from memory ----------------------------------------------------------------------------------------

    def describe(self, name: str) -> ModelDescription:
        """One model, in service or kept out of it. Raises ModelNotFound."""
        described = describe(self._registry.get(name), self._known_row(name))
        if described is None:
            raise ModelNotFound(f"Model not found: {name}")
        return described

    def list_models(self) -> list[ModelDescription]:
        """Every model, by name."""
        wanted = (name for name, row in self._state.rows.items() if row.wanted)
        names = {*self._registry.names(), *self._registry.held_names(), *wanted}
        found = (describe(self._registry.get(name), self._known_row(name)) for name in sorted(names))
        return [description for description in found if description is not None]

    async def explain(self, name: str) -> Mapping[str, Explained]:
        """Every option of a model with its provenance, also of one that is kept out of service. Raises ModelNotFound.

        For the latter, its archive is opened to see what its manifest says; raises as that does.
        """
        seqs = await self._state.override_numbers(name)
        served = self._registry.get(name)
        settings = served.settings if served is not None else (await self._prepare_row(self._row(name))).settings
        return numbered(settings.explained, seqs)

    def _served(self, name: str) -> ServedModel:
        served = self._registry.get(name)
        if served is None:
            raise ModelNotFound(f"Model not found: {name}")
        return served

    def _row(self, name: str) -> Registration:
        """The wanted row of a model; a start-up model gets one at the operator's first word about it."""
        row = self._known_row(name)
        served = self._registry.get(name)
        if row is None and served is not None:
            row = untouched_row(served)
        if row is None or not row.wanted:
            raise ModelNotFound(f"Model not found: {name}")
        return row

    def _known_row(self, name: str) -> Registration | None:
        """The stored row, else one for a start-up model that nobody touched and that is kept out of service."""
        held = self._registry.held(name)
        if name in self._state.rows or held is None:
            return self._state.rows.get(name)
        url = self._startup_urls.get(name, "")
        return Registration(key=held, origin=Origin.MANIFEST, state=RegistrationState.PENDING, url=url)

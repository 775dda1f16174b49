"""The one write path: register, update, unregister; each change is durable in the store before it is applied or answered."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mms.activation import Activator, Prepared, Said
from mms.config.resolve import Explained
from mms.errors import (
    BadInput,
    LoadFailed,
    ManagementReadOnly,
    MmsError,
    ModelConflict,
    ModelNotFound,
    NotCommitted,
    OutcomeUnknown,
    RequestTimedOut,
    ServerStopping,
)
from mms.inference.registry import Registry, ServedModel
from mms.records import (
    Begun,
    Caller,
    Change,
    ChangeOutcome,
    ModelKey,
    Operation,
    Origin,
    Registration,
    RegistrationState,
    Replayed,
)
from mms.store.store import Store
from mms.unsettled import Unsettled
from mms.wishes import ChangeResult, ChangeStatus, RegisterModel, UpdateModel

logger = logging.getLogger(__name__)


class ModelManager:
    """Holds the wanted state (the snapshot's rows in memory) and brings the served state in line with it.

    Reads come from memory. Changes of one model are taken one after the other; changes of different models run side by
    side. `rows` is what the store holds, by model name.
    """

    def __init__(
        self,
        store: Store,
        activator: Activator,
        registry: Registry,
        *,
        unregister_timeout: float,
    ) -> None:
        self.rows: dict[str, Registration] = {}
        self.override_seqs: dict[str, dict[str, int]] = defaultdict(dict)
        self._store = store
        self._activator = activator
        self._registry = registry
        self._unregister_timeout = unregister_timeout
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._closed: str | None = "The server is still recovering; management changes open when that is complete."
        self._stopping = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._background: set[asyncio.Task[None]] = set()
        self._unsettled = Unsettled(store)

    def adopt(self, snapshot: Sequence[Registration]) -> None:
        """Take over the rows that the boot read, before anything is replayed."""
        self.rows = {row.key.name: row for row in snapshot}

    # --- the gate ----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Let management changes in: the boot is complete."""
        self._closed = None

    def close(self, reason: str) -> None:
        """Refuse management changes from now on, for `reason`."""
        self._closed = reason

    async def drain(self) -> None:
        """Refuse further changes and wait until those in flight are settled: the clean mark may then be written."""
        self._stopping = True
        await self._idle.wait()
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._unsettled.flush()

    def _gate(self) -> None:
        if self._stopping:
            raise ServerStopping("The server is stopping; no management change is accepted any more.")
        if self._closed is not None:
            raise ManagementReadOnly(self._closed)

    async def _change(self, name: str, caller: Caller, verb: Callable[[], Awaitable[ChangeResult]]) -> ChangeResult:
        """Run one change of one model to its end, even where the client that asked has gone.

        A request that was answered before under the same Idempotency-Key gets that answer, whatever the model's state.
        """
        self._gate()

        async def settled() -> ChangeResult:
            self._in_flight += 1
            self._idle.clear()
            try:
                async with self._locks[name]:
                    return await self._answered(caller) or await verb()
            finally:
                self._in_flight -= 1
                if not self._in_flight:
                    self._idle.set()

        return await asyncio.shield(asyncio.ensure_future(settled()))

    # --- verbs -------------------------------------------------------------------------------------------------------

    async def register(self, wish: RegisterModel, caller: Caller) -> ChangeResult:
        """Register a model. Raises BadInput, ModelNotFound, DownloadFailed, InvalidModel, ModelConflict, LoadFailed, NotCommitted."""
        self._gate()
        if answered := await self._answered(caller):
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
        begun = await self._begin(Operation.REGISTER, row, caller)
        if isinstance(begun, ChangeResult):
            return begun
        served = self._activator.serve(prepared)
        workers = prepared.settings.min_workers
        if workers <= 0 or not wish.synchronous:
            self._registry.publish(served)
            status = ChangeStatus.REGISTERED if workers <= 0 else ChangeStatus.PROCESSING
            if workers > 0:
                self._watch(served)
        else:
            try:
                await served.scale(workers, prepared.settings.max_workers)
            except LoadFailed as error:
                await served.close()
                await self.compensate(begun, error)
                raise
            self._registry.publish(served)
            status = ChangeStatus.SCALED
        state = RegistrationState.PENDING if status is ChangeStatus.PROCESSING else RegistrationState.ACTIVE
        return await self._done(begun, ChangeResult(status, key.name), state=state)

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
        begun = await self._begin(Operation.UPDATE, after, caller)
        if isinstance(begun, ChangeResult):
            return begun
        self._note_overrides(wish.name, overrides, begun.seq)
        served.configure(self._resolve(served, after.overrides))
        if not wish.scale:
            return await self._done(begun, ChangeResult(ChangeStatus.UPDATED, wish.name))
        target = (resolved.min_workers, resolved.max_workers)
        if not wish.synchronous:
            served.scale_soon(*target)
            self._watch(served)
            return await self._done(begun, ChangeResult(ChangeStatus.PROCESSING, wish.name))
        try:
            await served.scale(*target)
        except LoadFailed as error:
            kept = replace(begun.row, state=RegistrationState.FAILED, last_error=error.detail or error.message)
            await self.finish(begun, ChangeOutcome.DONE, ChangeResult.failure(error), kept)
            raise
        return await self._done(begun, ChangeResult(ChangeStatus.SCALED, wish.name), state=RegistrationState.ACTIVE)

    async def remove_override(self, name: str, option: str, caller: Caller) -> ChangeResult:
        """Take one override back; the next source shows through. Raises ModelNotFound, BadInput (no such override)."""
        return await self._change(name, caller, lambda: self._remove_override(name, option, caller))

    async def _remove_override(self, name: str, option: str, caller: Caller) -> ChangeResult:
        served, row = self._wanted(name)
        if option not in row.overrides:
            raise BadInput(f"Model {name} has no override of {option}; GET /models/{name}/settings shows what it has.")
        rest = {key: value for key, value in row.overrides.items() if key != option}
        self._resolve(served, rest)
        begun = await self._begin(Operation.REMOVE_OVERRIDE, replace(row, overrides=rest), caller)
        if isinstance(begun, ChangeResult):
            return begun
        self.override_seqs[name].pop(option, None)
        settings = self._resolve(served, rest)
        served.configure(settings)
        if option in ("min_workers", "max_workers"):
            served.scale_soon(settings.min_workers, settings.max_workers)
            self._watch(served)
        return await self._done(begun, ChangeResult(ChangeStatus.OVERRIDE_REMOVED, name, option))

    async def unregister(self, name: str, caller: Caller) -> ChangeResult:
        """Stop serving a model; what was accepted is answered first. Raises ModelNotFound, RequestTimedOut (0 workers are left)."""
        return await self._change(name, caller, lambda: self._unregister(name, caller))

    async def _unregister(self, name: str, caller: Caller) -> ChangeResult:
        served = self._registry.get(name)
        row = self.rows.get(name) or self._untouched_row(name)
        if row is None or not row.wanted:
            raise ModelNotFound(f"Model not found: {name}")
        tombstone = replace(row, state=RegistrationState.UNREGISTERED, last_error="")
        begun = await self._begin(Operation.UNREGISTER, tombstone, caller)
        if isinstance(begun, ChangeResult):
            return begun
        self._registry.withdraw(name)
        if served is not None and not await served.drain(self._unregister_timeout):
            return await self._unregister_timed_out(begun, served, row)
        if served is not None:
            await served.close()
        logger.info("Model %s unregistered.", name)
        return await self._done(begun, ChangeResult(ChangeStatus.UNREGISTERED, name))

    async def _unregister_timed_out(self, begun: Begun, served: ServedModel, row: Registration) -> ChangeResult:
        """MMS's own exception to "4xx: no effect": the model is kept, with no workers."""
        none = {"min_workers": 0, "max_workers": 0}
        await served.close()
        kept = replace(begun.row, state=row.state, overrides={**row.overrides, **none})
        self._note_overrides(row.key.name, none, begun.seq)
        error = RequestTimedOut(f"Timed out while cleaning resources: {row.key.name}")
        await self.finish(begun, ChangeOutcome.DONE, ChangeResult.failure(error), kept)
        prepared = served.prepared_again(self._resolve(served, kept.overrides))
        self._registry.publish(self._activator.serve(prepared))
        raise error

    # --- the two transactions ----------------------------------------------------------------------------------------

    async def _answered(self, caller: Caller) -> ChangeResult | None:
        """The stored answer to an earlier request with the caller's Idempotency-Key, or None; raises it where it was an error."""
        if caller.idempotency_key is None:
            return None
        stored = await self._store.answered(caller)
        return None if stored is None else ChangeResult.from_response(stored.response)

    async def _begin(self, operation: Operation, row: Registration, caller: Caller) -> Begun | ChangeResult:
        """First transaction; from here on the change is durable. A repeated request gets its stored answer (or raises it)."""
        begun = await self._store.begin(Change(operation, row, caller))
        if isinstance(begun, Replayed):
            return ChangeResult.from_response(begun.response)
        self.rows[row.key.name] = begun.row
        return begun

    async def _done(self, begun: Begun, result: ChangeResult, state: RegistrationState | None = None) -> ChangeResult:
        row = begun.row if state is None else replace(begun.row, state=state, last_error="", charges=0)
        await self.finish(begun, ChangeOutcome.DONE, result.as_response(), row)
        return result

    async def compensate(self, begun: Begun, error: MmsError) -> None:
        """The change failed: put its row back durably before anyone is told."""
        name = begun.row.key.name
        if begun.before is None:
            self.rows.pop(name, None)
        else:
            self.rows[name] = begun.before
        try:
            await self._store.finish(begun, ChangeOutcome.FAILED, ChangeResult.failure(error))
        except NotCommitted as lost:
            self._unsettled.add(begun, ChangeOutcome.FAILED, ChangeResult.failure(error), None)
            raise OutcomeUnknown(f"{error.message} The store could not record that: {lost.message}") from error

    async def finish(
        self, begun: Begun, outcome: ChangeOutcome, response: Mapping[str, Any], row: Registration
    ) -> None:
        """Second transaction. The wish is durable already, so a store that is away now only delays the record of its outcome."""
        self.rows[row.key.name] = row
        try:
            await self._store.finish(begun, outcome, response, row)
        except (NotCommitted, OutcomeUnknown) as lost:
            logger.warning("Change %d is durable, its outcome is not yet recorded: %s", begun.seq, lost.message)
            self._unsettled.add(begun, outcome, response, row)

    # --- helpers -----------------------------------------------------------------------------------------------------

    def _wanted(self, name: str) -> tuple[ServedModel, Registration]:
        served = self._registry.get(name)
        row = self.rows.get(name) or self._untouched_row(name)
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

    def _resolve(self, served: ServedModel, overrides: Mapping[str, Any]) -> Any:
        seqs = self.override_seqs[served.key.name]
        said = Said(overrides=overrides, override_seqs=seqs, startup=served.startup)
        return self._activator.resolve(served.key, served.archive, said)

    def _note_overrides(self, name: str, overrides: Mapping[str, Any], seq: int) -> None:
        self.override_seqs[name].update(dict.fromkeys(overrides, seq))

    def _watch(self, served: ServedModel) -> None:
        """Record the outcome of workers that come up after the answer."""
        task = asyncio.create_task(self._settle_when_known(served))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _settle_when_known(self, served: ServedModel) -> None:
        error = await served.first_outcome()
        name = served.key.name
        async with self._locks[name]:
            row = self.rows.get(name)
            if row is None or not row.wanted or self._registry.get(name) is not served:
                return
            state = RegistrationState.ACTIVE if error is None else RegistrationState.FAILED
            text = "" if error is None else (error.detail or error.message)
            if (row.state, row.last_error) == (state, text):
                return
            await self.settle(replace(row, state=state, last_error=text))

    async def settle(self, row: Registration) -> None:
        """Record what was found out about a row; the wish itself is unchanged, so a store that is away only delays it."""
        self.rows[row.key.name] = row
        try:
            await self._store.settle(row)
        except NotCommitted as lost:
            logger.warning("The state of %s is not yet recorded: %s", row.key.name, lost.message)

    async def record_charge(self, row: Registration) -> Registration:
        """Journal a failed load charged to its registration; returns the row as written (as given, where the store is away)."""
        try:
            begun = await self._store.begin(Change(Operation.CHARGE, row, Caller()))
        except (NotCommitted, OutcomeUnknown) as lost:
            logger.warning("A charge against %s is not recorded: %s", row.key.name, lost.message)
            return row
        if isinstance(begun, Replayed):  # a charge carries no key, so nothing can have answered it before
            raise TypeError("a charge cannot be a repeated request")
        await self.finish(begun, ChangeOutcome.DONE, {"charges": row.charges}, begun.row)
        return begun.row

    async def flush(self) -> None:
        """Record outcomes that the store could not take at their time."""
        await self._unsettled.flush()

    def explain(self, name: str) -> Mapping[str, Explained]:
        """Every option of a model with its provenance. Raises ModelNotFound."""
        served = self._registry.get(name)
        if served is None:
            raise ModelNotFound(f"Model not found: {name}")
        return served.settings.explained

    @property
    def api_registrations(self) -> list[ModelKey]:
        """What the API registered and a manifest boot would not bring back."""
        return [row.key for row in self.rows.values() if row.origin is Origin.API and row.wanted]

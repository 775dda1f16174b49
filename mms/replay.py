"""Carries out the boot's plan: each model through the ordinary activation, failures isolated, outcomes kept for `GET /recovery`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mms.activation import Activator, Prepared, Said, warn_of_overruled_manifest, with_numbers
from mms.archive.model_archive import ModelArchive
from mms.attempts import Attempts
from mms.errors import ChangedArchive, LoadFailed, MissingArchive, MmsError
from mms.failpoints import reached
from mms.inference.registry import Registry, ServedModel
from mms.records import (
    Begun,
    ChangeOutcome,
    ModelKey,
    Operation,
    Origin,
    Registration,
    RegistrationState,
    ReplayOutcome,
)
from mms.recovery.plan import SAFE_MODE, Charge, Plan, PlanItem
from mms.wanted import WantedState
from mms.wishes import ChangeResult, ChangeStatus, ModelRecovery

logger = logging.getLogger(__name__)


class Replay:
    """One boot's plan being carried out; `report` is complete from the start, with PENDING outcomes that fill in."""

    def __init__(
        self,
        plan: Plan,
        pending: Sequence[Begun],
        opened: Mapping[str, ModelArchive],
        *,
        state: WantedState,
        activator: Activator,
        registry: Registry,
        attempts: Attempts,
        parallel: int,
        quarantine_after: int,
        replay_wait: float,
    ) -> None:
        self._plan = plan
        self._items = list(plan.items)
        self._opened = opened
        self._pending = {begun.row.key.name: begun for begun in pending}  # by seq: the last word of each name
        self._superseded = [begun for begun in pending if self._pending[begun.row.key.name] is not begun]
        self._state = state
        self._activator = activator
        self._registry = registry
        self._attempts = attempts
        self._parallel = parallel
        self._replay_wait = replay_wait
        self._waiting: deque[int] = deque()  # positions in the plan, the next one first
        self._quarantine_after = quarantine_after
        self.report = [ModelRecovery(item.key, item.origin, item.outcome, error=item.error) for item in plan.items]

    async def run(self) -> None:
        """Bring every model to its first outcome: wave 0 in parallel, then the suspects one at a time."""
        for note in self._plan.notes:
            logger.info("%s", note)
        for charge in self._plan.charges:
            await self._charge_for_dead_server(charge)
        for item in self._items:
            if item.outcome is ReplayOutcome.FAILED:
                logger.warning("Failed to load model: %s: %s", item.url, item.error)
        await self._bring_up_all()
        left_out = {item.key.name for item in self._items if _left_out(item)}
        # What is still pending is of models that this boot had no reason to load (a tombstone, say); of those that safe
        # mode leaves out, the outcome is still to be seen.
        await self._close_pending(self._superseded)
        await self._close_pending([begun for name, begun in self._pending.items() if name not in left_out])
        self._pending = {name: begun for name, begun in self._pending.items() if name in left_out}

    async def resume(self) -> None:
        """Leave safe mode: load what it left out, as it is wanted by now."""
        for position, item in enumerate(self._items):
            if _left_out(item):
                again = self._again(item)
                self._items[position] = again
                self.report[position] = ModelRecovery(again.key, again.origin, again.outcome, error=again.error)
        await self._bring_up_all()
        await self._close_pending(self._pending.values())
        self._pending = {}

    def _again(self, item: PlanItem) -> PlanItem:
        """An item that safe mode left out, with what the operator said since then."""
        row = self._state.rows.get(item.key.name, item.registration)
        if row is not None and not row.wanted:
            return replace(item, outcome=ReplayOutcome.SKIPPED, error=f"unregistered (journal entry {row.seq})")
        if row is not None:
            item = replace(item, key=row.key, origin=row.origin, overrides=row.overrides, registration=row)
            if row.origin is Origin.API:
                item = replace(item, url=row.url, sha256=row.sha256)
        if self._registry.get(item.key.name) is not None:
            return replace(item, outcome=ReplayOutcome.ACTIVE, error="")
        return replace(item, outcome=ReplayOutcome.PENDING, error="")

    async def _bring_up_all(self) -> None:
        """Every item that is pending: the first wave in parallel, each later one by itself."""
        for item in self._items:
            if item.outcome is ReplayOutcome.PENDING:
                self._registry.expect(item.key, wait=self._replay_wait, on_wanted=self._prefer)
            elif item.outcome is ReplayOutcome.QUARANTINED:
                self._registry.hold(item.key, f"Model {item.key.name} is quarantined: {item.error}")
            elif _left_out(item):
                self._registry.hold(item.key, f"Model {item.key.name} is not loaded: the server is in safe mode.")
        self._registry.planned()
        for wave in sorted({item.wave for item in self._items}):
            self._waiting.extend(
                position
                for position, item in enumerate(self._items)
                if item.wave == wave and item.outcome is ReplayOutcome.PENDING
            )
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._parallel, len(self._waiting))):
                    group.create_task(self._work_off())

    async def _close_pending(self, pending: Iterable[Begun]) -> None:
        for begun in pending:
            row = self._state.rows.get(begun.row.key.name, begun.row)
            await self._state.finish(begun, ChangeOutcome.DONE, _no_answer(begun), row)

    def row(self, name: str) -> Registration | None:
        """The stored row of a model, as it is now."""
        return self._state.rows.get(name)

    def _prefer(self, key: ModelKey) -> None:
        """Somebody waits for this model: it is next."""
        for position in self._waiting:
            if self._items[position].key == key:
                self._waiting.remove(position)
                self._waiting.appendleft(position)
                return

    async def _work_off(self) -> None:
        while self._waiting:
            position = self._waiting.popleft()
            await self._bring_up(position, self._items[position])

    async def _bring_up(self, position: int, item: PlanItem) -> None:
        started = time.monotonic()
        outcome, error = await self._activate(item)
        seconds = round(time.monotonic() - started, 3)
        self._items[position] = replace(item, outcome=outcome, error=error)
        self.report[position] = ModelRecovery(item.key, item.origin, outcome, seconds, error)
        if outcome is ReplayOutcome.ACTIVE:
            logger.info("Model %s is active (%.3f s).", item.key.name, seconds)
        else:
            logger.warning("Model %s: %s: %s", item.key.name, outcome.value, error)

    async def _activate(self, item: PlanItem) -> tuple[ReplayOutcome, str]:
        """One model's first outcome and its error; no exception of a model leaves this function."""
        try:
            prepared = await self._prepare(item)
        except MissingArchive as error:
            return await self._not_in_service(item, ReplayOutcome.MISSING_ARCHIVE, error)
        except ChangedArchive as error:
            return await self._not_in_service(item, ReplayOutcome.CHANGED_ARCHIVE, error)
        except MmsError as error:
            if item.startup:
                logger.warning("Failed to load model: %s: %s", item.url, error.message)
            return await self._not_in_service(item, ReplayOutcome.FAILED, error)
        served = self._activator.serve(prepared)
        self._registry.publish(served)
        settings = prepared.settings
        if settings.min_workers <= 0:
            await self._settle_success(item, prepared)
            return ReplayOutcome.ACTIVE, ""
        try:
            async with self._attempts.around(item.key, prepared.archive.sha256):
                reached("replay.before_load")
                await served.scale(settings.min_workers, settings.max_workers)
                reached("replay.loaded")
        except LoadFailed as error:
            outcome = await self._load_failed(item, prepared, served, error)
            return outcome, error.detail or error.message
        await self._settle_success(item, prepared)
        return ReplayOutcome.ACTIVE, ""

    def _current(self, item: PlanItem) -> Registration | None:
        """The item's row as it is now: a charge may have changed it, or made it, since the plan."""
        if item.registration is None and item.origin is Origin.API:
            return None
        return self._state.rows.get(item.key.name, item.registration)

    async def _prepare(self, item: PlanItem) -> Prepared:
        row = item.registration
        if row is not None and item.origin is Origin.API:
            archive = await self._activator.reopen(item.url, row.sha256)
            said = Said(item.key.name, row.handler, row.runtime, item.overrides)
        else:
            archive = self._opened.get(item.url) or await self._activator.open(item.url)
            said = Said(item.key.name, overrides=item.overrides, startup=item.startup)
        prepared = self._activator.prepare(archive, said)
        name = item.key.name
        settings = with_numbers(prepared.settings, self._state.override_seqs[name])
        warn_of_overruled_manifest(name, settings)
        return replace(prepared, settings=settings)

    async def _not_in_service(
        self, item: PlanItem, outcome: ReplayOutcome, error: MmsError
    ) -> tuple[ReplayOutcome, str]:
        """Kept and shown, answering 503 with the reason; its stored row stays."""
        row = self._current(item)
        if row is None:
            self._registry.withdraw(item.key.name)  # as in MMS, a start-up model that cannot be opened is not known
        else:
            self._registry.hold(item.key, f"Model {item.key.name} is not in service: {error.message}")
            failed = replace(row, state=RegistrationState.FAILED, last_error=error.message)
            await self._conclude(row, failed, error)
        return outcome, error.message

    async def _settle_success(self, item: PlanItem, prepared: Prepared) -> None:
        row = self._current(item)
        if row is None:
            return
        sha256 = prepared.archive.sha256
        active = replace(row, state=RegistrationState.ACTIVE, sha256=sha256, charges=0, last_error="")
        await self._conclude(row, active, None)

    async def _load_failed(
        self, item: PlanItem, prepared: Prepared, served: ServedModel, error: LoadFailed
    ) -> ReplayOutcome:
        """Charge the model (never for trouble of the environment); its workers go on trying with back-off."""
        text = error.detail or error.message
        row = self._current(item) or Registration(
            key=item.key, origin=Origin.MANIFEST, state=RegistrationState.ACTIVE, sha256=prepared.archive.sha256
        )
        failed = replace(row, state=RegistrationState.FAILED, last_error=text)
        if self._may_be_compensated(row):
            self._registry.withdraw(item.key.name)
            await served.close()
            await self._conclude(row, failed, error)
            return ReplayOutcome.FAILED
        if not error.environment:
            failed = await self._charge(failed, prepared.archive.sha256, text)
        if failed.state is RegistrationState.QUARANTINED:
            await served.close()
            self._registry.hold(item.key, f"Model {item.key.name} is quarantined: {text}")
        await self._conclude(row, failed, error)
        return ReplayOutcome.QUARANTINED if failed.state is RegistrationState.QUARANTINED else ReplayOutcome.FAILED

    async def _charge(self, row: Registration, sha256: str, text: str) -> Registration:
        """One more failed load of this digest; journaled, since it can end in quarantine."""
        charges = row.charges + 1 if row.sha256 in ("", sha256) else 1
        state = RegistrationState.QUARANTINED if charges >= self._quarantine_after else RegistrationState.FAILED
        charged = replace(row, state=state, sha256=sha256, charges=charges, last_error=text)
        return await self._state.record_charge(charged)

    async def _charge_for_dead_server(self, charge: Charge) -> None:
        """An earlier server died while this model, alone, was loading."""
        row = self._state.rows.get(charge.key.name) or Registration(
            key=charge.key, origin=Origin.MANIFEST, state=RegistrationState.ACTIVE
        )
        state = RegistrationState.QUARANTINED if charge.quarantine else row.state
        await self._state.record_charge(
            replace(row, state=state, sha256=charge.sha256, charges=charge.charges, last_error=charge.error)
        )

    def _may_be_compensated(self, row: Registration) -> bool:
        """A registration that its server never finished: nobody was told that it holds."""
        begun = self._pending.get(row.key.name)
        return begun is not None and begun.operation is Operation.REGISTER

    async def _conclude(self, before: Registration, after: Registration, error: MmsError | None) -> None:
        """Record an outcome: as the end of the change that a dead server left pending, else on the row alone."""
        compensate = error is not None and self._may_be_compensated(before)
        begun = self._pending.pop(before.key.name, None)
        if begun is None:
            if after != before:
                await self._state.settle(after)
            return
        if compensate and error is not None:
            charged = begun.seq != before.seq  # its server died in this load, and the charge wrote the row anew
            await (self._state.take_back(begun, error) if charged else self._state.compensate(begun, error))
            return
        response = ChangeResult.failure(error) if error is not None else _answer(begun, ChangeStatus.SCALED)
        await self._state.finish(begun, ChangeOutcome.DONE, response, after)


def _no_answer(begun: Begun) -> Mapping[str, str]:
    """The stored answer of a change whose server died: that it holds is all that is known."""
    return _answer(begun, ChangeStatus.UPDATED)


def _answer(begun: Begun, other: ChangeStatus) -> Mapping[str, str]:
    known = {
        Operation.UNREGISTER: ChangeStatus.UNREGISTERED,
        Operation.CLEAR_QUARANTINE: ChangeStatus.QUARANTINE_CLEARED,
    }
    return ChangeResult(known.get(begun.operation, other), begun.row.key.name).as_response()


def _left_out(item: PlanItem) -> bool:
    """Not loaded for no other reason than safe mode."""
    return item.outcome is ReplayOutcome.SKIPPED and item.error == SAFE_MODE

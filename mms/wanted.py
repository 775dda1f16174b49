"""The wanted state: the snapshot's rows in memory, in step with the store; every change of them is durable before it is seen."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mms.errors import MmsError, NotCommitted, OutcomeUnknown
from mms.failpoints import reached
from mms.override_numbers import read_off, set_by
from mms.records import (
    Begun,
    Caller,
    Change,
    ChangeOutcome,
    JournalEntry,
    ModelKey,
    Operation,
    Origin,
    Registration,
    RegistrationState,
    Replayed,
)
from mms.store.store import Store
from mms.unsettled import Unsettled
from mms.wishes import ChangeResult, ChangeStatus

logger = logging.getLogger(__name__)

JOURNAL_PAGE = 1000


class WantedState:
    """What the operator told, by model name; reads come from here, never from the database.

    A change is two transactions: `begin` makes it durable, then it is applied, then `done`, `compensate` or `finish`
    records its outcome. `override_seqs` are the journal numbers that set each override, as far as this life knows them;
    `override_numbers` reads the others off the journal when somebody asks.
    """

    def __init__(self, store: Store) -> None:
        self.rows: dict[str, Registration] = {}
        self.override_seqs: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._store = store
        self._other_versions: dict[int, Registration] = {}  # by change: the row of its name, of another version
        self._unsettled = Unsettled(store)

    def adopt(self, snapshot: Sequence[Registration]) -> None:
        """Take over the rows that the boot read, before anything is replayed."""
        self.rows = {row.key.name: row for row in snapshot}
        for row in snapshot:
            if row.revision == 1:  # one change wrote it, so that one said it all; others are looked up when asked for
                self.override_seqs[row.key.name] = dict.fromkeys(row.overrides, row.seq)

    async def answered(self, caller: Caller) -> ChangeResult | None:
        """The stored answer to an earlier request with the caller's Idempotency-Key, or None; raises it where it was an error."""
        if caller.idempotency_key is None:
            return None
        stored = await self._store.answered(caller)
        return None if stored is None else ChangeResult.from_response(stored.response)

    async def begin(
        self, operation: Operation, row: Registration, caller: Caller, *, loads: bool = False
    ) -> Begun | ChangeResult:
        """First transaction; from here on the change is durable. A repeated request gets its stored answer (or raises it).

        `loads` counts the load that follows as an attempt, without a transaction of its own.
        """
        reached("change.checked")
        change = Change(operation, row, caller, loads)
        begun = await self._store.begin(change)
        if isinstance(begun, Replayed):
            return ChangeResult.from_response(begun.response)
        try:
            reached("change.begun")
        except Exception:
            self._store.forsake(change)  # whoever asked is told that nobody knows, and from here on nobody does
            raise
        name = row.key.name
        before = self.rows.get(name)
        if before is not None and before.key != begun.row.key:
            self._other_versions[begun.seq] = before
        self.rows[name] = begun.row
        self.override_seqs[name] = set_by(begun.seq, operation, begun.before, begun.row, self.override_seqs[name])
        return begun

    async def done(self, begun: Begun, result: ChangeResult, state: RegistrationState | None = None) -> ChangeResult:
        """Record that a change was applied, with its answer; `state` where that makes the row active or leaves it pending."""
        row = begun.row if state is None else replace(begun.row, state=state, last_error="", charges=0)
        await self.finish(begun, ChangeOutcome.DONE, result.as_response(), row)
        self._other_versions.pop(begun.seq, None)
        reached("change.answering")
        return result

    async def compensate(self, begun: Begun, error: MmsError) -> None:
        """The change failed: put its row back durably before anyone is told."""
        name = begun.row.key.name
        self.override_seqs.pop(name, None)
        before = begun.before or self._other_versions.pop(begun.seq, None)
        if before is None:
            self.rows.pop(name, None)
        else:
            self.rows[name] = before
        try:
            await self._store.finish(begun, ChangeOutcome.FAILED, ChangeResult.failure(error))
        except NotCommitted as lost:
            self._unsettled.add(begun, ChangeOutcome.FAILED, ChangeResult.failure(error), None)
            raise OutcomeUnknown(f"{error.message} The store could not record that: {lost.message}") from error

    async def take_back(self, begun: Begun, error: MmsError) -> None:
        """As `compensate`, for a registration whose row something has written since: one more change puts it back."""
        name = begun.row.key.name
        after = begun.before or replace(self.rows[name], state=RegistrationState.UNREGISTERED, last_error="")
        operation = Operation.UNREGISTER if begun.before is None else Operation.RESTORE
        try:
            undone = await self.begin(operation, after, Caller())
        except (NotCommitted, OutcomeUnknown) as lost:
            logger.warning("The failed registration of %s could not be taken back: %s", name, lost.message)
            return
        if not isinstance(undone, ChangeResult):
            await self.done(undone, ChangeResult(ChangeStatus.UNREGISTERED, name))
        await self.finish(begun, ChangeOutcome.FAILED, ChangeResult.failure(error), self.rows[name])

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

    def note_overrides(self, name: str, overrides: Mapping[str, Any], seq: int) -> None:
        """These overrides were set by that journal entry, after it was begun."""
        self.override_seqs[name].update(dict.fromkeys(overrides, seq))

    async def override_numbers(self, name: str) -> Mapping[str, int]:
        """The journal number that set each override of a model; of one whose entry was pruned, there is none.

        A life that began with a replay looks them up at the first question, so that the boot need not wait for it.
        """
        row = self.rows.get(name)
        if row is None:
            return {}
        known = self.override_seqs[name]
        if all(option in known for option in row.overrides):
            return known
        try:
            found = read_off([entry for entry in await self._entries(name) if entry.generation == row.generation])
        except NotCommitted as lost:
            logger.warning("The journal cannot be read at the moment: %s", lost.message)
            return known
        if self.rows.get(name) is row:  # else somebody changed it meanwhile, and what was read is old
            for option in row.overrides:
                if option in found:
                    known.setdefault(option, found[option])
        return known

    async def _entries(self, name: str) -> list[JournalEntry]:
        entries = await self._store.journal(model=name, limit=JOURNAL_PAGE)
        while len(entries) % JOURNAL_PAGE == 0 and entries:
            more = await self._store.journal(model=name, after=entries[-1].seq, limit=JOURNAL_PAGE)
            if not more:
                break
            entries += more
        return entries

    @property
    def api_registrations(self) -> list[ModelKey]:
        """What the API registered and a manifest boot would not bring back."""
        return [row.key for row in self.rows.values() if row.origin is Origin.API and row.wanted]

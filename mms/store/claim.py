"""The claim: facts, decision, next epoch, generation and the BOOTING row, as one step within one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mms.errors import StoreInUse
from mms.records import BootDecision, BootFacts, Incarnation, IncarnationState, ProcessIdentity
from mms.store import attempts, incarnations, journal, meta, snapshot
from mms.store.database import Transaction, now
from mms.store.images import clean
from mms.store.witness import Mark


@dataclass(frozen=True, slots=True)
class Claim:
    """A life's claim, once its transaction commits."""

    meta: meta.Meta
    incarnation: Incarnation
    decision: BootDecision
    facts: BootFacts


def facts(tx: Transaction, server_id: str) -> BootFacts:
    """Everything that the boot decision may look at."""
    history = incarnations.history(tx, server_id)
    begun = incarnations.generations(tx, server_id)
    return BootFacts(
        last=history.last,
        generations=snapshot.summaries(tx, server_id, begun, history.abandoned_below),
        open_attempts=attempts.still_open(tx, server_id, from_epoch=history.suspect_from),
        failed_boots=history.failed_boots,
    )


def claim(
    tx: Transaction,
    server_id: str,
    opened: meta.Meta | None,
    lost: Mark | None,
    decide: Callable[[BootFacts], BootDecision],
    identity: ProcessIdentity,
    flags: Sequence[str],
) -> Claim:
    """Decide and write; nothing else is marked, so that the facts of a crash stay readable.

    `opened` is the row as verification found it; `lost` is what the witness of an accepted loss had seen: every number
    goes on from there, so that none is ever used for two things. Raises StoreInUse where another life claimed in between.
    """
    found = meta.read(tx, server_id, lock=True)
    if found != opened:
        raise StoreInUse("Another server has claimed the store while this one was starting.")
    base = found or meta.fresh(tx)
    if lost is not None:
        base = replace(
            base,
            epoch=max(base.epoch, lost.epoch),
            last_seq=max(base.last_seq, lost.last_seq) + 1,
            commits=max(base.commits, lost.commits),
        )
    if base.entries is None:
        base = replace(base, entries=journal.count(tx, server_id))
    seen = facts(tx, server_id)
    decision = decide(seen)
    generations = max([base.generations, *(each.generation for each in seen.generations)])
    generation = generations + 1 if decision.generation is None else decision.generation
    after = meta.counted(base, epoch=base.epoch + 1, generation=generation, generations=max(generations, generation))
    row = Incarnation(
        epoch=after.epoch,
        generation=generation,
        state=IncarnationState.BOOTING,
        decision=decision.decision,
        reason=clean(decision.reason),
        identity=identity,
        flags=tuple(flags),
        started_at=now(tx),
    )
    incarnations.append(tx, server_id, row)
    if found is None:
        meta.begin(tx, server_id, after)
    else:
        meta.save(tx, server_id, after, epoch=found.epoch)
    return Claim(after, row, decision, seen)

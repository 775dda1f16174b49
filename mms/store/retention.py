"""How long the journal is kept: what may go, what a later point still needs, and the removal of the rest."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select

from mms.records import ChangeOutcome
from mms.store import segments
from mms.store.database import Transaction
from mms.store.meta import Meta
from mms.store.segment import Head, entry, pack
from mms.store.tables import journal

PRUNED_AT_ONCE = 2000
REWRITTEN_AT_ONCE = 16
"""Segments that one call opens to keep a part of them: what is left over is removed by a later one."""
_NUMBERS_AT_ONCE = 500  # in one statement: databases limit that


def prune(
    tx: Transaction, server_id: str, meta: Meta, *, keep_entries: int, older_than: datetime, segment_size: int
) -> tuple[int, int]:
    """Remove entries that are neither among the newest `keep_entries` nor younger than `older_than`.

    Returns the new horizon, which is the newest number that may be gone, and how many entries were removed. The latest
    image of each model at or before the horizon stays, and so does whatever has no outcome yet: every point from the horizon
    on can still be restored. Raises Altered.
    """
    own = journal.c.server_id == server_id
    loose = tx.execute(select(func.min(journal.c.seq)).where(own, journal.c.at >= older_than)).scalar()
    young = [seq for seq in (loose, segments.oldest_from(tx, server_id, older_than)) if seq is not None]
    first_young = min(young, default=meta.last_seq + 1)
    horizon = min(first_young - 1, meta.last_seq - keep_entries, meta.pruned_seq + PRUNED_AT_ONCE)
    if horizon <= meta.pruned_seq:
        return meta.pruned_seq, 0
    heads = segments.heads(tx, server_id, up_to=horizon)
    needed = _needed(tx, server_id, heads, horizon)
    kept = {seq for head in heads for seq in head.seqs if seq > horizon} | needed
    removed = _remove_loose(tx, server_id, horizon, needed) + _shrink(tx, server_id, heads, kept, segment_size)
    return horizon, removed


def keep_from(at: datetime, keep_days: float) -> datetime:
    """The time from which on entries are young; a day at least, since answers to repeated requests are kept there."""
    return at - timedelta(days=max(keep_days, 1.0))


def _needed(tx: Transaction, server_id: str, heads: Sequence[Head], horizon: int) -> set[int]:
    """The number of the latest image of each model of each generation at or before the horizon."""
    latest: dict[tuple[int, str, str], int] = {}
    for head in heads:
        for series in head.series:
            found = series.latest(horizon)
            if found is not None:
                latest[series.generation, series.name, series.version] = found
    model = (journal.c.generation, journal.c.name, journal.c.version)
    loose = select(*model, func.max(journal.c.seq)).where(
        journal.c.server_id == server_id,
        journal.c.seq <= horizon,
        journal.c.outcome != ChangeOutcome.FAILED.value,
    )
    for generation, name, version, seq in tx.execute(loose.group_by(*model)):
        latest[generation, name, version] = max(seq, latest.get((generation, name, version), 0))
    return set(latest.values())


def _remove_loose(tx: Transaction, server_id: str, horizon: int, needed: Collection[int]) -> int:
    own = journal.c.server_id == server_id
    settled = select(journal.c.seq).where(
        own, journal.c.seq <= horizon, journal.c.outcome != ChangeOutcome.PENDING.value
    )
    gone = [seq for seq in tx.execute(settled).scalars() if seq not in needed]
    for start in range(0, len(gone), _NUMBERS_AT_ONCE):
        tx.execute(delete(journal).where(own, journal.c.seq.in_(gone[start : start + _NUMBERS_AT_ONCE])))
    return len(gone)


def _shrink(tx: Transaction, server_id: str, heads: Sequence[Head], kept: Collection[int], size: int) -> int:
    """Leave only the `kept` entries in these segments, of neighbours in one; returns how many entries were removed."""
    run: list[Head] = []
    held = opened = removed = 0
    for head in heads:
        left = sum(seq in kept for seq in head.seqs)
        if run and held + left > size:
            done = _rewrite(tx, server_id, run, kept)
            opened, removed = opened + done[0], removed + done[1]
            run, held = [], 0
        if opened >= REWRITTEN_AT_ONCE:
            return removed
        run.append(head)
        held += left
    return removed + _rewrite(tx, server_id, run, kept)[1]


def _rewrite(tx: Transaction, server_id: str, run: Sequence[Head], kept: Collection[int]) -> tuple[int, int]:
    """One segment in the place of several, with what is kept of them; returns how many were opened and entries removed."""
    removed = sum(seq not in kept for head in run for seq in head.seqs)
    if not removed:
        return 0, 0
    holding = [head for head in run if any(seq in kept for seq in head.seqs)]
    lines = [line for head in holding for line in segments.lines(tx, server_id, head, kept)]
    for head in run:
        segments.remove(tx, server_id, head)
    if lines:
        segments.add(tx, pack(server_id, [entry(line) for line in lines], lines))
    return len(holding), removed

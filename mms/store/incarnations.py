"""The incarnation table: one row for each life of the server, and what the boot decision reads from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from mms.records import Decision, Incarnation, IncarnationState, ProcessIdentity
from mms.store.database import Transaction
from mms.store.images import clean
from mms.store.seal import sealed
from mms.store.tables import incarnation

NEXT_STATE = {
    IncarnationState.BOOTING: IncarnationState.RUNNING,
    IncarnationState.RUNNING: IncarnationState.STOPPING,
    IncarnationState.STOPPING: IncarnationState.CLEAN,
}
"""The only steps there are: a boot that never finished is never marked clean."""


@dataclass(frozen=True, slots=True)
class BootHistory:
    """What the incarnation rows say to the next boot.

    `abandoned_below`: generations below this number were left behind by a clean start. `suspect_from`: load attempts of
    older epochs are of no interest: a clean stop or another generation came since.
    """

    last: Incarnation | None
    failed_boots: int
    abandoned_below: int
    suspect_from: int


def append(tx: Transaction, server_id: str, row: Incarnation) -> None:
    """Write the row of a new life: from here on, it is the crash marker."""
    tx.execute(insert(incarnation).values(sealed(incarnation, _values(server_id, row))))


def last(tx: Transaction, server_id: str) -> Incarnation | None:
    """The newest incarnation."""
    found = recent(tx, server_id, 1)
    return found[0] if found else None


def recent(tx: Transaction, server_id: str, limit: int) -> list[Incarnation]:
    """The newest incarnations, newest first."""
    statement = select(incarnation).where(incarnation.c.server_id == server_id)
    rows = tx.execute(statement.order_by(incarnation.c.epoch.desc()).limit(limit)).mappings()
    return [_record(row) for row in rows]


def step(
    tx: Transaction, server_id: str, epoch: int, state: IncarnationState, reason: str, at: datetime
) -> IncarnationState | None:
    """Guarded step of a life's own row; returns the state that stood in the way, None where the step was made."""
    row = _own(tx, server_id, epoch)
    found = IncarnationState(row["state"])
    if NEXT_STATE.get(found) is not state:
        return found
    changes: dict[str, Any] = {"state": state.value}
    if state is IncarnationState.RUNNING:
        changes["ready_at"] = at
    else:
        changes |= {"stopped_at": at, "stop_reason": clean(reason) or row["stop_reason"]}
    _write(tx, row, changes)
    return None


def mark_interrupted(tx: Transaction, server_id: str, epoch: int, reason: str, at: datetime) -> None:
    """An orderly stop while BOOTING: the state stays, so that the next boot repeats the decision."""
    row = _own(tx, server_id, epoch)
    _write(tx, row, {"boot_interrupted": True, "stopped_at": at, "stop_reason": clean(reason)})


def beat(tx: Transaction, server_id: str, epoch: int, at: datetime) -> None:
    """Write the heartbeat; it is not part of the row's hash."""
    where = (incarnation.c.server_id == server_id, incarnation.c.epoch == epoch)
    tx.execute(update(incarnation).where(*where).values(heartbeat_at=at))


def history(tx: Transaction, server_id: str) -> BootHistory:
    """Everything that a boot decision needs to know of earlier lives."""
    table = incarnation
    own = table.c.server_id == server_id
    newest = last(tx, server_id)
    abandoned = select(func.max(table.c.generation)).where(own, table.c.decision == Decision.CLEAN.value)
    abandoned_below = tx.execute(abandoned).scalar() or 0
    if newest is None:
        return BootHistory(None, 0, abandoned_below, 0)
    ended_well = select(func.max(table.c.epoch)).where(
        own, (table.c.state != IncarnationState.BOOTING.value) | table.c.boot_interrupted
    )
    failed = select(func.count()).where(own, table.c.epoch > (tx.execute(ended_well).scalar() or 0))
    before = select(func.max(table.c.epoch)).where(
        own, (table.c.state == IncarnationState.CLEAN.value) | (table.c.generation != newest.generation)
    )
    return BootHistory(
        last=newest,
        failed_boots=tx.execute(failed).scalar_one(),
        abandoned_below=abandoned_below,
        suspect_from=(tx.execute(before).scalar() or 0) + 1,
    )


def generations(tx: Transaction, server_id: str) -> set[int]:
    """The generations that some incarnation had."""
    statement = select(incarnation.c.generation).where(incarnation.c.server_id == server_id).distinct()
    return set(tx.execute(statement).scalars())


def prune(tx: Transaction, server_id: str, *, keep: int, current: int) -> int:
    """Remove the oldest rows beyond `keep`; the newest clean start stays, since it says what is abandoned."""
    table = incarnation
    own = table.c.server_id == server_id
    clean_start = tx.execute(
        select(func.max(table.c.epoch)).where(own, table.c.decision == Decision.CLEAN.value)
    ).scalar()
    stale = [own, table.c.epoch <= current - keep]
    if clean_start is not None:
        stale.append(table.c.epoch != clean_start)
    return tx.execute(delete(table).where(*stale)).rowcount


def _own(tx: Transaction, server_id: str, epoch: int) -> Mapping[Any, Any]:
    statement = select(incarnation).where(incarnation.c.server_id == server_id, incarnation.c.epoch == epoch)
    return tx.execute(statement).mappings().one()


def _write(tx: Transaction, row: Mapping[Any, Any], changes: Mapping[str, Any]) -> None:
    values = sealed(incarnation, {**{str(name): value for name, value in row.items()}, **changes})
    where = (incarnation.c.server_id == row["server_id"], incarnation.c.epoch == row["epoch"])
    tx.execute(update(incarnation).where(*where).values(values))


def _values(server_id: str, row: Incarnation) -> dict[str, Any]:
    return {
        "server_id": server_id,
        "epoch": row.epoch,
        "generation": row.generation,
        "state": row.state.value,
        "decision": row.decision.value,
        "reason": clean(row.reason),
        "flags": list(row.flags),
        "host": clean(row.identity.host),
        "boot_id": row.identity.boot_id,
        "pid": row.identity.pid,
        "start_ticks": row.identity.start_ticks,
        "version": row.identity.version,
        "started_at": row.started_at,
        "ready_at": row.ready_at,
        "heartbeat_at": row.heartbeat_at,
        "stopped_at": row.stopped_at,
        "stop_reason": clean(row.stop_reason),
        "boot_interrupted": False,
    }


def _record(row: Mapping[Any, Any]) -> Incarnation:
    identity: Sequence[Any] = [row[name] for name in ("host", "boot_id", "pid", "start_ticks", "version")]
    times = {name: row[name] for name in ("started_at", "ready_at", "heartbeat_at", "stopped_at")}
    return Incarnation(
        epoch=row["epoch"],
        generation=row["generation"],
        state=IncarnationState(row["state"]),
        decision=Decision(row["decision"]),
        reason=row["reason"],
        identity=ProcessIdentity(*identity),
        flags=tuple(row["flags"]),
        stop_reason=row["stop_reason"],
        **times,
    )

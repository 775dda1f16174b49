"""The load_attempt table: which loads were under way, committed before the risk so that the count outlives it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, select, update

from mms.records import LoadAttempt, ModelKey
from mms.store.database import Transaction
from mms.store.seal import sealed
from mms.store.tables import load_attempt


def open_now(tx: Transaction, server_id: str, epoch: int, key: ModelKey, sha256: str, at: datetime) -> None:
    """A load of this model begins; it supersedes whatever was open for the model before."""
    close(tx, server_id, key, at)
    own = (load_attempt.c.server_id == server_id, load_attempt.c.epoch == epoch)
    tx.execute(delete(load_attempt).where(*own, *_same(key)))
    values: dict[str, Any] = {
        "server_id": server_id,
        "epoch": epoch,
        "name": key.name,
        "version": key.version,
        "sha256": sha256,
        "opened_at": at,
        "closed_at": None,
    }
    tx.execute(insert(load_attempt).values(sealed(load_attempt, values)))


def close(tx: Transaction, server_id: str, key: ModelKey, at: datetime) -> None:
    """No load of this model is under way any more, of this life or an earlier one."""
    _close(tx, [load_attempt.c.server_id == server_id, load_attempt.c.name == key.name, *_either(key)], at)


def close_epoch(tx: Transaction, server_id: str, epoch: int, at: datetime) -> None:
    """An orderly stop ended every load of this life."""
    _close(tx, [load_attempt.c.server_id == server_id, load_attempt.c.epoch == epoch], at)


def still_open(tx: Transaction, server_id: str, *, from_epoch: int) -> tuple[LoadAttempt, ...]:
    """Loads that were under way when their server died, oldest first."""
    where = (
        load_attempt.c.server_id == server_id,
        load_attempt.c.closed_at.is_(None),
        load_attempt.c.epoch >= from_epoch,
    )
    rows = tx.execute(select(load_attempt).where(*where).order_by(load_attempt.c.epoch, load_attempt.c.name)).mappings()
    return tuple(
        LoadAttempt(row["epoch"], ModelKey(row["name"], row["version"]), row["sha256"], row["opened_at"])
        for row in rows
    )


def prune(tx: Transaction, server_id: str, *, before_epoch: int) -> int:
    """Remove the closed attempts of earlier lives."""
    where = (
        load_attempt.c.server_id == server_id,
        load_attempt.c.epoch < before_epoch,
        load_attempt.c.closed_at.is_not(None),
    )
    return tx.execute(delete(load_attempt).where(*where)).rowcount


def _same(key: ModelKey) -> Iterable[ColumnElement[bool]]:
    return (load_attempt.c.name == key.name, load_attempt.c.version == key.version)


def _either(key: ModelKey) -> Iterable[ColumnElement[bool]]:
    """The version may have been learnt only while loading."""
    if not key.version:
        return ()
    return (load_attempt.c.version.in_((key.version, "")),)


def _close(tx: Transaction, where: Iterable[ColumnElement[bool]], at: datetime) -> None:
    rows = tx.execute(select(load_attempt).where(*where, load_attempt.c.closed_at.is_(None))).mappings().all()
    for row in rows:
        values = sealed(load_attempt, {**{str(name): value for name, value in row.items()}, "closed_at": at})
        own = (load_attempt.c.server_id == row["server_id"], load_attempt.c.epoch == row["epoch"])
        tx.execute(update(load_attempt).where(*own, *_same(ModelKey(row["name"], row["version"]))).values(values))

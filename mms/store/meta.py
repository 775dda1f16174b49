"""The row of `store_meta`: identity, epoch and numbers of one server's store; the fence that every write passes."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update

from mms.store.database import Transaction, now
from mms.store.seal import sealed
from mms.store.tables import store_meta
from mms.store.trouble import Kind, Trouble
from mms.store.witness import Mark


class OtherEpoch(Exception):
    """The store belongs to a later life by now (`epoch`), or has lost what this one wrote (`missing` says what)."""

    def __init__(self, epoch: int, missing: str = "") -> None:
        super().__init__(missing or f"epoch {epoch}")
        self.epoch = epoch
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Meta:
    """One server's row."""

    store_uuid: str
    epoch: int
    last_seq: int
    commits: int
    generation: int
    generations: int
    pruned_seq: int
    created_at: datetime
    entries: int | None

    @property
    def mark(self) -> Mark:
        """What the witness keeps of it."""
        return Mark(self.store_uuid, self.epoch, self.last_seq, self.commits)


def fresh(tx: Transaction) -> Meta:
    """The row of a store that has no history; not written yet."""
    return Meta(str(uuid.uuid4()), 0, 0, 0, 0, 0, 0, now(tx), 0)


def read(tx: Transaction, server_id: str, *, lock: bool = False) -> Meta | None:
    """The row, or None where this server has none; `lock` keeps other writers out until the transaction ends."""
    statement = select(store_meta).where(store_meta.c.server_id == server_id)
    row = tx.execute(statement.with_for_update() if lock else statement).mappings().one_or_none()
    if row is None:
        return None
    return Meta(**{name: row[name] for name in Meta.__dataclass_fields__})


def read_mark(tx: Transaction, server_id: str) -> Mark | None:
    """The columns that every schema version has had: they are compared with the witness before anything is upgraded."""
    columns = (store_meta.c.store_uuid, store_meta.c.epoch, store_meta.c.last_seq, store_meta.c.commits)
    row = tx.execute(select(*columns).where(store_meta.c.server_id == server_id)).one_or_none()
    if row is None:
        return None
    if not all(isinstance(number, int) for number in row[1:]):
        raise Trouble(Kind.DAMAGED, f"table store_meta, server_id {server_id}: a number is no number")
    return Mark(*row)


def fence(tx: Transaction, server_id: str, known: Meta) -> Meta:
    """Lock the row and see that it is the one that this life left. Raises OtherEpoch."""
    found = read(tx, server_id, lock=True)
    if found is None or found.store_uuid != known.store_uuid:
        raise OtherEpoch(found.epoch if found else 0, "it is no longer the same store")
    if found.epoch > known.epoch:
        raise OtherEpoch(found.epoch)
    if found.mark.behind(known.mark):
        raise OtherEpoch(found.epoch, f"it went back from {describe(known.mark)} to {describe(found.mark)}")
    return found


def begin(tx: Transaction, server_id: str, meta: Meta) -> None:
    """Write the first row of a server."""
    tx.execute(insert(store_meta).values(sealed(store_meta, _values(server_id, meta))))


def save(tx: Transaction, server_id: str, meta: Meta, *, epoch: int) -> None:
    """Write the row where it still carries `epoch`: the guard of every write. Raises OtherEpoch."""
    statement = (
        update(store_meta)
        .where(store_meta.c.server_id == server_id, store_meta.c.epoch == epoch)
        .values(sealed(store_meta, _values(server_id, meta)))
    )
    if tx.execute(statement).rowcount != 1:
        raise OtherEpoch(0)


def counted(meta: Meta, **changes: Any) -> Meta:
    """The row after one more durable transaction."""
    return replace(meta, commits=meta.commits + 1, **changes)


def describe(mark: Mark) -> str:
    """A mark in words."""
    return f"epoch {mark.epoch}, journal number {mark.last_seq}, transaction {mark.commits}"


def _values(server_id: str, meta: Meta) -> dict[str, Any]:
    return {"server_id": server_id, **{name: getattr(meta, name) for name in Meta.__dataclass_fields__}}

"""The registration table: the rows of each generation, always whole; read, put and removed one at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, insert, select, update

from mms.records import GenerationSummary, ModelKey, Origin, Registration, RegistrationState
from mms.store import images
from mms.store.database import Transaction
from mms.store.seal import sealed
from mms.store.tables import registration


def rows(tx: Transaction, server_id: str, generation: int) -> list[Registration]:
    """The rows of a generation, tombstones included, by seq."""
    where = (registration.c.server_id == server_id, registration.c.generation == generation)
    order = (registration.c.seq, registration.c.name, registration.c.version)
    found = tx.execute(select(registration).where(*where).order_by(*order)).mappings()
    return [images.from_columns(row) for row in found]


def get(tx: Transaction, server_id: str, generation: int, key: ModelKey) -> Registration | None:
    """One row."""
    found = tx.execute(select(registration).where(*_one(server_id, generation, key))).mappings().one_or_none()
    return None if found is None else images.from_columns(found)


def put(tx: Transaction, server_id: str, row: Registration) -> None:
    """Write a whole row in the place of whatever has its key in its generation."""
    values = sealed(registration, images.to_columns(server_id, row))
    where = _one(server_id, row.generation, row.key)
    if tx.execute(update(registration).where(*where).values(values)).rowcount == 0:
        tx.execute(insert(registration).values(values))


def remove(tx: Transaction, server_id: str, generation: int, key: ModelKey) -> None:
    """Take a row out that a failed change had put in; an unregistered model keeps its row as a tombstone."""
    tx.execute(delete(registration).where(*_one(server_id, generation, key)))


def settle(tx: Transaction, server_id: str, row: Registration) -> bool:
    """Write state, last error and charges onto the row that the same journal entry wrote; False where it has changed since."""
    found = get(tx, server_id, row.generation, row.key)
    if found is None or found.seq != row.seq:
        return False
    put(tx, server_id, replace(found, state=row.state, last_error=row.last_error, charges=row.charges))
    return True


def count_requests(tx: Transaction, server_id: str, generation: int, seen: Mapping[ModelKey, int]) -> None:
    """Save how many requests each model has seen; outside of the rows' hashes."""
    if not seen:
        return
    statement = (
        update(registration)
        .where(registration.c.server_id == server_id, registration.c.generation == generation)
        .where(registration.c.name == bindparam("of_name"), registration.c.version == bindparam("of_version"))
        .values(requests_seen=bindparam("requests"))
    )
    values = [{"of_name": key.name, "of_version": key.version, "requests": count} for key, count in seen.items()]
    tx.execute(statement, values)


def summaries(tx: Transaction, server_id: str, begun: set[int], abandoned_below: int) -> tuple[GenerationSummary, ...]:
    """Every generation, oldest first; `begun` are those that may hold no rows."""
    table = registration
    columns = (table.c.generation, table.c.origin, table.c.state, table.c.overrides)
    held: dict[int, list[tuple[bool, bool]]] = defaultdict(list)
    for generation, origin, state, overrides in tx.execute(select(*columns).where(table.c.server_id == server_id)):
        wanted = state != RegistrationState.UNREGISTERED.value
        held[generation].append((wanted, origin == Origin.API.value or bool(overrides) or not wanted))
    return tuple(
        GenerationSummary(
            generation=generation,
            registrations=sum(wanted for wanted, _ in held[generation]),
            changes=any(changed for _, changed in held[generation]),
            abandoned=generation < abandoned_below,
        )
        for generation in sorted(begun | set(held))
    )


def digests(tx: Transaction, server_id: str) -> set[str]:
    """SHA-256 of every archive that some row names."""
    statement = select(registration.c.sha256).where(registration.c.server_id == server_id).distinct()
    return {found for found in tx.execute(statement).scalars() if found}


def _one(server_id: str, generation: int, key: ModelKey) -> tuple[ColumnElement[bool], ...]:
    table: Any = registration.c
    return (
        table.server_id == server_id,
        table.generation == generation,
        table.name == key.name,
        table.version == key.version,
    )

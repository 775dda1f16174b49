"""Row hashes: the one place that says what a row's content is and whether it is still what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from sqlalchemy import RowMapping, Table

UNSEALED = frozenset({"row_sha256", "requests_seen", "heartbeat_at"})
"""What the heartbeat writes is outside of the hash: nothing is decided by it, and its loss is no loss."""
OUTSIDE = "outside_seal"
"""Key of a table's `info`: the columns of it that are outside as well."""


def canonical(table: Table, values: Mapping[str, Any]) -> bytes:
    """A row's content as JSON, always in the same bytes. Absent and null are the same: a later nullable column changes no old hash."""
    outside = UNSEALED | table.info.get(OUTSIDE, frozenset())
    content = {name: _plain(value) for name, value in values.items() if name not in outside and value is not None}
    return json.dumps([table.name, content], sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def digest(table: Table, values: Mapping[str, Any]) -> str:
    """SHA-256 of a row's canonical content."""
    return hashlib.sha256(canonical(table, values)).hexdigest()


def sealed(table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a whole row, with its hash."""
    return {**values, "row_sha256": digest(table, values)}


def intact(table: Table, row: RowMapping) -> bool:
    """True if the row as read is the row as written."""
    return digest(table, dict(row)) == str(row["row_sha256"])


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value

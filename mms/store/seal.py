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


def canonical(table: Table, row: Mapping[Any, Any]) -> bytes:
    """The content of a row as read, as JSON and always in the same bytes.

    Absent and null are the same: a later nullable column changes no old hash.
    """
    outside = UNSEALED | table.info.get(OUTSIDE, frozenset())
    content = {name: value for name, value in row.items() if name not in outside and value is not None}
    return _ENCODER.encode([table.name, content]).encode()


def digest(table: Table, values: Mapping[str, Any]) -> str:
    """SHA-256 of the content of a row that is to be written: of what will be read."""
    return _sha256(canonical(table, {name: _plain(value) for name, value in values.items()}))


def sealed(table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a whole row, with its hash."""
    return {**values, "row_sha256": digest(table, values)}


def intact(table: Table, row: RowMapping) -> bool:
    """True if the row as read is the row as written."""
    return _sha256(canonical(table, row)) == str(row["row_sha256"])


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    if isinstance(value, bytes):
        return _sha256(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


# What a database gives is plain but for times and bytes, and is not gone through in Python: a boot does this for each row.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_plain)

"""A journal segment: some hundreds of old entries packed into one row, with what is looked for beside them; pure, no statements."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mms.errors import NotCommitted
from mms.records import ChangeOutcome
from mms.store.seal import canonical, sealed
from mms.store.tables import journal, journal_segment

Row = Mapping[Any, Any]
"""A row of the journal table, as read or as unpacked."""

_HASH = 64  # characters of a row's SHA-256, before its line
_KEY = 4  # bytes of an Idempotency-Key's SHA-256: enough, since a hit is looked at again


class Altered(NotCommitted):
    """Something stored is not what was written: it is refused by its name."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} is not what was written: the store was changed behind the server's back. "
            "`mms store verify` shows all that is damaged."
        )


@dataclass(frozen=True, slots=True)
class Series:
    """The entries of one model and version in one generation, by number: those that count, and those that failed."""

    generation: int
    name: str
    version: str
    done: Sequence[int]
    failed: Sequence[int]

    def latest(self, seq: int) -> int | None:
        """The newest number at or before `seq` whose change did not fail."""
        return next((each for each in reversed(self.done) if each <= seq), None)


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of a segment without its content."""

    first_seq: int
    last_seq: int
    series: Sequence[Series]

    @classmethod
    def of(cls, row: Row) -> Head:
        """From the columns first_seq, last_seq and models."""
        return cls(row["first_seq"], row["last_seq"], [Series(*each) for each in json.loads(row["models"])])

    @property
    def seqs(self) -> list[int]:
        """The numbers of all its entries, ascending: the order of its lines."""
        return sorted(seq for each in self.series for seq in (*each.done, *each.failed))

    def seqs_of(self, model: str | None) -> list[int]:
        """Those of one model, whatever its version; None: of all."""
        return sorted(seq for each in self.series if model in (None, each.name) for seq in (*each.done, *each.failed))

    @property
    def what(self) -> str:
        """Its name in a sentence."""
        return f"journal segment {self.first_seq} to {self.last_seq}"


def line(row: Row) -> bytes:
    """An entry as it is packed: its hash and the very bytes that were hashed. Raises Altered for one that was changed."""
    text = canonical(journal, row)
    if hashlib.sha256(text).hexdigest() != row["row_sha256"]:
        raise Altered(f"Journal entry {row['seq']}")
    return f"{row['row_sha256']} ".encode() + text


def pack(server_id: str, rows: Sequence[Row], lines: Sequence[bytes]) -> dict[str, Any]:
    """The values of the segment that holds these entries, ascending, none of them pending; `lines` are theirs."""
    times = [row["at"] for row in rows]
    values = {
        "server_id": server_id,
        "first_seq": rows[0]["seq"],
        "last_seq": rows[-1]["seq"],
        "entries": len(rows),
        "first_at": min(times),
        "last_at": max(times),
        **_index(rows),
        "content": zlib.compress(b"\n".join(lines)),
    }
    return sealed(journal_segment, values)


def unpack(row: Row) -> list[bytes]:
    """The lines of a segment whose hash was compared, in the order of its numbers."""
    return zlib.decompress(row["content"]).split(b"\n")


def entry(packed: bytes) -> Row:
    """The entry in a line, as the journal table would give it. Raises Altered."""
    text = packed[_HASH + 1 :]
    content = json.loads(text)[1]
    if hashlib.sha256(text).hexdigest().encode() != packed[:_HASH]:
        raise Altered(f"Journal entry {content.get('seq')}")
    # A null column is left out of what is hashed.
    return {
        **dict.fromkeys(journal.c.keys()),
        **content,
        "at": datetime.fromisoformat(content["at"]),
        "row_sha256": packed[:_HASH].decode(),
    }


def holds_key(keys: bytes, idempotency_key: str) -> bool:
    """Whether a segment with these `idempotency_keys` may hold an entry with that key; False is certain."""
    token, at = _token(idempotency_key), -1
    while (at := keys.find(token, at + 1)) >= 0:
        if at % _KEY == 0:
            return True
    return False


def may_name(models: bytes, name: str) -> bool:
    """Whether a segment with these `models` may hold entries of a model; reads no JSON, and False is certain."""
    return json.dumps(name).encode() in models


def contradictions(row: Row) -> Iterable[str]:
    """What is wrong within a segment whose own hash is right: every entry, and its index against them."""
    head = Head.of(row)
    rows = []
    for packed in unpack(row):
        try:
            rows.append(entry(packed))
        except (Altered, ValueError, KeyError, TypeError, AttributeError):
            yield f"{head.what}: an entry is not what was written (its SHA-256 differs)"
            return
    again = pack(row["server_id"], rows, [b""])
    for name in ("first_seq", "last_seq", "entries", "first_at", "last_at", "archives", "idempotency_keys", "models"):
        if again[name] != row[name]:
            yield f"{head.what}: its {name} does not agree with its entries"
    if [each["seq"] for each in rows] != head.seqs:
        yield f"{head.what}: its entries are not those that it names"


def _index(rows: Sequence[Row]) -> dict[str, Any]:
    """What is looked for: which archives, which keys, and the numbers of each model."""
    failed = ChangeOutcome.FAILED.value
    models: dict[tuple[int, str, str], tuple[list[int], list[int]]] = {}
    for row in rows:
        numbers = models.setdefault((row["generation"], row["name"], row["version"]), ([], []))
        numbers[row["outcome"] == failed].append(row["seq"])
    series = [[*key, *numbers] for key, numbers in sorted(models.items())]
    keys = sorted({_token(row["idempotency_key"]) for row in rows if row["idempotency_key"] is not None})
    return {
        "archives": "\n".join(sorted({row["sha256"] for row in rows if row["outcome"] != failed and row["sha256"]})),
        "idempotency_keys": b"".join(keys),
        "models": json.dumps(series, separators=(",", ":")).encode(),
    }


def _token(idempotency_key: str) -> bytes:
    return hashlib.sha256(idempotency_key.encode("utf-8", "surrogatepass")).digest()[:_KEY]

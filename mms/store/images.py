"""A registration as columns and as a JSON image (the journal's before and after), and back; no statements."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from mms.records import ModelKey, Origin, Registration, RegistrationState


def clean(text: str) -> str:
    """Text that both databases take: no NUL, no lone surrogate (a crashed worker's last words may hold either)."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def to_image(row: Registration | None) -> dict[str, Any] | None:
    """The whole row as JSON values."""
    if row is None:
        return None
    return {
        "name": row.key.name,
        "version": row.key.version,
        "origin": row.origin.value,
        "state": row.state.value,
        "url": row.url,
        "sha256": row.sha256,
        "handler": row.handler,
        "runtime": row.runtime,
        "overrides": dict(row.overrides),
        "generation": row.generation,
        "revision": row.revision,
        "seq": row.seq,
        "charges": row.charges,
        "last_error": clean(row.last_error),
        "requests_seen": row.requests_seen,
        "created_at": row.created_at.isoformat() if row.created_at else None,
        "updated_at": row.updated_at.isoformat() if row.updated_at else None,
    }


def from_image(image: Mapping[str, Any]) -> Registration:
    """The row that an image holds."""
    return from_columns(
        {
            **image,
            "created_at": _time(image.get("created_at")),
            "updated_at": _time(image.get("updated_at")),
        }
    )


def to_columns(server_id: str, row: Registration) -> dict[str, Any]:
    """The row's column values, without its hash."""
    if row.created_at is None or row.updated_at is None:
        raise ValueError("a stored registration has times")
    return {
        "server_id": server_id,
        "generation": row.generation,
        "name": row.key.name,
        "version": row.key.version,
        "origin": row.origin.value,
        "state": row.state.value,
        "url": clean(row.url),
        "sha256": row.sha256,
        "handler": row.handler,
        "runtime": row.runtime,
        "overrides": dict(row.overrides),
        "revision": row.revision,
        "seq": row.seq,
        "charges": row.charges,
        "last_error": clean(row.last_error),
        "requests_seen": row.requests_seen,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def from_columns(values: Mapping[Any, Any]) -> Registration:
    """The record of a row as read."""
    return Registration(
        key=ModelKey(values["name"], values["version"]),
        origin=Origin(values["origin"]),
        state=RegistrationState(values["state"]),
        url=values["url"],
        sha256=values["sha256"],
        handler=values["handler"],
        runtime=values["runtime"],
        overrides=values["overrides"],
        generation=values["generation"],
        revision=values["revision"],
        seq=values["seq"],
        charges=values["charges"],
        last_error=values["last_error"],
        requests_seen=values["requests_seen"],
        created_at=values["created_at"],
        updated_at=values["updated_at"],
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None

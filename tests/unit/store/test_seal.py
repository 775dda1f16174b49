from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mms.records import RegistrationState
from mms.store.images import clean, from_image, to_columns, to_image
from mms.store.seal import UNSEALED, digest, intact
from mms.store.tables import incarnation, registration
from tests.store_life import wish

ROW: dict[str, Any] = {
    "name": "magika",
    "overrides": {"batch_size": 8, "nested": {"b": 1, "a": [1, 2]}},
    "revision": 1,
    "updated_at": datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
}


def test_the_order_of_keys_and_the_time_zone_do_not_matter() -> None:
    turned = dict(reversed(ROW.items()))
    turned["overrides"] = {"nested": {"a": [1, 2], "b": 1}, "batch_size": 8}
    turned["updated_at"] = ROW["updated_at"].astimezone(timezone(timedelta(hours=5)))
    assert digest(registration, turned) == digest(registration, ROW)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"overrides": {}},
        {"revision": 2},
        {"revision": "1"},
        {"updated_at": datetime(2026, 1, 1, tzinfo=UTC)},
    ],
)
def test_any_other_content_has_another_hash(change: dict[str, Any]) -> None:
    assert digest(registration, ROW | change) != digest(registration, ROW)


def test_a_row_of_another_table_has_another_hash() -> None:
    assert digest(incarnation, ROW) != digest(registration, ROW)


def test_what_is_written_has_the_hash_of_what_will_be_read() -> None:
    written = ROW | {"name": RegistrationState.ACTIVE, "overrides": {10: (1, 2), 9: RegistrationState.PENDING}}
    read = ROW | {"name": "active", "overrides": {"9": "pending", "10": [1, 2]}}
    assert intact(registration, read | {"row_sha256": digest(registration, written)})  # type: ignore[arg-type]


def test_a_new_nullable_column_changes_no_old_hash() -> None:
    assert digest(registration, {**ROW, "added_later": None}) == digest(registration, ROW)


@pytest.mark.parametrize("name", sorted(UNSEALED))
def test_what_the_heartbeat_writes_is_outside(name: str) -> None:
    assert digest(registration, {**ROW, name: 5}) == digest(registration, ROW)


def test_every_other_column_of_a_registration_is_inside() -> None:
    assert UNSEALED & set(registration.c.keys()) == {"row_sha256", "requests_seen"}


@given(st.text())
def test_cleaned_text_is_taken_by_every_database(text: str) -> None:
    cleaned = clean(text)
    assert "\x00" not in cleaned
    cleaned.encode("utf-8")
    assert clean(cleaned) == cleaned


def test_an_image_gives_the_row_back() -> None:
    from dataclasses import replace

    at = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
    row = replace(wish(overrides={"batch_size": 8}), handler="a:b", seq=3, created_at=at, updated_at=at)
    image = to_image(row)
    assert image is not None
    assert from_image(image) == row
    assert to_columns("one", row)["server_id"] == "one"
    assert to_image(None) is None

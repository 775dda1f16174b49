from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mms.store import segment
from mms.store.seal import intact, sealed
from mms.store.segment import Altered, Head
from mms.store.tables import journal, journal_segment

NOON = datetime(2026, 1, 2, 12, 0, 0, 7, UTC)


def row(seq: int, **values: Any) -> dict[str, Any]:
    return sealed(
        journal,
        {
            "server_id": "one",
            "seq": seq,
            "epoch": 3,
            "generation": 1,
            "at": NOON + timedelta(minutes=seq % 1000),
            "actor": "tester",
            "request_id": f"r-{seq}",
            "idempotency_key": None,
            "request_digest": "",
            "operation": "register",
            "name": "magika",
            "version": "",
            "sha256": "sha",
            "before": None,
            "after": {"name": "magika", "overrides": {"batch_size": 8, "ä": [1.5, None]}},
            "outcome": "done",
            "response": {"status": "ü\n"},
            **values,
        },
    )


def packed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return segment.pack("one", rows, [segment.line(each) for each in rows])


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
values = st.fixed_dictionaries(
    {
        "name": texts,
        "version": texts,
        "generation": st.integers(1, 3),
        "sha256": st.sampled_from(["", "a", "b"]),
        "outcome": st.sampled_from(["done", "failed"]),
        "idempotency_key": st.none() | texts,
        "response": st.none() | st.dictionaries(texts, st.floats(allow_nan=False) | texts | st.integers()),
        "at": st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
    }
)


@given(st.dictionaries(st.integers(1, 2**63 - 1), values, min_size=1, max_size=12))
def test_whatever_is_packed_comes_out_as_it_was(drawn: dict[int, dict[str, Any]]) -> None:
    rows = [row(seq, **drawn[seq]) for seq in sorted(drawn)]
    made = packed(rows)
    assert intact(journal_segment, made)  # type: ignore[arg-type]
    assert [segment.entry(line) for line in segment.unpack(made)] == rows
    assert list(segment.contradictions(made)) == []
    head = Head.of(made)
    assert head.seqs == [each["seq"] for each in rows]
    for each in rows:
        assert segment.may_name(made["models"], each["name"])
        assert each["seq"] in head.seqs_of(each["name"])
        if each["idempotency_key"] is not None:
            assert segment.holds_key(made["idempotency_keys"], each["idempotency_key"])


def test_what_is_looked_for_is_told_without_the_content() -> None:
    rows = [
        row(1, name="a", idempotency_key="first"),
        row(2, name="b", outcome="failed", sha256="of-b"),
        row(5, name="a", sha256="", at=NOON - timedelta(days=1)),
        row(6, name="a", version="2", generation=2),
    ]
    made = packed(rows)
    assert (made["first_seq"], made["last_seq"], made["entries"]) == (1, 6, 4)
    assert (made["first_at"], made["last_at"]) == (NOON - timedelta(days=1), NOON + timedelta(minutes=6))
    assert made["archives"] == "sha"
    head = Head.of(made)
    assert head.seqs_of("a") == [1, 5, 6]
    assert {(each.generation, each.name, each.version): each.latest(5) for each in head.series} == {
        (1, "a", ""): 5,
        (1, "b", ""): None,
        (2, "a", "2"): None,
    }
    assert not segment.holds_key(made["idempotency_keys"], "second")
    assert not segment.may_name(made["models"], "c")


def test_a_key_is_not_found_across_two_others() -> None:
    token = segment._token("looked for")
    assert segment.holds_key(b"1234" + token, "looked for")
    assert not segment.holds_key(b"12" + token + b"34", "looked for")


def test_an_entry_that_was_changed_is_not_packed() -> None:
    with pytest.raises(Altered, match="Journal entry 4 is not what was written"):
        segment.line(row(4) | {"actor": "nobody"})


def test_an_entry_that_was_changed_in_its_segment_is_not_read() -> None:
    line = segment.line(row(4)).replace(b"tester", b"nobody")
    with pytest.raises(Altered, match="Journal entry 4 "):
        segment.entry(line)


def test_another_server_cannot_be_told_from_the_hash_since_rows_are_set_aside_by_their_server() -> None:
    made = packed([row(1), row(2)])
    assert intact(journal_segment, made | {"server_id": "one.lost-1"})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(set(journal_segment.c.keys()) - {"server_id", "row_sha256"}))
def test_every_column_is_in_the_hash(name: str) -> None:
    made = packed([row(1), row(2, idempotency_key="k")])
    other: dict[type, Any] = {int: 9, str: "x", bytes: made["content"][:-1], datetime: NOON - timedelta(days=9)}
    assert not intact(journal_segment, made | {name: other[type(made[name])]})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"archives": ""}, "its archives does not agree"),
        ({"last_at": NOON}, "its last_at does not agree"),
        ({"models": b'[[1,"magika","",[1,3],[]]]'}, "its models does not agree"),
        ({"content": zlib.compress(segment.line(row(1)))}, "its entries does not agree"),
        ({"content": zlib.compress(b"\n".join([segment.line(row(1)), segment.line(row(2))]).replace(b"r-2", b"r-9"))},
         "an entry is not what was written"),
    ],
)  # fmt: skip
def test_a_segment_that_was_written_anew_with_other_entries_contradicts_itself(
    change: dict[str, Any], finding: str
) -> None:
    made = sealed(journal_segment, packed([row(1), row(2)]) | change)
    assert intact(journal_segment, made)  # type: ignore[arg-type]
    assert finding in " ".join(segment.contradictions(made))

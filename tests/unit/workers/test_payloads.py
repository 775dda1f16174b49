"""Bodies and parts to Python values and back, beside what the standard library makes of them."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mms.errors import BadInput
from mms.workers.payloads import decode_json, decode_part, encode_output


@pytest.mark.parametrize(
    ("content_type", "value", "expected"),
    [
        ("application/json", b'{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
        ("application/json", b"12345678901234567890123", 12345678901234567890123),
        ("application/json", b'{"a": NaN, "b": -Infinity}', {"a": math.nan, "b": -math.inf}),
        ("application/json", b'"\\ud800"', "\ud800"),
        ("text/csv", "é".encode(), "é"),
        ("Application/JSON", b"{}", bytearray(b"{}")),
        ("application/vnd.api+json", b"{}", bytearray(b"{}")),
        ("image/png", b"\x89PNG", bytearray(b"\x89PNG")),
        ("", b"x", bytearray(b"x")),
    ],
)
def test_a_part_is_decoded_by_its_content_type(content_type: str, value: bytes, expected: Any) -> None:
    decoded = decode_part("body", content_type, value)
    assert type(decoded) is type(expected)
    assert repr(decoded) == repr(expected)


@pytest.mark.parametrize(
    ("content_type", "value"),
    [
        ("application/json", b"{not"),
        ("application/json", b""),
        ("application/json", b'"\xff"'),
        ("application/json", b"[" * 100_000),
        ("text/plain", b"\xff"),
    ],
)
def test_what_does_not_match_its_content_type_is_the_clients_fault(content_type: str, value: bytes) -> None:
    with pytest.raises(BadInput, match="'body'"):
        decode_part("body", content_type, value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.booleans(), st.sampled_from([None, 2]))
def test_json_is_read_as_the_standard_library_reads_it(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert repr(decode_json(text.encode("utf-8", "surrogatepass"))) == repr(json.loads(text))


@given(st.binary(max_size=30) | st.text(alphabet='{}[],:"0123456789.eE-+\\u ntf', max_size=20).map(str.encode))
def test_json_is_refused_where_the_standard_library_refuses_it(value: bytes) -> None:
    try:
        expected = repr(json.loads(value.decode("utf-8")))
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - the kinds differ
            decode_json(value)
    else:
        assert repr(decode_json(value)) == expected


@pytest.mark.parametrize(
    "value", [b"\x00\xff", bytearray(b"ab"), "é", {"b": [1, 2.5, None, True]}, 42, 1.5, None, {1: "x"}]
)
def test_output_is_written_as_mms_writes_it(value: Any) -> None:
    expected = value if isinstance(value, bytes | bytearray) else None
    if isinstance(value, str):
        expected = value.encode()
    assert encode_output(value) == (expected if expected is not None else json.dumps(value, indent=2).encode())


@given(json_values)
def test_json_output_is_the_text_of_the_standard_library(value: Any) -> None:
    if not isinstance(value, str):
        assert encode_output(value) == json.dumps(value, indent=2).encode()


class Number(int):
    def __repr__(self) -> str:
        return "not this"


@pytest.mark.parametrize(
    "value", [{1: "x"}, {None: 1, True: 2}, Number(3), [Number(3)], (1, (2.5,)), [1, True], [1.0, math.inf]]
)
def test_unusual_values_are_left_to_the_standard_library(value: Any) -> None:
    assert encode_output(value) == json.dumps(value, indent=2).encode()


@pytest.mark.parametrize("value", [{1, 2}, object(), 1j, {"v": b"x"}, {(1, 2): "x"}, memoryview(b"v")])
def test_what_json_does_not_know_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        encode_output(value)


def test_a_value_that_holds_itself_is_refused() -> None:
    circular: list[Any] = []
    circular.append(circular)
    with pytest.raises((ValueError, RecursionError)):
        encode_output(circular)

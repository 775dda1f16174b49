"""What MMS's JSON reader takes, and what even it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mms.archive.lenient_json import loads


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'url':'noop.mar','initial_workers':'1'}", {"url": "noop.mar", "initial_workers": "1"}),
        ("{runtime:'python',model:{modelName:'m'}}", {"runtime": "python", "model": {"modelName": "m"}}),
        ("{url: noop.mar}", {"url": "noop.mar"}),
        ("{url: http://h}", None),  # the colon ends the word, and what follows is no separator
        ("{a=1;b=>2}", {"a": 1, "b": 2}),
        ("{a: 1, // one\n b: 2, # two\n /* and\n three */ c: 3}", {"a": 1, "b": 2, "c": 3}),
        ("[1,,2]", [1, None, 2]),
        ("[1, 2.5, -3, 1e2, 01, .5]", [1, 2.5, -3, 100.0, "01", ".5"]),
        ("[True, FALSE, null, Null]", [True, False, None, None]),
        ("'it\\'s'", "it's"),
        ("'a\\u00e9\\n\\t\\\\'", "aé\n\t\\"),
        ("{'a':{'b':[{}]}}", {"a": {"b": [{}]}}),
        ("{'a':1,'a':2}", {"a": 2}),
        ('\ufeff{"a":1}', {"a": 1}),
    ],
)
def test_what_gson_reads_is_read(text: str, value: Any) -> None:
    if value is None:
        with pytest.raises(ValueError, match="expected"):
            loads(text)
    else:
        assert loads(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "url is noop.mar",
        "{ this is not json",
        "{",
        "{'a'",
        "{'a':",
        "{'a':1",
        "[1",
        "'open",
        "}",
        "{'a':1}}",
        "{:1}",
        "{'a':}",
        "{'a' 'b'}",
        "[1 2]",
        "/* open",
    ],
)
def test_what_even_gson_refuses_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)


@pytest.mark.parametrize("text", ["[" * 100_000, "{a:" * 50_000, "[" * 100_000 + "]" * 100_000])
def test_a_text_nested_without_end_is_refused_and_ends_no_process(text: str) -> None:
    with pytest.raises(ValueError, match=r"deep|expected"):
        loads(text)


def test_only_strict_json_may_be_long() -> None:
    assert len(loads(json.dumps(["x" * 100] * 10_000))) == 10_000
    with pytest.raises(ValueError, match=r"."):
        loads("[" + "'x'," * 100_000 + "]")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_strict_json_keeps_its_meaning_also_with_a_comment_in_front(value: Any) -> None:
    text = json.dumps(value)
    assert loads(text) == value
    assert loads(f"/* read by the forgiving reader */ {text}") == value


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        loads(text)
    except ValueError as e:
        assert str(e)  # noqa: PT017 (either way is right, nothing else is)

"""JSON as forgiving as MMS's reader (Gson): single quotes, unquoted names and words, comments, stray separators.

Strict JSON takes the standard library's way and costs nothing extra; only text that it refuses is read again here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_TOKEN = re.compile(
    r"""
      (?P<skip>   \s+ | //[^\n]* | \#[^\n]* | /\*.*?\*/ )
    | (?P<mark>   [{}\[\]:;,] | =>? )
    | (?P<quoted> "[^"\\]*(?:\\.[^"\\]*)*" | '[^'\\]*(?:\\.[^'\\]*)*' )
    | (?P<word>   [^\s{}\[\]:;,="'\\\#]+ )
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<real>(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)")
_WORDS: dict[str, Any] = {"null": None, "true": True, "false": False}
_LONGEST = 1 << 18  # characters; strict JSON may be of any length, this reader is not made for bulk
_SEPARATORS = frozenset({",", ";"})
_NAME_ENDS = frozenset({":", "=", "=>"})


class _Token(NamedTuple):
    kind: str
    text: str


_END = _Token("end", "")


def loads(text: str) -> Any:
    """The value of a JSON text. Raises ValueError where even Gson would not read it."""
    try:
        try:
            return json.loads(text)
        except ValueError:
            if len(text) > _LONGEST:
                raise
            return _Reader(text).document()
    except RecursionError:
        raise ValueError("nested too deeply") from None


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = next(self._tokens, _END)

    def document(self) -> Any:
        value = self._value()
        if self._next is not _END:
            raise ValueError(f"unexpected {self._next.text!r} after the value")
        return value

    def _take(self) -> _Token:
        token, self._next = self._next, next(self._tokens, _END)
        return token

    def _at(self, *marks: str) -> bool:
        return self._next.kind == "mark" and self._next.text in marks

    def _value(self) -> Any:
        token = self._take()
        if token.kind == "quoted":
            return _unquoted(token.text)
        if token.kind == "word":
            return _word(token.text)
        if token == ("mark", "{"):
            return self._object()
        if token == ("mark", "["):
            return self._array()
        raise ValueError(f"a value is expected, not {token.text!r}")

    def _object(self) -> dict[str, Any]:
        members: dict[str, Any] = {}
        while not self._at("}"):
            name = self._take()
            if name.kind not in ("quoted", "word"):
                raise ValueError(f"a name is expected, not {name.text!r}")
            if not self._at(*_NAME_ENDS):
                raise ValueError(f"':' is expected after {name.text!r}")
            self._take()
            members[_unquoted(name.text) if name.kind == "quoted" else name.text] = self._value()
            self._separator("}")
        self._take()
        return members

    def _array(self) -> list[Any]:
        items: list[Any] = []
        while not self._at("]"):
            items.append(None if self._at(*_SEPARATORS) else self._value())
            self._separator("]")
        self._take()
        return items

    def _separator(self, end: str) -> None:
        if self._at(*_SEPARATORS):
            self._take()
        elif not self._at(end):
            raise ValueError(f"',' or {end!r} is expected, not {self._next.text!r}")


def _tokens(text: str) -> Iterator[_Token]:
    position = 1 if text.startswith("\ufeff") else 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise ValueError(f"unexpected {text[position]!r} at character {position + 1}")
        position = match.end()
        if match.lastgroup != "skip":
            yield _Token(match.lastgroup, match.group())


def _unquoted(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        escape = match[1]
        return chr(int(escape[1:], 16)) if len(escape) == 5 else _ESCAPED.get(escape, escape)

    halves = _ESCAPE.sub(plain, text[1:-1])  # a character beyond 16 bits is written as two escapes
    return halves.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _word(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    number = _NUMBER.fullmatch(text)
    if number is None:
        return text
    return float(text) if number["real"] else int(text)

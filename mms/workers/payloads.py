"""Bytes to what handlers are given and back from what they return, by MMS's rules; pure, runs in the worker."""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii
from typing import Any

import orjson

from mms.errors import BadInput

_DIGITS_AS_ZERO = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x20 for byte in range(256))
_LONG_NUMBER = b"0" * 19


def decode_json(value: bytes | memoryview) -> Any:
    """What `json.loads` makes of UTF-8 text, mostly faster; raises ValueError (UnicodeDecodeError included)."""
    data = bytes(value)
    # orjson makes floats of integers above 64 bits. A regular expression would cost more here than the parsing saves.
    if _LONG_NUMBER not in data.translate(_DIGITS_AS_ZERO):
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            pass  # NaN, lone surrogates and some others are refused by one and taken by the other
    return json.loads(data.decode("utf-8"))


def decode_part(name: str, content_type: str, value: bytes | memoryview) -> Any:
    """A part as the handler gets it: JSON decoded, text as str, everything else a bytearray; raises BadInput."""
    if content_type == "application/json":
        try:
            return decode_json(value)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"The value of '{name}' is not valid JSON: {_one_line(error)}") from None
    if content_type.startswith("text"):
        try:
            return str(value, "utf-8")
        except UnicodeDecodeError as error:
            raise BadInput(f"The value of '{name}' is not UTF-8 text: {_one_line(error)}") from None
    return bytearray(value)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


def encode_output(value: Any) -> bytes:
    """The body for one item of the handler's answer; raises TypeError for a type that JSON does not know."""
    kind = type(value)
    if kind is bytes:
        return value  # type: ignore[no-any-return]
    if kind is str:
        return value.encode("utf-8")  # type: ignore[no-any-return]
    if isinstance(value, (bytes, bytearray)):  # a union would be made anew for each item
        return bytes(value)
    if isinstance(value, str):
        return value.encode("utf-8")
    try:
        return _indented(value, "\n").encode("ascii")
    except (_Unusual, RecursionError):
        return json.dumps(value, indent=2).encode("utf-8")


class _Unusual(Exception):
    """A value that only the standard library knows what to make of."""


def _indented(value: Any, line: str) -> str:
    """The text of `json.dumps(value, indent=2)`, which has no fast way of its own; `line` is a newline and the indentation."""
    kind = type(value)
    if kind is str:
        return encode_basestring_ascii(value)
    if kind is dict:
        return _indented_dict(value, line)
    if kind is list or kind is tuple:
        return _indented_list(value, line)
    if kind is int:
        return int.__repr__(value)
    if value is None or kind is bool or kind is float:
        return json.dumps(value)
    raise _Unusual


def _indented_dict(value: dict[Any, Any], line: str) -> str:
    if not value:
        return "{}"
    inner = f"{line}  "
    if any(type(key) is not str for key in value):
        raise _Unusual
    pairs = [f"{encode_basestring_ascii(key)}: {_indented(item, inner)}" for key, item in value.items()]
    return f"{{{inner}{f',{inner}'.join(pairs)}{line}}}"


def _indented_list(value: list[Any] | tuple[Any, ...], line: str) -> str:
    if not value:
        return "[]"
    inner = f"{line}  "
    between = f",{inner}"
    kinds = set(map(type, value))
    if kinds == {float}:
        items = between.join(map(float.__repr__, value))
        if "n" not in items:  # neither nan nor inf
            return f"[{inner}{items}{line}]"
    elif kinds == {int}:
        return f"[{inner}{between.join(map(int.__repr__, value))}{line}]"
    return f"[{inner}{between.join([_indented(item, inner) for item in value])}{line}]"

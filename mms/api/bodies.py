"""Turns a request's query and body into the named parts that a handler sees: forms and multipart by field, all else as `body`."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from mms.errors import BadInput
from mms.request import Part

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")


@lru_cache(maxsize=256)
def mime_type(content_type: bytes) -> str:
    """The type without its parameters, in the case in which it came."""
    return content_type.partition(b";")[0].strip().decode("latin-1")


@lru_cache(maxsize=256)
def plain_type(content_type: bytes) -> str | None:
    """The type of a body that is one part as it is; None where it is a form or a multipart body."""
    mime = mime_type(content_type)
    return None if mime.lower() in (FORM, MULTIPART) else mime


def parts_of(content_type: bytes, query: bytes, body: bytes) -> list[Part]:
    """The parts of a request, query parameters first; of equal names the last one counts.

    An empty body is a part too. Raises BadInput for a form or a multipart body that cannot be read.
    """
    mime = plain_type(content_type)
    if mime is not None and not query:
        return [("body", mime, body)]
    parts = query_parts(query) if query else []
    if mime is not None:
        parts.append(("body", mime, body))
    elif mime_type(content_type).lower() == FORM:
        parts += form_parts(body)
    elif boundary := parse_options_header(content_type)[1].get(b"boundary"):
        parts += multipart_parts(body, boundary)
    else:
        parts.append(("body", mime_type(content_type), body))
    return parts


def pairs(text: bytes) -> list[tuple[str, bytes]]:
    """The fields of a query string, in order; one without `=` has an empty value."""
    found = []
    for field in text.split(b"&"):
        if field:
            name, _, value = field.replace(b"+", b" ").partition(b"=")
            found.append((unquote_to_bytes(name).decode("utf-8", "replace"), unquote_to_bytes(value)))
    return found


def query_parts(query: bytes) -> list[Part]:
    """Query parameters as parts without a type."""
    return [(name, "", value) for name, value in pairs(query)]


def form_parts(body: bytes) -> list[Part]:
    """Fields of a urlencoded form as parts without a type; as in MMS, a last field without `=` is not one."""
    bad = _BAD_PERCENT.search(body)
    if bad:
        raise BadInput(f"The form is not valid: a % is not followed by two hexadecimal digits at byte {bad.start()}.")
    last = body.rpartition(b"&")[2]
    return query_parts(body[: len(body) - len(last)] if b"=" not in last else body)


def multipart_parts(body: bytes, boundary: bytes) -> list[Part]:
    """Files with their own type, fields without one; a body in which no part begins has no parts, as in MMS."""
    collector = _Collector()
    parser = MultipartParser(boundary, callbacks=collector.callbacks())
    try:
        parser.write(body)
        parser.finalize()
    except MultipartParseError as error:
        if not collector.begun:
            return []
        raise BadInput(f"The multipart body is not valid: {error}") from error
    if collector.open:
        raise BadInput("The multipart body ends in the middle of a part.")
    return collector.parts


class _Collector:
    """Gathers what the parser finds into parts."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.begun = False
        self.open = False
        self._headers: dict[bytes, bytes] = {}
        self._field = b""
        self._value = b""
        self._data = bytearray()

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self.part_begin,
            "on_part_data": self.part_data,
            "on_part_end": self.part_end,
            "on_header_field": self.header_field,
            "on_header_value": self.header_value,
            "on_header_end": self.header_end,
        }

    def part_begin(self) -> None:
        self.begun = self.open = True
        self._headers = {}
        self._data = bytearray()

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def part_end(self) -> None:
        self.open = False
        _, disposition = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = disposition.get(b"name")
        if name is None:
            raise BadInput("A part of the multipart body has no name in its Content-Disposition.")
        mime = ""
        if b"filename" in disposition:
            mime = mime_type(self._headers.get(b"content-type", b"application/octet-stream"))
        self.parts.append((name.decode("utf-8", "replace"), mime, bytes(self._data)))

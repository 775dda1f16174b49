"""Writes answers as bytes: status lines with MMS's reason phrases, the headers that every answer carries, and nothing twice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from mms.errors import PredictionFailed
from mms.request import InferenceResponse

_SPECIAL_PHRASES = {
    210: "Partial Success",
    413: "Request Entity Too Large",  # Python has renamed these three over time
    414: "Request-URI Too Long",
    422: "Unprocessable Entity",
}
_CLASS_PHRASES = {1: "Informational", 2: "Success", 3: "Redirection", 4: "Client Error", 5: "Server Error"}
_OURS = frozenset(
    (
        "x-request-id",
        "pragma",
        "cache-control",
        "expires",
        "content-length",
        "connection",
        "transfer-encoding",
        "content-type",
        "keep-alive",
    )
)
"""Headers that a handler cannot set through its header map: the server's own word stands, as in MMS."""

_NOT_IN_NAME = re.compile(r"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")
_NOT_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TEMPLATES = 256  # most that are kept
_SHORT = 1024
_LENGTHS = [b"%d\r\n\r\n" % size for size in range(_SHORT)]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\n"


def reason_phrase(status: int) -> str:
    """The phrase that MMS sends with a status of its own."""
    if status in _SPECIAL_PHRASES:
        return _SPECIAL_PHRASES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"{_CLASS_PHRASES.get(status // 100, 'Unknown Status')} ({status})"


@dataclass(frozen=True, slots=True)
class Cors:
    """The three `cors_allowed_*` settings, sent verbatim on every answer; an empty one is not sent."""

    origin: str = ""
    methods: str = ""
    headers: str = ""

    @property
    def enabled(self) -> bool:
        """True where an origin is allowed at all."""
        return bool(self.origin)

    def pairs(self) -> list[tuple[str, str]]:
        """Header names and values."""
        named = (("Origin", self.origin), ("Methods", self.methods), ("Headers", self.headers))
        return [(f"Access-Control-Allow-{name}", value) for name, value in named if value]


def too_large(*, close: bool) -> bytes:
    """413 as the original sends it: no body, no request id, no other header."""
    return _TOO_LARGE + (b"connection: close\r\n\r\n" if close else b"\r\n")


class Wire:
    """Builds whole answers. Heads are kept as templates, since a server sends few different ones."""

    def __init__(self, cors: Cors | None = None) -> None:
        self._cors = (cors or Cors()).pairs()
        self._templates: dict[tuple[int, str, str | None, bool], bytes] = {}
        before, _, after = (self._template(200, "", None, False, ()) % (b"\0", 0, b"")).partition(b"\0")
        self._plain = before, after.removesuffix(_LENGTHS[0])

    def plain(self, request_id: str, body: bytes) -> bytes:
        """200 with a body and nothing else, on a connection that goes on: what most answers are, for a fraction of the time."""
        before, after = self._plain
        size = len(body)
        length = _LENGTHS[size] if size < _SHORT else b"%d\r\n\r\n" % size
        return b"".join((before, request_id.encode(), after, length, body))

    def answer(
        self,
        status: int,
        reason: str,
        request_id: str,
        content_type: str | None,
        body: bytes,
        close: bool,
        headers: Sequence[tuple[str, str]] = (),
    ) -> bytes:
        """Head and body in one piece; `close` tells the client that the connection ends here."""
        found = None if headers else self._templates.get((status, reason, content_type, close))
        if found is None:
            found = self._template(status, reason, content_type, close, headers)
        return found % (request_id.encode("ascii"), len(body), body)

    def head(
        self,
        status: int,
        reason: str,
        request_id: str,
        content_type: str | None,
        length: int,
        close: bool,
        headers: Sequence[tuple[str, str]] = (),
    ) -> bytes:
        """The head alone, for a body of `length` bytes that follows by itself or not at all."""
        template = self._template(status, reason, content_type, close, headers)
        return template % (request_id.encode("ascii"), length, b"")

    def _template(
        self, status: int, reason: str, content_type: str | None, close: bool, headers: Sequence[tuple[str, str]]
    ) -> bytes:
        key = (status, reason, content_type, close)
        if not headers and key in self._templates:
            return self._templates[key]
        lines = [f"HTTP/1.1 {status} {reason}", "x-request-id: \0"]
        lines += [f"{name}: {value}" for name, value in headers]
        if content_type:
            lines.append(f"content-type: {content_type}")
        lines.append("Pragma: no-cache")
        lines.append("Cache-Control: no-cache; no-store, must-revalidate, private")
        lines.append("Expires: Thu, 01 Jan 1970 00:00:00 UTC")
        taken = {name.lower() for name, _ in headers}
        lines += [f"{name}: {value}" for name, value in self._cors if name.lower() not in taken]
        lines.append(f"connection: {'close' if close else 'keep-alive'}")
        lines.append("content-length: \1")
        head = "\r\n".join(lines).encode("utf-8", "replace").replace(b"%", b"%%")
        template = head.replace(b"\0", b"%b").replace(b"\1", b"%d") + b"\r\n\r\n%b"
        if not headers:
            if len(self._templates) >= _TEMPLATES:
                self._templates.clear()
            self._templates[key] = template
        return template


def bodiless(status: int) -> bool:
    """True for a status whose answer ends with its head, whatever a handler put beside it."""
    return status in (204, 304)


def checked(response: InferenceResponse) -> InferenceResponse:
    """A handler's answer, fit to be sent: raises PredictionFailed (500) where its status, phrase or headers would break the protocol."""
    if not 200 <= response.status <= 999:
        raise PredictionFailed(f"The handler set status {response.status}, which cannot end a request.", 500)
    phrase = response.reason
    if phrase and _NOT_IN_VALUE.search(phrase):
        raise PredictionFailed("The handler set a reason phrase with a control character in it.", 500)
    if response.content_type and _NOT_IN_VALUE.search(response.content_type):
        raise PredictionFailed("The handler set a content type with a control character in it.", 500)
    if response.headers:
        kept = []
        for name, value in response.headers:
            if not name or _NOT_IN_NAME.search(name) or _NOT_IN_VALUE.search(value):
                raise PredictionFailed(f"The handler set a header that is not valid HTTP: {name!r}", 500)
            if name.lower() == "content-type" and not response.content_type:
                response.content_type = value
            elif name.lower() not in _OURS:
                kept.append((name, value))
        response.headers = kept
    if bodiless(response.status):
        response.body = b""
    return response

"""The head of a request: what the server itself needs of it, and the limits that it keeps."""

from __future__ import annotations

import httptools

from mms.api.bodies import plain_type
from mms.api.routes import PredictionRoute
from mms.request import Header, HeaderList

MAX_REQUEST_LINE = 4096
MAX_HEADERS = 8192
"""Netty's limits in bytes, which MMS leaves as they are."""


class RequestHead:
    """A head as it came: `headers` keep their case and order, `version` is `1.0` or `1.1`, `length` the declared one (else 0).

    `line` is the request line as the access log shows it.
    """

    __slots__ = (
        "content_type",
        "expects_continue",
        "has_host",
        "headers",
        "keep_alive",
        "length",
        "line",
        "method",
        "url",
        "version",
    )

    def __init__(self, method: bytes, url: bytes, version: str, headers: list[Header], keep_alive: bool) -> None:
        self.method = method
        self.url = url
        self.version = version
        self.headers = HeaderList(headers)
        self.line = b"%b %b HTTP/%b" % (method, url, version.encode())
        self.keep_alive = keep_alive
        self.content_type = b""
        self.expects_continue = False
        self.has_host = False
        self.length = 0
        for name, value in headers:  # the length of a name tells most of them apart, and costs next to nothing
            size = len(name)
            if size == 4:
                self.has_host = self.has_host or name.lower() == b"host"
            elif size == 12:
                if name.lower() == b"content-type":
                    self.content_type = value
            elif size == 14:
                if name.lower() == b"content-length":
                    self.length = int(value)
            elif size == 6 and version == "1.1" and name.lower() == b"expect":
                self.expects_continue = value.lower() == b"100-continue"

    def too_long(self) -> bool:
        """Whether the request line or the headers are over the limits."""
        line = len(self.method) + len(self.url) + len(" HTTP/1.1") + 1
        return line > MAX_REQUEST_LINE or sum(len(n) + len(v) + 4 for n, v in self.headers) > MAX_HEADERS


class KnownHead:
    """The head of a prediction that came whole in one piece: a client that repeats it word for word is not parsed again.

    `raw` is the head, `size` bytes long, and `whole` the length of a request with it. `body_type` is set where the body is
    the request's only part.
    """

    __slots__ = ("body_type", "head", "query", "raw", "route", "size", "whole")

    MOST = 2048  # bytes that a connection keeps

    def __init__(self, head: RequestHead, route: PredictionRoute, query: bytes) -> None:
        self.head = head
        self.route = route
        self.query = query
        self.size = 0
        self.raw = b""
        self.whole = 0
        self.body_type = None if route.query and query else plain_type(head.content_type)

    def learnt_from(self, data: bytes) -> KnownHead | None:
        """This head as the bytes in which it came; None unless `data` is the head and a body of the declared length, no more."""
        head = self.head
        size = data.find(b"\r\n\r\n") + 4
        framed = any(name.lower() in (b"transfer-encoding", b"upgrade") for name, _ in head.headers)
        if framed or head.expects_continue or not head.keep_alive:
            return None
        if not 4 <= size <= self.MOST or size + head.length != len(data):
            return None
        self.size, self.raw, self.whole = size, data[:size], len(data)
        return self


def origin_form(url: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request target in absolute form."""
    try:
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        return b"/", b""
    return parsed.path or b"/", parsed.query or b""

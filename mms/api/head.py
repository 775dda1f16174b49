"""The head of a request: what the server itself needs of it, and the limits that it keeps."""

from __future__ import annotations

import httptools

from mms.api.access_log import answered_line
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

    `raw` is the head, `size` bytes long, and `whole` the length of a request with it. `model` is meant, `body_type` is the
    body's, which is the request's only part, and `log_line` what the log says of it where it is answered well.
    """

    __slots__ = ("body_type", "head", "log_line", "model", "raw", "size", "whole")

    MOST = 2048  # bytes that a connection keeps

    def __init__(self, head: RequestHead, model: str, body_type: str, log_line: bytes, data: bytes, size: int) -> None:
        self.head = head
        self.model = model
        self.body_type = body_type
        self.log_line = log_line
        self.raw = data[:size]
        self.size = size
        self.whole = len(data)

    @classmethod
    def learnt(cls, head: RequestHead, route: PredictionRoute, data: bytes, peer: bytes) -> KnownHead | None:
        """The head of the request that came as `data` from `peer`; None where one like it may have to be looked at more closely.

        That is so unless `data` is the head and a body of the declared length, no more, the path alone names the model, and
        the body is one part.
        """
        size = data.find(b"\r\n\r\n") + 4
        body_type = None if route.query and b"?" in head.url else plain_type(head.content_type)
        if body_type is None or not route.model or not head.keep_alive or head.method == b"HEAD":
            return None
        if head.expects_continue or any(n.lower() in (b"transfer-encoding", b"upgrade") for n, _ in head.headers):
            return None
        if not 4 <= size <= cls.MOST or size + head.length != len(data):
            return None
        return cls(head, route.model, body_type, answered_line(peer, head.line, 200), data, size)


def origin_form(url: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request target in absolute form."""
    try:
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        return b"/", b""
    return parsed.path or b"/", parsed.query or b""

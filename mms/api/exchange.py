"""One request and its answer on a connection: what each kind has to do, those that go through ASGI, and refusals that need no work."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Protocol

from uvicorn._types import ASGI3Application, ASGISendEvent, HTTPScope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from mms.api.head import RequestHead
from mms.api.wire import bodiless, reason_phrase, too_large

if TYPE_CHECKING:
    from mms.api.protocol import MmsProtocol


class Answering(Protocol):
    """The request that a connection is busy with."""

    @property
    def received(self) -> bool:
        """The request is read, whole."""

    def disconnect(self) -> None:
        """The client has gone."""


class Exchange(Answering, Protocol):
    """What a connection does with a request: exchanges are started one after the other, in the order in which they came."""

    @property
    def answered(self) -> bool:
        """The answer is written, whole."""

    def start(self) -> None:
        """All earlier requests of the connection are answered."""

    def receive_body(self, data: bytes) -> None:
        """More of the body."""

    def receive_end(self) -> None:
        """The body is complete."""


class ReadyAnswer:
    """An answer that needs no work: a refusal. `close` ends the connection, with or without a header that says so."""

    def __init__(self, connection: MmsProtocol, data: bytes, *, close: bool, received: bool = False) -> None:
        self.answered = False
        self.received = received
        self._connection = connection
        self._data = data
        self._close = close

    def start(self) -> None:
        """Write it."""
        self.answered = True
        self._connection.transport.write(self._data)
        self._connection.answer_written(self, close=self._close)

    def receive_body(self, data: bytes) -> None:
        """Thrown away."""

    def receive_end(self) -> None:
        """Note it."""
        self.received = True

    def disconnect(self) -> None:
        """Nothing waits for it."""


class AsgiExchange(RequestResponseCycle):
    """Any other request, through uvicorn's own cycle; the answer is gathered whole and leaves with MMS's head on it."""

    def __init__(
        self,
        connection: MmsProtocol,
        head: RequestHead,
        scope: HTTPScope,
        app: ASGI3Application,
        limit: int,
        request_id: str,
    ) -> None:
        super().__init__(
            scope=scope,
            transport=connection.transport,
            flow=connection.flow,
            logger=connection.logger,
            access_logger=connection.access_logger,
            access_log=False,
            default_headers=[],
            message_event=asyncio.Event(),
            expect_100_continue=head.expects_continue,
            keep_alive=head.keep_alive,
            on_response=lambda: None,
        )
        self.received = False
        self._connection = connection
        self._head = head
        self._app = app
        self._limit = limit
        self._size = 0
        self._started = False
        self._request_id = request_id
        self._arrived = time.monotonic()
        self._status = 500
        self._headers: list[tuple[bytes, bytes]] = []
        self._answer = bytearray()

    @property
    def answered(self) -> bool:
        """The answer is written, whole."""
        return self.response_complete

    @answered.setter
    def answered(self, value: bool) -> None:
        self.response_complete = value

    def start(self) -> None:
        """Run the application."""
        self._started = True
        if self._size > self._limit:
            self._refuse()
        else:
            self._connection.run(self, self._app)

    def receive_body(self, data: bytes) -> None:
        """Pass it on, up to the limit."""
        if self.response_complete:
            return
        self._size += len(data)
        if self._size <= self._limit:
            self.body += data
        else:
            self.body.clear()
            if self._started:
                self._refuse()
        self.message_event.set()

    def receive_end(self) -> None:
        """Let the application know."""
        self.received = True
        self.more_body = False
        self.message_event.set()

    def disconnect(self) -> None:
        """Let the application know; nothing more is written."""
        self.disconnected = True
        self.message_event.set()

    def _refuse(self) -> None:
        self.response_complete = True
        self.disconnected = True
        self.message_event.set()
        self.transport.write(too_large(close=True))
        self._connection.answer_written(self, close=True)

    async def send(self, message: ASGISendEvent) -> None:
        """One ASGI message of the answer."""
        if self.disconnected:
            return
        event: Any = message
        if event["type"] == "http.response.start":
            self.response_started = True
            self.waiting_for_100_continue = False
            self._status = event["status"]
            self._headers = list(event.get("headers", []))
        elif event["type"] == "http.response.body" and self.response_started and not self.response_complete:
            self._answer += event.get("body", b"")
            if not event.get("more_body", False):
                self._finish()
        else:
            raise RuntimeError(f"ASGI message out of order: {event['type']}")

    def _finish(self) -> None:
        content_type = None
        others = []
        for name, value in self._headers:
            lowered = name.lower()
            if lowered == b"content-type":
                content_type = value.decode("latin-1")
            elif lowered not in (b"content-length", b"connection", b"transfer-encoding"):
                others.append((name.decode("latin-1"), value.decode("latin-1")))
        connection = self._connection
        status = self._status
        body = b"" if bodiless(status) else bytes(self._answer)
        reason = reason_phrase(status)
        close = status >= 400 or connection.ending
        wire = connection.site.wire
        head = wire.head(status, reason, self._request_id, content_type, len(body), close, others)
        self.transport.write(head if self._head.method == b"HEAD" else head + body)
        self.response_complete = True
        self.message_event.set()
        connection.record(self._head, status, self._arrived)
        connection.answer_written(self, close=close or not self._head.keep_alive)

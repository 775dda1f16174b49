"""One request and its answer on a connection: predictions past ASGI, everything else through it, and answers that are ready at once."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Protocol

from uvicorn._types import ASGI3Application, ASGISendEvent, HTTPScope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from mms.api.bodies import pairs, parts_of
from mms.api.errors import error_answer
from mms.api.json_text import MIME
from mms.api.routes import PredictionRoute
from mms.api.wire import CONTINUE, bodiless, checked, reason_phrase, too_large
from mms.errors import BadInput, MmsError, PredictionFailed
from mms.request import Header, InferenceRequest, InferenceResponse, Result

if TYPE_CHECKING:
    from mms.api.protocol import MmsProtocol

logger = logging.getLogger(__name__)

_JOINED = 65_536  # a body up to this many bytes is copied behind its head, so that both leave in one write


class RequestHead:
    """The head of a request as it came; `headers` keep their case and order, `version` is `1.0` or `1.1`."""

    __slots__ = ("content_type", "expects_continue", "headers", "keep_alive", "method", "url", "version")

    def __init__(self, method: bytes, url: bytes, version: str, headers: list[Header], keep_alive: bool) -> None:
        self.method = method
        self.url = url
        self.version = version
        self.headers = headers
        self.keep_alive = keep_alive
        self.content_type = b""
        self.expects_continue = False


class Exchange(Protocol):
    """What a connection does with a request: exchanges are started one after the other, in the order in which they came."""

    answered: bool
    """The answer is written, whole."""
    received: bool
    """The request is read, whole."""

    def start(self) -> None:
        """All earlier requests of the connection are answered."""

    def receive_body(self, data: bytes) -> None:
        """More of the body."""

    def receive_end(self) -> None:
        """The body is complete."""

    def disconnect(self) -> None:
        """The client has gone."""


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


class PredictionExchange:
    """A prediction: gathers the body, hands one InferenceRequest to the service, writes the answer."""

    __slots__ = (
        "_arrived",
        "_chunks",
        "_connection",
        "_head",
        "_limit",
        "_query",
        "_request",
        "_request_id",
        "_route",
        "_size",
        "_started",
        "answered",
        "received",
    )

    def __init__(
        self, connection: MmsProtocol, head: RequestHead, route: PredictionRoute, query: bytes, limit: int
    ) -> None:
        self.answered = False
        self.received = False
        self._connection = connection
        self._head = head
        self._route = route
        self._query = query
        self._limit = limit
        self._size = 0
        self._chunks: list[bytes] = []
        self._started = False
        self._request: InferenceRequest | None = None
        self._request_id = ""
        self._arrived = 0.0

    def start(self) -> None:
        """Begin, as far as the body is here."""
        self._started = True
        if self._size > self._limit:
            self._refuse()
        elif self.received:
            self._submit()
        elif self._head.expects_continue:
            self._connection.transport.write(CONTINUE)

    def receive_body(self, data: bytes) -> None:
        """Keep it, up to the limit."""
        if self.answered:
            return
        self._size += len(data)
        if self._size <= self._limit:
            self._chunks.append(data)
        else:
            self._chunks.clear()
            if self._started:
                self._refuse()

    def receive_end(self) -> None:
        """Hand the request over."""
        self.received = True
        if self._started and not self.answered:
            self._submit()

    def disconnect(self) -> None:
        """Give the request up; a worker that already has it will answer to nobody."""
        self.answered = True
        if self._request is not None:
            self._request.cancelled = True

    def _submit(self) -> None:
        site = self._connection.site
        service = site.service
        self._arrived = time.monotonic()
        self._request_id = site.request_ids.next()
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        try:
            query = self._query
            parts = parts_of(self._head.content_type, query if self._route.query else b"", body)
            model = self._route.model if self._route.model is not None else _named_by(query)
            if not model:
                model = service.only_startup_model() or model
                if model is None:
                    raise BadInput("Parameter model_name is required.")
            self._request = InferenceRequest(
                self._request_id, model, self._head.headers, parts, self._arrived, self._finish
            )
            service.predict(self._request)
        except MmsError as error:
            self._finish(error)
        except Exception as error:
            logger.exception("A prediction could not be handed over.")
            self._finish(MmsError(f"{type(error).__name__} while the request was handed over."))

    def _finish(self, result: Result) -> None:
        if self.answered:
            return
        self.answered = True
        connection = self._connection
        if isinstance(result, InferenceResponse) and not _plain(result):
            try:
                result = checked(result)
            except PredictionFailed as error:
                result = error
        if isinstance(result, InferenceResponse):
            status, reason, content_type = result.status, result.reason, result.content_type
            body, headers = result.body, result.headers
        else:
            status, body = error_answer(result)
            reason, content_type, headers = reason_phrase(status), MIME, ()
        keep = status < 400 and connection.may_keep(self)
        says_close = status >= 400 or connection.draining
        wire = connection.site.wire
        head_only = self._head.method == b"HEAD"
        if len(body) <= _JOINED and not head_only:
            connection.transport.write(
                wire.answer(status, reason, self._request_id, content_type, body, says_close, headers)
            )
        else:
            connection.transport.write(
                wire.head(status, reason, self._request_id, content_type, len(body), says_close, headers)
            )
            if not head_only:
                connection.transport.write(body)
        connection.record(self._head, status, self._arrived)
        connection.answer_written(self, close=not (keep and self._head.keep_alive))

    def _refuse(self) -> None:
        self.answered = True
        self._connection.transport.write(too_large(close=True))
        self._connection.answer_written(self, close=True)


def _plain(response: InferenceResponse) -> bool:
    """Whether there is nothing in an answer that could break the protocol."""
    return not (response.headers or response.reason or response.content_type) and 200 <= response.status < 204


def _named_by(query: bytes) -> str | None:
    """The model that a query names: None where it names none at all, which is not the same as an empty name."""
    for name, value in pairs(query):
        if name == "model_name":
            return value.decode("utf-8", "replace")
    return None


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
        keep = status < 400 and connection.may_keep(self)
        wire = connection.site.wire
        says_close = status >= 400 or connection.draining
        head = wire.head(status, reason, self._request_id, content_type, len(body), says_close, others)
        self.transport.write(head if self._head.method == b"HEAD" else head + body)
        self.response_complete = True
        self.message_event.set()
        connection.record(self._head, status, self._arrived)
        connection.answer_written(self, close=not (keep and self._head.keep_alive))

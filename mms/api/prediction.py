"""A prediction on its way past ASGI: gathers the body, hands one request to the service, writes the answer in one piece."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mms.api.bodies import pairs, parts_of
from mms.api.errors import error_answer
from mms.api.head import KnownHead, RequestHead
from mms.api.json_text import MIME
from mms.api.ports import PredictionService
from mms.api.routes import PredictionRoute
from mms.api.wire import CONTINUE, checked, reason_phrase, too_large
from mms.errors import BadInput, MmsError, PredictionFailed
from mms.request import InferenceRequest, InferenceResponse, Result

if TYPE_CHECKING:
    from mms.api.protocol import MmsProtocol

logger = logging.getLogger(__name__)

_JOINED = 65_536  # a body up to this many bytes is copied behind its head, so that both leave in one write


class Prediction(InferenceRequest):
    """A prediction: the exchange on the connection, and the request that the service gets, in one."""

    __slots__ = ("_connection", "_head", "answered")

    _connection: MmsProtocol
    _head: RequestHead
    answered: bool
    received: bool

    def disconnect(self) -> None:
        """Give the request up; a worker that already has it will answer to nobody."""
        self.answered = True
        self.cancelled = True

    def hand_over(self, take: Callable[[InferenceRequest], None]) -> None:
        """Give it to whoever takes it; the answer is written in any case."""
        try:
            take(self)
        except MmsError as error:
            self.done(error)
        except Exception as error:
            logger.exception("A prediction could not be handed over.")
            self.done(MmsError(f"{type(error).__name__} while the request was handed over."))

    def done(self, result: Result) -> None:
        """Write the answer."""
        if not self.answered:
            self.answered = True
            self._write(result)

    def _write(self, result: Result) -> None:
        connection = self._connection
        if isinstance(result, bytes):
            result = InferenceResponse(result)
        try:
            if isinstance(result, InferenceResponse):
                result = checked(result)
        except PredictionFailed as error:
            result = error
        if isinstance(result, InferenceResponse):
            status, reason, content_type = result.status, result.reason, result.content_type
            body, headers = result.body, result.headers
        else:
            status, body = error_answer(result)
            reason, content_type, headers = reason_phrase(status), MIME, ()
        close = status >= 400 or connection.ending
        wire = connection.site.wire
        head_only = self._head.method == b"HEAD"
        if len(body) <= _JOINED and not head_only:
            connection.transport.write(wire.answer(status, reason, self.id, content_type, body, close, headers))
        else:
            connection.transport.write(wire.head(status, reason, self.id, content_type, len(body), close, headers))
            if not head_only:
                connection.transport.write(body)
        connection.record(self._head, status, self.arrived)
        connection.answer_written(self, close=close or not self._head.keep_alive)


class KnownPrediction(Prediction):
    """A prediction with a known head that came whole, with nothing before it: the short way, for nearly all there are."""

    __slots__ = ("_known",)

    received = True

    def __init__(self, connection: MmsProtocol, known: KnownHead, body: bytes | memoryview) -> None:
        self.id = connection.site.request_ids.next()
        self.model = known.model
        self.headers = known.head.headers
        self.parts = (("body", known.body_type, body),)
        self.arrived = time.monotonic()
        self.cancelled = False
        self.answered = False
        self._connection = connection
        self._head = known.head
        self._known = known

    def done(self, result: Result) -> None:
        """Write the answer; most are a body and nothing else."""
        if self.answered:
            return
        self.answered = True
        connection = self._connection
        if type(result) is bytes and len(result) <= _JOINED and not connection.draining:
            connection.answer_plainly(self, self._known.log_line, result)
        else:
            self._write(result)


class PredictionExchange(Prediction):
    """Any other prediction: gathers the body."""

    __slots__ = ("_chunks", "_limit", "_query", "_route", "_size", "_started", "received")

    def __init__(  # what an InferenceRequest is made of comes with the end of the body
        self, connection: MmsProtocol, head: RequestHead, route: PredictionRoute, query: bytes, limit: int
    ) -> None:
        self.cancelled = False
        self.answered = False
        self.received = False
        self._started = False
        self._size = 0
        self._connection = connection
        self._head = head
        self._route = route
        self._query = query
        self._limit = limit
        self._chunks: list[bytes] = []

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

    def _submit(self) -> None:
        head = self._head
        route = self._route
        site = self._connection.site
        self.arrived = time.monotonic()
        self.id = site.request_ids.next()
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        try:
            self.parts = parts_of(head.content_type, self._query if route.query else b"", body)
            model = route.model or wanted_model(route, self._query, site.service)
            if model is None:
                raise BadInput("Parameter model_name is required.")
        except BadInput as error:
            self.done(error)
            return
        self.model = model
        self.headers = head.headers
        self.hand_over(site.service.predict)

    def _refuse(self) -> None:
        self.answered = True
        self._connection.transport.write(too_large(close=True))
        self._connection.answer_written(self, close=True)


def wanted_model(route: PredictionRoute, query: bytes, service: PredictionService) -> str | None:
    """The model that path or query name, else the start-up model where there is just one; None where nothing says."""
    model = route.model if route.model is not None else _named_by(query)
    return model or service.only_startup_model() or model


def _named_by(query: bytes) -> str | None:
    """The model that a query names: None where it names none at all, which is not the same as an empty name."""
    for name, value in pairs(query):
        if name == "model_name":
            return value.decode("utf-8", "replace")
    return None

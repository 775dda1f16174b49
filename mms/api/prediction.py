"""A prediction on its way past ASGI: gathers the body, hands one request to the service, writes the answer in one piece."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from mms.api.bodies import pairs, parts_of
from mms.api.errors import error_answer
from mms.api.head import RequestHead
from mms.api.json_text import MIME
from mms.api.ports import PredictionService
from mms.api.routes import PredictionRoute
from mms.api.wire import CONTINUE, checked, reason_phrase, too_large
from mms.errors import BadInput, MmsError, PredictionFailed
from mms.request import InferenceRequest, InferenceResponse, Part, PlainResponse, Result

if TYPE_CHECKING:
    from mms.api.protocol import MmsProtocol

logger = logging.getLogger(__name__)

_JOINED = 65_536  # a body up to this many bytes is copied behind its head, so that both leave in one write


class PredictionExchange(InferenceRequest):
    """A prediction: the exchange that gathers the body, and the request that the service gets, in one."""

    answered = False
    received = False
    _started = False
    _size = 0

    def __init__(  # what an InferenceRequest is made of comes with the end of the body
        self, connection: MmsProtocol, head: RequestHead, route: PredictionRoute, query: bytes, limit: int
    ) -> None:
        self.cancelled = False
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

    def serve_whole(self, body_type: str, body: bytes) -> None:
        """Begin with a body that is here, whole, within the limit and the only part: the short way through all of the above."""
        self.received = True
        site = self._connection.site
        self.arrived = time.monotonic()
        self.id = site.request_ids.next()
        self.model = self._route.model or ""
        self.headers = self._head.headers
        self.parts = (Part("body", body_type, body),)
        self._hand_over(site.service)

    def disconnect(self) -> None:
        """Give the request up; a worker that already has it will answer to nobody."""
        self.answered = True
        self.cancelled = True

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
        self._hand_over(site.service)

    def _hand_over(self, service: PredictionService) -> None:
        try:
            service.predict(self)
        except MmsError as error:
            self.done(error)
        except Exception as error:
            logger.exception("A prediction could not be handed over.")
            self.done(MmsError(f"{type(error).__name__} while the request was handed over."))

    def done(self, result: Result) -> None:
        """Write the answer."""
        if self.answered:
            return
        self.answered = True
        head = self._head
        if type(result) is PlainResponse and head.method != b"HEAD" and len(result.body) <= _JOINED:
            connection = self._connection
            if not connection.draining:
                connection.answer_plainly(self, head, result.body)
                return
        self._write(result)

    def _write(self, result: Result) -> None:
        """Any answer."""
        connection = self._connection
        if isinstance(result, InferenceResponse) and type(result) is not PlainResponse:
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

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
from mms.request import InferenceRequest, InferenceResponse, Result

if TYPE_CHECKING:
    from mms.api.protocol import MmsProtocol

logger = logging.getLogger(__name__)

_JOINED = 65_536  # a body up to this many bytes is copied behind its head, so that both leave in one write


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
            model = self._route.model or wanted_model(self._route, query, service)
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
        self._request = None  # it holds this method: what refers to itself would be left to the garbage collector
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
        close = status >= 400 or connection.ending
        wire = connection.site.wire
        head_only = self._head.method == b"HEAD"
        if len(body) <= _JOINED and not head_only:
            connection.transport.write(
                wire.answer(status, reason, self._request_id, content_type, body, close, headers)
            )
        else:
            connection.transport.write(
                wire.head(status, reason, self._request_id, content_type, len(body), close, headers)
            )
            if not head_only:
                connection.transport.write(body)
        connection.record(self._head, status, self._arrived)
        connection.answer_written(self, close=close or not self._head.keep_alive)

    def _refuse(self) -> None:
        self.answered = True
        self._connection.transport.write(too_large(close=True))
        self._connection.answer_written(self, close=True)


def wanted_model(route: PredictionRoute, query: bytes, service: PredictionService) -> str | None:
    """The model that path or query name, else the start-up model where there is just one; None where nothing says."""
    model = route.model if route.model is not None else _named_by(query)
    return model or service.only_startup_model() or model


def _plain(response: InferenceResponse) -> bool:
    """Whether there is nothing in an answer that could break the protocol."""
    return not (response.headers or response.reason or response.content_type) and 200 <= response.status < 204


def _named_by(query: bytes) -> str | None:
    """The model that a query names: None where it names none at all, which is not the same as an empty name."""
    for name, value in pairs(query):
        if name == "model_name":
            return value.decode("utf-8", "replace")
    return None

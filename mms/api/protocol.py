"""Reads HTTP off a connection of either port: uvicorn's protocol with MMS's limits and answers, and predictions past ASGI."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections import deque
from typing import Any

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from mms.api.access_log import peer_name
from mms.api.errors import INVALID_MESSAGE, error_answer
from mms.api.exchange import Answering, AsgiExchange, Exchange, ReadyAnswer
from mms.api.head import MAX_HEADERS, MAX_REQUEST_LINE, KnownHead, RequestHead
from mms.api.json_text import MIME
from mms.api.prediction import KnownPrediction
from mms.api.reception import exchange_for
from mms.api.routes import PredictionRoute
from mms.api.site import Site
from mms.api.wire import reason_phrase
from mms.errors import BadInput

logger = logging.getLogger(__name__)

_COPIED = 32_768  # bytes: a request of that size and more is not copied to cut its head off


class MmsProtocol(HttpToolsProtocol):
    """One connection. Requests are answered in the order in which they came, one at a time."""

    __slots__ = (  # found faster than what is in the dictionary of uvicorn's class
        "_advancing",
        "_candidate",
        "_head_bytes",
        "_idle_since",
        "_in_head",
        "_known",
        "_lingering",
        "_peer",
        "_reading",
        "_refused",
        "_resuming",
        "_serving",
        "_upgrading",
        "_waiting",
        "draining",
        "site",
    )

    def __init__(
        self,
        site: Site,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.site = site
        self.draining = False
        self._serving: Answering | None = None
        self._reading: Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        self._in_head = True
        self._head_bytes = 0
        self._refused = False
        self._upgrading = False
        self._resuming = False
        self._lingering = False
        self._idle_since = 0.0
        self._peer = b""
        self._advancing = False
        self._known: KnownHead | None = None
        self._candidate: tuple[RequestHead, PredictionRoute] | None = None

    # --- the transport's calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        self.site.closed.clear()
        self._peer = peer_name(self.client)
        self._idle_since = self.loop.time()
        self._watch(self.site.keep_alive)
        if self.site.stopping:  # it was on its way in when the doors closed
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or the connection was closed."""
        self.connections.discard(self)
        if not self.connections:
            self.site.closed.set()
        for exchange in (self._serving, *self._waiting):
            if exchange is not None:
                exchange.disconnect()
        self._waiting.clear()
        self._serving = None
        self.flow.resume_writing()
        self._unset_keepalive_if_required()
        if exc is None:
            self.transport.close()
        self.parser = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._refused:
            return
        between = self._in_head and not self._head_bytes and self._reading is None
        known = self._known
        if known is not None and between and len(data) == known.whole and data.startswith(known.raw):
            to = self.site.service.find(known.model) if self._serving is None else None
            if to is not None and self._may_begin() and known.head.length <= (to.max_request_size or -1):
                body = data[known.size :] if known.whole < _COPIED else memoryview(data)[known.size :]
                self._serving = request = KnownPrediction(self, known, body)
                request.hand_over(to.submit)
                return
        self._head_bytes += len(data)
        self._candidate = None
        try:
            self._feed(data)
        except httptools.HttpParserCallbackError:
            logger.exception("A request could not be taken.")
            self.transport.close()
        except httptools.HttpParserError:
            self._refuse_message(INVALID_MESSAGE)
        else:
            if self._in_head and self._head_bytes > MAX_REQUEST_LINE + MAX_HEADERS and not self._refused:
                self._refuse_message(INVALID_MESSAGE)
            elif between and self._candidate is not None and self._in_head and self._reading is None:
                head, route = self._candidate
                self._known = KnownHead.learnt(head, route, data, self._peer)

    def _feed(self, data: bytes) -> None:
        while data and self.parser is not None:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._pass_over_upgrade()

    def _pass_over_upgrade(self) -> None:
        """Go on with HTTP/1.1 after an offer to upgrade (of h2c, say).

        The parser takes such a request to end with its head and what follows for another protocol. A new one is told of a
        request with a body of the same kind, so that it reads the body that the first did not.
        """
        framing = [
            name + b": " + value + b"\r\n"
            for name, value in self.headers
            if name.lower() in (b"content-length", b"transfer-encoding")
        ]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._resuming = True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(framing or [b"content-length: 0\r\n"]) + b"\r\n")

    def resume_writing(self) -> None:
        """The client has read what was waiting for it."""
        super().resume_writing()
        self._advance()

    def shutdown(self) -> None:
        """Answer what has come, then close."""
        self.draining = True
        if self._serving is None and not self._waiting:
            self.transport.close()

    # --- the parser's calls -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._resuming:
            return
        self.url = b""
        self.headers = []
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        if not self._resuming:
            self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers are not looked at."""
        if self._in_head:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is here: decide what the request is."""
        self._in_head = False
        if self._resuming:
            self._resuming = False
            return
        if self._refused:
            return
        parser = self.parser
        self._upgrading = parser.should_upgrade()
        head = RequestHead(
            parser.get_method(), self.url, parser.get_http_version(), self.headers, parser.should_keep_alive()
        )
        if self._head_bytes > MAX_REQUEST_LINE and head.too_long():
            self._refuse_message(INVALID_MESSAGE)
            return
        self._head_bytes = 0
        if not head.has_host and head.version == "1.1":
            self._refuse_message("Header Host is required.")
            return
        exchange, route = exchange_for(self, head)
        if route is not None:
            self._candidate = head, route
        self._take(exchange)

    def on_body(self, body: bytes) -> None:
        """More of the body."""
        if self._reading is not None:
            self._reading.receive_body(body)

    def on_message_complete(self) -> None:
        """The request is here, whole."""
        if self._upgrading:
            self._upgrading = False
            return
        self._in_head = True
        self._head_bytes = 0
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.receive_end()
            if self._lingering and reading.answered:
                self._refused = True
                self.transport.close()

    # --- exchanges ----------------------------------------------------------------------------------------------------

    def _take(self, exchange: Exchange) -> None:
        self._reading = exchange
        if self._serving is None and self._may_begin():
            self._serving = exchange
            exchange.start()
        else:
            self._waiting.append(exchange)
            self.flow.pause_reading()

    def _may_begin(self) -> bool:
        """Whether a request may be served at once where none is being served."""
        return not self._waiting and not self.flow.write_paused

    def _advance(self) -> None:
        """Start what waits, in order; a loop, since an exchange may be answered as it starts."""
        if self._advancing:
            return
        self._advancing = True
        while self._serving is None and not self.flow.write_paused and not self.transport.is_closing():
            if not self._waiting:
                self.flow.resume_reading()
                break
            exchange = self._serving = self._waiting.popleft()
            exchange.start()
            if not exchange.received:  # its body is still to come
                self.flow.resume_reading()
        self._advancing = False

    def run(self, exchange: AsgiExchange, app: ASGI3Application) -> None:
        """Run an application as a task of the server's, with a context of its own."""
        task = self.loop.create_task(exchange.run_asgi(app), context=contextvars.Context())
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    @property
    def ending(self) -> bool:
        """Whether the answer that is being written is the connection's last: the port stops, and nothing waits behind it."""
        return self.draining and not self._waiting

    def answer_written(self, exchange: Answering, *, close: bool) -> None:
        """An exchange is over."""
        self._serving = None
        if self.transport.is_closing():
            return
        if close:
            self._waiting.clear()
            self._refused = self._refused or exchange.received
            if exchange.received:
                self.transport.close()
            else:  # closing on a client that still sends would throw away the answer: read on for a while
                self._lingering = True
                self._idle_since = self.loop.time()
                self.flow.resume_reading()
            return
        self._idle_since = self.loop.time()
        if self._waiting or self.flow.read_paused:
            self._advance()

    def answer_plainly(self, request: KnownPrediction, log_line: bytes, body: bytes) -> None:
        """200 with a body and nothing else on a connection that goes on: all of the above in as few steps as there can be."""
        site = self.site
        self.transport.write(site.wire.plain(request.id, body))
        self._idle_since = now = time.monotonic()  # the event loop's own clock
        site.request_log.record_line(log_line, 2, now, now - request.arrived)
        self._serving = None
        if self._waiting or self.flow.read_paused:
            self._advance()

    def record(self, head: RequestHead, status: int, arrived: float) -> None:
        """Write the request into the logs."""
        self.site.request_log.record(self._peer, head.line, status, time.monotonic() - arrived)

    def _refuse_message(self, message: str) -> None:
        """Answer 400 to what is no HTTP, after the answers that are due before it, and close."""
        broken, self._reading = self._reading, None
        if self._lingering:
            self.transport.close()
            return
        if broken is not None:  # the rest of its body will never come
            broken.disconnect()
            if broken in self._waiting:
                self._waiting.remove(broken)
            elif self._serving is broken:
                self._serving = None
        self._refused = True
        self._in_head = False
        status, body = error_answer(BadInput(message))
        data = self.site.wire.answer(
            status, reason_phrase(status), self.site.request_ids.next(), MIME, body, close=True
        )
        self.site.request_log.record(self._peer, b"- - HTTP/1.1", status, 0.0)
        self._take(ReadyAnswer(self, data, close=True, received=True))

    # --- idle connections ---------------------------------------------------------------------------------------------

    def _watch(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been idle long enough; one timer serves for many requests."""
        self.timeout_keep_alive_task = None
        if self.transport.is_closing():
            return
        if self._serving is not None or self._waiting:
            self._watch(self.site.keep_alive)
            return
        left = self._idle_since + self.site.keep_alive - self.loop.time()
        if left <= 0:
            self.transport.close()
        else:
            self._watch(max(left, 0.01))

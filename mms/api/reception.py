"""Decides what a request is once its head is here: a prediction, something for ASGI, or a refusal by its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn._types import HTTPScope

from mms.api.exchange import AsgiExchange, Exchange, ReadyAnswer
from mms.api.head import RequestHead, origin_form
from mms.api.prediction import PredictionExchange, wanted_model
from mms.api.routes import PredictionRoute, decoded
from mms.api.wire import too_large

if TYPE_CHECKING:
    from mms.api.protocol import MmsProtocol


def exchange_for(connection: MmsProtocol, head: RequestHead) -> tuple[Exchange, PredictionRoute | None]:
    """What the connection does with the request; with its route where it is a prediction."""
    site = connection.site
    path, _, query = head.url.partition(b"?")
    if not path.startswith(b"/") and path != b"*":
        path, query = origin_form(head.url)
    route = site.router.find(path) if site.router is not None and head.method != b"OPTIONS" else None
    if route is not None:
        return _prediction(connection, head, route, query), route
    limit = site.max_request_size
    if head.length > limit:
        return _too_large(connection, head), None
    request_id = site.request_ids.next()
    scope = _scope(connection, head, path, query, request_id)
    return AsgiExchange(connection, head, scope, connection.app, limit, request_id), None


def _prediction(connection: MmsProtocol, head: RequestHead, route: PredictionRoute, query: bytes) -> Exchange:
    site = connection.site
    limit = site.models.max_request_size(route.model or wanted_model(route, query, site.service) or "")
    if limit is None:
        limit = site.max_request_size
    if head.length > limit:
        return _too_large(connection, head)
    return PredictionExchange(connection, head, route, query, limit)


def _too_large(connection: MmsProtocol, head: RequestHead) -> Exchange:
    # A client that waits for leave to send will send nothing: what follows cannot be told apart.
    waits = head.expects_continue
    return ReadyAnswer(connection, too_large(close=False), close=waits, received=waits)


def _scope(connection: MmsProtocol, head: RequestHead, path: bytes, query: bytes, request_id: str) -> HTTPScope:
    return {
        "type": "http",
        "asgi": {"version": connection.asgi_version, "spec_version": "2.3"},
        "http_version": head.version,
        "server": connection.server,
        "client": connection.client,
        "scheme": connection.scheme or "http",
        "root_path": "",
        "method": head.method.decode("ascii"),
        "path": decoded(path),
        "raw_path": path,
        "query_string": query,
        "headers": [(name.lower(), value) for name, value in head.headers],
        "state": {"request_id": request_id},
        "extensions": {},
    }

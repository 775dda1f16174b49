"""The inference port's other routes, as plain ASGI: health, description, OPTIONS, and the refusals; predictions do not come here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mms.api import openapi, views
from mms.api.bodies import pairs
from mms.api.errors import METHOD_NOT_ALLOWED, RESOURCE_NOT_FOUND, error_answer
from mms.api.json_text import MIME, json_text, status_text
from mms.api.ports import Models, Status
from mms.api.routes import prediction_route, segments
from mms.api.wire import Cors
from mms.errors import MethodNotAllowed, MmsError, ModelNotFound, ResourceNotFound

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class Answer:
    """One JSON answer."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        self.body = body
        self.status = status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        headers = [(b"content-length", b"%d" % len(self.body)), (b"content-type", MIME.encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class Described:
    """The two routes that both ports have, `OPTIONS /` and `/api-description`; everything else goes to `inner`."""

    def __init__(self, paths: dict[str, Any], inner: ASGIApp) -> None:
        self._document = json_text(openapi.document(paths))
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        parts = segments(scope["path"])
        if not parts:
            at_root = scope["method"] == "OPTIONS"
            response = self._described() if at_root else failed(MethodNotAllowed(METHOD_NOT_ALLOWED))
        elif parts[0] == "api-description":
            response = self._described() if len(parts) == 1 else failed(MethodNotAllowed(METHOD_NOT_ALLOWED))
        else:
            await self._inner(scope, receive, send)
            return
        await response(scope, receive, send)

    def _described(self) -> Answer:
        return Answer(self._document)


class InferenceRoutes:
    """The routes of the inference port; what is none of them goes to `other`, on a single port the management routes."""

    def __init__(self, models: Models, status: Status, other: ASGIApp | None, *, single_port: bool) -> None:
        self._models = models
        self._status = status
        self._other = other
        self._single_port = single_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        response = self._answer(scope)
        if response is not None:
            await response(scope, receive, send)
        elif self._other is not None:
            await self._other(scope, receive, send)
        else:
            await failed(ResourceNotFound(RESOURCE_NOT_FOUND))(scope, receive, send)

    def _answer(self, scope: Scope) -> Answer | None:
        parts = segments(scope["path"])
        if parts[0] == "ping":
            return Answer(status_text(self._models.health()))
        if parts == ["livez"]:
            return Answer(status_text("live"))
        if parts == ["readyz"]:
            status, document = views.readiness(self._status.readiness())
            return Answer(json_text(document), status)
        route = prediction_route(scope["path"], single_port=self._single_port)
        if route is None:
            return None
        name = route.model
        if name is None:
            name = dict(pairs(scope["query_string"])).get("model_name", b"").decode("utf-8", "replace")
        if not self._models.known(name):
            return failed(ModelNotFound(f"Model not found: {name}"))
        return Answer(json_text(openapi.model_document(name)))


class Preflight:
    """Answers what a browser asks before it sends a management request, where CORS is on; all else goes to `inner`.

    The original answers 405 to every OPTIONS on these routes. That stays so for questions that no browser asks: one about
    a simple method without further headers.
    """

    def __init__(self, cors: Cors, inner: ASGIApp) -> None:
        self._cors = cors
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["method"] == "OPTIONS" and self._cors.enabled and _is_preflight(dict(scope["headers"])):
            # The headers that count are on every answer.
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self._inner(scope, receive, send)


def _is_preflight(headers: Mapping[bytes, bytes]) -> bool:
    method = headers.get(b"access-control-request-method", b"")
    return b"origin" in headers and bool(
        headers.get(b"access-control-request-headers") or method not in (b"", b"GET", b"HEAD", b"POST")
    )


class Slashes:
    """Takes slashes off the end of paths, as MMS does: `/models/` is `/models`."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        path = scope["path"]
        if path.endswith("/"):
            scope = {**scope, "path": path.rstrip("/") or "/"}
        await self._inner(scope, receive, send)


def failed(error: MmsError) -> Answer:
    """An error as its answer."""
    status, body = error_answer(error)
    return Answer(body, status)

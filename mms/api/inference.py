"""The inference port's other routes, as plain ASGI: health, description, OPTIONS, and the refusals; predictions do not come here."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mms.api import openapi, views
from mms.api.errors import METHOD_NOT_ALLOWED, RESOURCE_NOT_FOUND, error_answer
from mms.api.json_text import MIME, json_text, status_text
from mms.api.ports import Models, Status
from mms.api.routes import prediction_route, segments
from mms.api.wire import Cors
from mms.errors import MethodNotAllowed, MmsError, ModelNotFound, ResourceNotFound


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

    def _described(self) -> Response:
        return Response(self._document, media_type=MIME)


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

    def _answer(self, scope: Scope) -> Response | None:
        parts = segments(scope["path"])
        if parts[0] == "ping":
            return Response(status_text(self._models.health()), media_type=MIME)
        if parts == ["livez"]:
            return Response(status_text("live"), media_type=MIME)
        if parts == ["readyz"]:
            status, document = views.readiness(self._status.readiness())
            return Response(json_text(document), status, media_type=MIME)
        route = prediction_route(scope["path"], single_port=self._single_port)
        if route is None:
            return None
        name = route.model if route.model is not None else Request(scope).query_params.get("model_name", "")
        if not self._models.known(name):
            return failed(ModelNotFound(f"Model not found: {name}"))
        return Response(json_text(openapi.model_document(name)), media_type=MIME)


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
        if scope["method"] == "OPTIONS" and self._cors.enabled and _is_preflight(Request(scope)):
            await Response(status_code=200)(scope, receive, send)  # the headers are on every answer
        else:
            await self._inner(scope, receive, send)


def _is_preflight(request: Request) -> bool:
    method = request.headers.get("access-control-request-method", "")
    return "origin" in request.headers and bool(
        request.headers.get("access-control-request-headers") or method not in ("", "GET", "HEAD", "POST")
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


def failed(error: MmsError) -> Response:
    """An error as its answer."""
    status, body = error_answer(error)
    return Response(body, status, media_type=MIME)

"""The management routes, on FastAPI: each reads its parameters, calls the manager and shows what it is told."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mms.api import parameters, views
from mms.api.errors import METHOD_NOT_ALLOWED, RESOURCE_NOT_FOUND, error_answer
from mms.api.json_text import MIME, json_text
from mms.api.ports import Journal, Manager, Metrics, Resume, Status
from mms.errors import BadInput, MethodNotAllowed, MmsError, ResourceNotFound
from mms.export import as_document, as_properties
from mms.records import Caller
from mms.wishes import ChangeResult

logger = logging.getLogger(__name__)

_MOST_ENTRIES = 1000

_REPLAYED = {"idempotent-replayed": "true"}
"""Header of an answer that was stored under the request's Idempotency-Key."""


def answer(status: int, document: Any, *, replayed: bool = False) -> Response:
    """A JSON answer in MMS's form."""
    return Response(json_text(document), status, media_type=MIME, headers=_REPLAYED if replayed else None)


def changed(result: ChangeResult) -> Response:
    """The answer to a change that ended well."""
    return answer(*views.change(result), replayed=result.replayed)


class ManagementRoutes:
    """The handlers of the routes, one a method."""

    def __init__(
        self, manager: Manager, status: Status, journal: Journal, metrics: Metrics | None, resume: Resume | None
    ) -> None:
        self._manager = manager
        self._status = status
        self._journal = journal
        self._metrics = metrics
        self._resume = resume

    async def register(self, request: Request) -> Response:
        """POST /models."""
        body = await request.body()
        content_type = request.headers.get("content-type", "").encode("latin-1")
        wish = parameters.registration(content_type, _query(request), body)
        return changed(await self._manager.register(wish, _caller(request, body)))

    async def update(self, request: Request, model_name: str) -> Response:
        """PUT /models/{model_name}."""
        body = await request.body()
        wish = parameters.update(model_name, _query(request))
        return changed(await self._manager.update(wish, _caller(request, body)))

    async def unregister(self, request: Request, model_name: str) -> Response:
        """DELETE /models/{model_name}."""
        caller = _caller(request, await request.body())
        return changed(await self._manager.unregister(model_name, caller))

    async def list_models(self, request: Request) -> Response:
        """GET /models."""
        limit, offset = parameters.page(_query(request))
        given = parameters.from_query(_query(request))
        state = given.get("state")
        details = parameters.truth(given, "details", default=False)
        models = [model for model in self._manager.list_models() if state is None or model.state == state]
        return answer(200, views.listed(models, limit, offset, details=details))

    async def describe(self, request: Request, model_name: str) -> Response:
        """GET /models/{model_name}."""
        details = parameters.truth(parameters.from_query(_query(request)), "details", default=False)
        return answer(200, views.described(self._manager.describe(model_name), details=details))

    async def settings(self, model_name: str) -> Response:
        """GET /models/{model_name}/settings."""
        return answer(200, views.settings(model_name, await self._manager.explain(model_name)))

    async def remove_override(self, request: Request, model_name: str, option: str) -> Response:
        """DELETE /models/{model_name}/settings/{option}; takes the option's API name too."""
        caller = _caller(request, await request.body())
        name = parameters.live_option(option)
        return changed(await self._manager.remove_override(model_name, name, caller))

    async def clear_quarantine(self, request: Request, model_name: str) -> Response:
        """DELETE /models/{model_name}/quarantine."""
        caller = _caller(request, await request.body())
        verb: Any = self._manager
        return changed(await verb.clear_quarantine(model_name, caller))

    async def restore(self, request: Request) -> Response:
        """POST /restore."""
        caller = _caller(request, await request.body())
        given = parameters.from_query(_query(request))
        target = parameters.restore_target(given)
        dry_run = parameters.truth(given, "dry_run", default=False)
        verb: Any = self._manager
        restored = await verb.restore(caller, dry_run=dry_run, **target)
        return answer(200 if restored.whole else 210, restored.document, replayed=restored.replayed)

    async def export(self, request: Request) -> Response:
        """GET /export: a config.properties, or with `format=json` a document."""
        form = parameters.from_query(_query(request)).get("format", "properties")
        if form not in ("properties", "json"):
            raise BadInput(f"Parameter format must be properties or json, not {form}.")
        verb: Any = self._manager
        exported = verb.export()
        if form == "json":
            return answer(200, as_document(exported))
        return Response(as_properties(exported, datetime.now(UTC)), 200, media_type="text/plain")

    async def resume(self) -> Response:
        """POST /recovery/resume: leave safe mode; the answer, that of GET /recovery, comes when every model was tried."""
        assert self._resume is not None  # the route is there only if it is
        await self._resume()
        return answer(200, views.recovery(self._status.recovery()))

    async def recovery(self) -> Response:
        """GET /recovery."""
        return answer(200, views.recovery(self._status.recovery()))

    async def livez(self) -> Response:
        """GET /livez: the process responds."""
        return answer(200, {"status": "live"})

    async def readyz(self) -> Response:
        """GET /readyz: 200 where the server can answer for its wanted models, else 503 with the reason."""
        return answer(*views.readiness(self._status.readiness()))

    async def journal(self, request: Request) -> Response:
        """GET /journal."""
        given = parameters.from_query(_query(request))
        limit = min(parameters.number(given, "limit", 100), _MOST_ENTRIES)
        after = parameters.number(given, "after", 0)
        entries = await self._journal.journal(model=given.get("model"), after=after, limit=limit)
        return answer(200, views.journal(entries, limit))

    async def incarnations(self, request: Request) -> Response:
        """GET /incarnations, newest first."""
        limit = min(parameters.number(parameters.from_query(_query(request)), "limit", 100), _MOST_ENTRIES)
        lives = await self._journal.incarnations(limit)
        return answer(200, {"incarnations": [views.incarnation(life) for life in lives]})

    async def metrics(self) -> Response:
        """GET /metrics."""
        assert self._metrics is not None  # the route is there only if they are
        text, content_type = self._metrics()
        return Response(text, 200, headers={"content-type": content_type})


def management_app(
    manager: Manager,
    status: Status,
    journal: Journal,
    metrics: Metrics | None = None,
    resume: Resume | None = None,
) -> FastAPI:
    """The application of the management routes; a verb that the manager does not offer has no route."""
    routes = ManagementRoutes(manager, status, journal, metrics, resume)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)

    def route(method: str, path: str, handler: Callable[..., Awaitable[Response]], *, offered: bool = True) -> None:
        if offered:
            app.add_api_route(path, _guarded(handler), methods=[method], response_model=None)

    route("POST", "/models", routes.register)
    route("GET", "/models", routes.list_models)
    route("GET", "/models/{model_name}", routes.describe)
    route("PUT", "/models/{model_name}", routes.update)
    route("DELETE", "/models/{model_name}", routes.unregister)
    route("GET", "/models/{model_name}/settings", routes.settings)
    route("DELETE", "/models/{model_name}/settings/{option}", routes.remove_override)
    route(
        "DELETE",
        "/models/{model_name}/quarantine",
        routes.clear_quarantine,
        offered=hasattr(manager, "clear_quarantine"),
    )
    route("POST", "/restore", routes.restore, offered=hasattr(manager, "restore"))
    route("GET", "/export", routes.export, offered=hasattr(manager, "export"))
    route("GET", "/recovery", routes.recovery)
    route("POST", "/recovery/resume", routes.resume, offered=resume is not None)
    route("GET", "/livez", routes.livez)
    route("GET", "/readyz", routes.readyz)
    route("GET", "/journal", routes.journal)
    route("GET", "/incarnations", routes.incarnations)
    route("GET", "/metrics", routes.metrics, offered=metrics is not None)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(MmsError, _on_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    return app


def _guarded(handler: Callable[..., Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    """The handler, with what is a bug in it logged once and answered."""

    @functools.wraps(handler)
    async def run(*args: Any, **named: Any) -> Response:
        try:
            return await handler(*args, **named)
        except (MmsError, HTTPException, ClientDisconnect):
            raise
        except Exception as error:
            logger.exception("A management request failed.")
            return failed(error)

    return run


async def _on_disconnect(request: Request, error: Exception) -> Response:
    """The client has gone before it said all: there is nobody to answer, and nothing was done."""
    return Response(status_code=400)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, in MMS's words."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        return failed(MethodNotAllowed(METHOD_NOT_ALLOWED))
    if status == 404:
        return failed(ResourceNotFound(RESOURCE_NOT_FOUND))
    return failed(BadInput(str(getattr(error, "detail", error))))


async def _on_error(request: Request, error: Exception) -> Response:
    """The server's own errors."""
    return failed(error)


def failed(error: Exception) -> Response:
    """An error as its answer."""
    status, body = error_answer(error)
    replayed = isinstance(error, MmsError) and error.replayed
    return Response(body, status, media_type=MIME, headers=_REPLAYED if replayed else None)


def _query(request: Request) -> bytes:
    query: bytes = request.scope["query_string"]
    return query


def _caller(request: Request, body: bytes) -> Caller:
    """Who asks; the digest binds an idempotency key to all that the request said."""
    address = request.client.host if request.client is not None else "local"
    digest = hashlib.sha256()
    for piece in (request.method.encode(), request.scope["path"].encode(), _query(request), body):
        digest.update(b"%d:" % len(piece) + piece)
    return Caller(
        actor=f"anonymous@{address}",
        request_id=request.scope.get("state", {}).get("request_id", ""),
        idempotency_key=request.headers.get("idempotency-key") or None,
        request_digest=digest.hexdigest(),
    )

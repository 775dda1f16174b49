"""Builds the two ports, or the one, from the parts that the server hands in: applications, protocol, listeners."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from mms.api import openapi
from mms.api.access_log import LogSink, RequestLog
from mms.api.deferred import Deferred
from mms.api.inference import Described, InferenceRoutes, Preflight, Slashes
from mms.api.listener import Listener
from mms.api.ports import Journal, Manager, Metrics, Models, PredictionService, Resume, Status
from mms.api.request_ids import RequestIds
from mms.api.routes import Router
from mms.api.site import Site
from mms.api.wire import Cors, Wire
from mms.config.resolve import ServerSettings

if TYPE_CHECKING:
    from starlette.types import ASGIApp


class Listeners:
    """Every port of the server: `start`, `complete`, `stop_accepting`, `drain`, `close`, in this order."""

    def __init__(
        self,
        settings: ServerSettings,
        *,
        manager: Manager,
        status: Status,
        inference: PredictionService,
        models: Models,
        store: Journal,
        resume: Resume | None = None,
        access_log: LogSink | None = None,
        metrics_log: LogSink | None = None,
        make_metrics: Callable[[], Metrics] | None = None,
    ) -> None:
        """`make_metrics` makes what GET /metrics says; the two logs get one line a request; None leaves either out."""
        self.request_log = RequestLog(access_log, metrics_log, later=asyncio.get_running_loop().call_later)
        cors = Cors(settings.cors_allowed_origin, settings.cors_allowed_methods, settings.cors_allowed_headers)
        wire, request_ids = Wire(cors), RequestIds()
        single = settings.single_port

        def site(router: Router | None) -> Site:
            limit = settings.model_defaults.max_request_size
            return Site(inference, models, router, wire, request_ids, self.request_log, limit)

        def management_app() -> ASGIApp:
            from mms.api.management import management_app  # FastAPI: a fifth of a boot's imports

            metrics = make_metrics() if make_metrics is not None else None
            return management_app(manager, status, store, metrics, resume)

        self._deferred = Deferred(management_app)
        management = Preflight(cors, self._deferred)
        paths = openapi.inference_paths()
        if single:
            paths |= openapi.management_paths()
        routes = InferenceRoutes(models, status, management if single else None, single_port=single)
        ports: list[tuple[ASGIApp, Site]] = [(Slashes(Described(paths, routes)), site(Router(single_port=single)))]
        addresses = [settings.inference_address]
        if not single:
            ports.append((Slashes(Described(openapi.management_paths(), management)), site(None)))
            addresses.append(settings.management_address)
        tls = partial(_tls_context, settings)
        self._listeners = [Listener(where, *port, tls) for where, port in zip(addresses, ports, strict=True)]

    @property
    def ports(self) -> list[int]:
        """The TCP ports in use, inference first; 0 for a Unix socket."""
        return [listener.port for listener in self._listeners]

    async def start(self) -> None:
        """Bind and listen on every address, or on none. Raises UsageError."""
        try:
            for listener in self._listeners:
                await listener.start()
        except BaseException:
            await self.close()
            raise

    async def complete(self) -> None:
        """Build what was put off until the models answer; requests that need it sooner have had it built sooner."""
        await self._deferred.ready()

    async def stop_accepting(self) -> None:
        """Take no new connections and no further requests; what has come is answered."""
        for listener in self._listeners:
            await listener.stop_accepting()

    async def drain(self, seconds: float) -> bool:
        """Wait until everything that has come is answered; False where `seconds` were not enough."""
        return all(await asyncio.gather(*(listener.drain(seconds) for listener in self._listeners)))

    async def close(self) -> None:
        """End every connection; answers that are on their way get a moment to leave."""
        await asyncio.gather(*(listener.close() for listener in self._listeners))
        self.request_log.flush()


def _tls_context(settings: ServerSettings) -> ssl.SSLContext:
    from mms.api.tls import tls_context  # cryptography is only paid for where an address is https

    return tls_context(settings)

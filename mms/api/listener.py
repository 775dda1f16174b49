"""One port: binds its address, hands connections to uvicorn's machinery, and closes in steps; never touches a signal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from mms.api.protocol import MmsProtocol
from mms.api.site import Site
from mms.config.address import Address
from mms.errors import UsageError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

logger = logging.getLogger(__name__)

_BACKLOG = 2048
_SOCKET_MODE = 0o600
_GRACE = 0.25  # seconds that answers get to leave at the very end


class Listener:
    """A listening address with its application and its connections.

    `start`, then `stop_accepting`, `drain` and `close`, each of which may be called more than once. The signals of the
    process stay whose they are: uvicorn's own `serve`, which would take them, is not used.
    """

    def __init__(self, address: Address, app: ASGIApp, site: Site, tls: Callable[[], ssl.SSLContext] | None) -> None:
        self.address = address
        self._site = site
        self._tls = tls
        self._config = uvicorn.Config(
            cast(Any, app),
            http=cast(Any, partial(MmsProtocol, site)),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            backlog=_BACKLOG,
        )
        self._server = uvicorn.Server(self._config)
        self._listening: list[asyncio.AbstractServer] = []
        self._socket: socket.socket | None = None

    @property
    def port(self) -> int:
        """The TCP port that is really listened on (0 for a Unix socket, or before the start)."""
        if self._socket is None or self._socket.family == socket.AF_UNIX:
            return 0
        port: int = self._socket.getsockname()[1]
        return port

    async def start(self) -> None:
        """Bind and listen. Raises UsageError naming the address where that cannot be."""
        self._config.load()
        self._server.lifespan = self._config.lifespan_class(self._config)
        self._socket = _bound(self.address)
        loop = asyncio.get_running_loop()
        context = self._tls() if self._tls is not None and self.address.tls else None
        make = self._connection
        if self.address.scheme == "unix":
            server: asyncio.AbstractServer = await loop.create_unix_server(make, sock=self._socket, backlog=_BACKLOG)
        else:
            server = await loop.create_server(make, sock=self._socket, ssl=context, backlog=_BACKLOG)
        self._listening.append(server)

    def _connection(self) -> asyncio.Protocol:
        make = cast(Callable[..., asyncio.Protocol], self._config.http_protocol_class)
        return make(config=self._config, server_state=self._server.server_state, app_state={})

    async def stop_accepting(self) -> None:
        """Take no new connection and no further request: what has come is answered, and each connection then closed."""
        self._site.stopping = True
        while self._listening:
            self._listening.pop().close()
        self._forget_socket()
        for connection in list(self._server.server_state.connections):
            connection.shutdown()

    def _forget_socket(self) -> None:
        if self._socket is not None and self._socket.family == socket.AF_UNIX:
            Path(self.address.path).unlink(missing_ok=True)
        self._socket = None

    async def drain(self, seconds: float) -> bool:
        """Wait until everything that has come is answered and every connection closed; False where `seconds` were not enough."""
        await self.stop_accepting()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._server.server_state.connections:
                    self._site.closed.clear()
                    await self._site.closed.wait()
        return not self._server.server_state.connections

    async def close(self, grace: float = _GRACE) -> None:
        """End what is left, connections and running requests, after `grace` seconds for answers that are on their way."""
        await self.drain(grace)
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        tasks = list(self._server.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the transports tell their connections of the end in the next turn


def _bound(address: Address) -> socket.socket:
    """A bound socket. A Unix socket file that nobody listens on any more is replaced."""
    try:
        bound = _bound_unix(address.path) if address.scheme == "unix" else _bound_tcp(address)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise UsageError(f"Cannot listen on {address}: {reason}.") from error
    bound.setblocking(False)
    return bound


def _bound_tcp(address: Address) -> socket.socket:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, place = found[0]
    with contextlib.ExitStack() as undo:
        bound = undo.enter_context(socket.socket(family, kind, protocol))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(place)
        undo.pop_all()
    return bound


def _bound_unix(path: str) -> socket.socket:
    place = Path(path)
    if place.exists() and stat.S_ISSOCK(place.stat().st_mode):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                place.unlink()
            else:
                raise OSError(errno.EADDRINUSE, "in use")
    with contextlib.ExitStack() as undo:
        bound = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        bound.bind(path)
        undo.pop_all()
    place.chmod(_SOCKET_MODE)
    return bound

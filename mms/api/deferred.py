"""An application that is built when it is first asked for, or when the boot is over: what is heavy to import delays no model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class Deferred:
    """Stands for the application that `build` makes, in a thread and once; requests that come before wait for it."""

    def __init__(self, build: Callable[[], ASGIApp]) -> None:
        self._build = build
        self._app: ASGIApp | None = None
        self._building: asyncio.Task[ASGIApp] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        app = self._app or await self.ready()
        await app(scope, receive, send)

    async def ready(self) -> ASGIApp:
        """Build it if nobody has; returns it. Raises what `build` raises, to everyone who waits."""
        if self._building is None:
            self._building = asyncio.create_task(asyncio.to_thread(self._build))
        self._app = await asyncio.shield(self._building)  # a client that goes away takes it from nobody else
        return self._app

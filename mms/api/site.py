"""What all connections of one port share: the parts behind it, its limits, and whether it still takes requests."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from mms.api.access_log import RequestLog
from mms.api.ports import Models, PredictionService
from mms.api.request_ids import RequestIds
from mms.api.routes import Router
from mms.api.wire import Wire

_DEFAULT_KEEP_ALIVE = 75.0  # seconds; MMS keeps idle connections for ever


@dataclass(slots=True)
class Site:
    """What all connections of one port share. `router` None: no predictions on this port. Bytes and seconds."""

    service: PredictionService
    models: Models
    router: Router | None
    wire: Wire
    request_ids: RequestIds
    request_log: RequestLog
    max_request_size: int
    keep_alive: float = _DEFAULT_KEEP_ALIVE
    stopping: bool = False
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever the last open connection has closed."""

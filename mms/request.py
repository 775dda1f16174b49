"""Data-plane records: one prediction's way in and out; built once a request on the hot path, so slots and no validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mms.errors import MmsError

Header = tuple[bytes, bytes]


class Part:
    """One named input of a request: a query parameter, a form field, a file, or the whole body under the name `body`.

    `content_type` is the MIME type without its parameters, empty for plain form fields and query parameters.
    """

    __slots__ = ("content_type", "name", "value")

    def __init__(self, name: str, content_type: str, value: bytes) -> None:
        self.name = name
        self.content_type = content_type
        self.value = value


class InferenceResponse:
    """One item's answer. `content_type` None sends no such header; `reason` empty sends an empty reason phrase, as MMS does."""

    __slots__ = ("body", "content_type", "headers", "reason", "status")

    def __init__(
        self,
        body: bytes,
        status: int = 200,
        reason: str = "",
        content_type: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.body = body
        self.status = status
        self.reason = reason
        self.content_type = content_type
        self.headers = headers


Result = InferenceResponse | MmsError


class InferenceRequest:
    """One prediction on its way.

    `headers` are the request's own, as bytes in arrival order. `arrived` and `deadline` are event-loop times in seconds
    (`deadline` is filled in from the model's settings on submission). `done` is called exactly once, on the event loop,
    with the result. A front end whose client has gone sets `cancelled`; the request is then dropped, without a call of
    `done`, before it costs a worker anything.
    """

    __slots__ = ("arrived", "cancelled", "deadline", "done", "headers", "id", "model", "parts")

    def __init__(
        self,
        request_id: str,
        model: str,
        headers: Sequence[Header],
        parts: Sequence[Part],
        arrived: float,
        done: Callable[[Result], None],
    ) -> None:
        self.id = request_id
        self.model = model
        self.headers = headers
        self.parts = parts
        self.arrived = arrived
        self.deadline = 0.0
        self.done = done
        self.cancelled = False


class Batch:
    """Requests that go to one handler call; results come back by position."""

    __slots__ = ("requests", "sent")

    def __init__(self, requests: list[InferenceRequest]) -> None:
        self.requests = requests
        self.sent = 0.0

"""Data-plane records: one prediction's way in and out; built once a request on the hot path, so slots and no validation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mms.errors import MmsError

Header = tuple[bytes, bytes]


class HeaderList(list[Header]):
    """Headers as bytes in arrival order; `packed` is kept by whoever sends them on, so that a head that a client repeats costs once."""

    __slots__ = ("packed",)

    def __init__(self, headers: Iterable[Header] = ()) -> None:
        super().__init__(headers)
        self.packed: bytes | None = None


Part = tuple[str, str, bytes | memoryview]
"""One named input of a request: a query parameter, a form field, a file, or the whole body under the name `body`.

Name, content type and value, in the form in which it travels; a large value may be a view. The content type is the MIME type
without its parameters, empty for plain form fields and query parameters.
"""


class InferenceResponse:
    """One item's answer, where it is more than a body.

    `content_type` None sends no such header; `reason` empty sends an empty reason phrase, as MMS does.
    """

    status = 200
    reason = ""
    content_type: str | None = None
    headers: Sequence[tuple[str, str]] = ()

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


Result = bytes | InferenceResponse | MmsError
"""What becomes of a request; bytes are 200 and this body, as by far the most answers: nothing in them needs a look."""


class InferenceRequest:
    """One prediction on its way; front ends derive their own from it and say in `done` what becomes of the result.

    `headers` are the request's own, as bytes in arrival order; `arrived` is an event-loop time in seconds. A front end whose
    client has gone sets `cancelled`; the request is then dropped, without a call of `done`, before it costs a worker anything.
    """

    __slots__ = ("arrived", "cancelled", "headers", "id", "model", "parts")

    def __init__(
        self, request_id: str, model: str, headers: Sequence[Header], parts: Sequence[Part], arrived: float
    ) -> None:
        self.id = request_id
        self.model = model
        self.headers = headers
        self.parts = parts
        self.arrived = arrived
        self.cancelled = False

    def done(self, result: Result) -> None:
        """Take the result; called exactly once, on the event loop."""
        raise NotImplementedError


class Batch:
    """Requests that travel to a worker together; results come back by position.

    One handler call takes them all, or with `apart` each has a call of its own, one after the other: then answers may come
    in parts, and those that have come are taken off `requests`.
    """

    __slots__ = ("apart", "requests")

    def __init__(self, requests: list[InferenceRequest], *, apart: bool = False) -> None:
        self.requests = requests
        self.apart = apart

    @property
    def calls(self) -> int:
        """How many handler calls are still to be answered."""
        return len(self.requests) if self.apart else 1

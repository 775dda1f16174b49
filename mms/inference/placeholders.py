"""What stands in the registry where no model is served: it refuses predictions with the reason, or keeps them for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from mms.errors import MmsError, NoWorkerAvailable
from mms.records import ModelKey
from mms.request import InferenceRequest


class NotServed:
    """A model that is known but not in service."""

    max_request_size = None
    in_flight = 0

    def __init__(self, key: ModelKey, reason: str) -> None:
        self.key = key
        self.reason = reason

    def submit(self, request: InferenceRequest) -> None:
        """Refuse, with the reason."""
        raise NoWorkerAvailable(self.reason)


class Lobby:
    """Keeps predictions, each for at most `wait` seconds, until it is known where they go; those that waited in vain get `refusal`."""

    CAPACITY = 1000  # no queue size is known yet

    max_request_size = None

    def __init__(self, wait: float, refusal: str) -> None:
        self._wait = wait
        self._refusal = refusal
        self._requests: list[InferenceRequest] = []
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, request: InferenceRequest) -> None:
        """Keep the request. Raises NoWorkerAvailable where nothing waits here, or too many do."""
        if self._wait <= 0 or len(self._requests) >= self.CAPACITY:
            raise NoWorkerAvailable(self._refusal)
        self._requests.append(request)
        if len(self._requests) == 1:
            self._watch()

    @property
    def in_flight(self) -> int:
        """Requests that it keeps."""
        return len(self._requests)

    def _watch(self) -> None:
        delay = max(self._requests[0].arrived + self._wait - time.monotonic(), 0.001)
        self._timer = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        since = time.monotonic() - self._wait
        late = [request for request in self._requests if request.arrived <= since]
        del self._requests[: len(late)]
        if self._requests:
            self._watch()
        for request in late:
            if not request.cancelled:
                request.done(NoWorkerAvailable(self._refusal))

    def hand_over(self, submit: Callable[[InferenceRequest], None]) -> None:
        """Give what is kept to whoever takes it now."""
        if self._timer is not None:
            self._timer.cancel()
        requests, self._requests = self._requests, []
        for request in requests:
            if request.cancelled:
                continue
            try:
                submit(request)
            except MmsError as error:
                request.done(error)


class Expected(Lobby):
    """A model whose replay has not come to it yet; the first prediction asks for it to be brought back before others."""

    def __init__(self, key: ModelKey, wait: float, on_wanted: Callable[[ModelKey], None]) -> None:
        super().__init__(wait, f"Model {key.name} is still being brought back after a restart.")
        self.key = key
        self._on_wanted = on_wanted

    def submit(self, request: InferenceRequest) -> None:
        """Keep the request, and say once that the model is wanted."""
        super().submit(request)
        if self.in_flight == 1:
            self._on_wanted(self.key)

"""What one worker has in its hands: batches sent and not yet answered, in their order, and how many of them it has begun; no I/O."""

from __future__ import annotations

from collections import deque

from mms.request import Batch
from mms.workers.engine import MAX_IN_FLIGHT
from mms.workers.frames import FrameError
from mms.workers.progress import Progress


class Holding:
    """True while there is anything. `progress` is the worker's own account of what it has begun, once it has started."""

    __slots__ = ("_answered", "_batches", "_begun", "_calls", "progress")

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self._batches: deque[Batch] = deque()
        self._calls = 0
        self._answered = 0
        self._begun = 0

    def __bool__(self) -> bool:
        return bool(self._batches)

    @property
    def begun(self) -> int:
        """Unanswered requests that the worker has begun, counted from the oldest."""
        if self.progress is not None:
            self._begun = self.progress.read()
        return max(self._begun - self._answered, 0)

    def has_room_for(self, batch: Batch) -> bool:
        """Whether it may be sent as well."""
        return self._calls + batch.calls <= MAX_IN_FLIGHT

    def add(self, batch: Batch) -> None:
        """It has been sent."""
        self._batches.append(batch)
        self._calls += batch.calls

    def answered(self, count: int) -> Batch:
        """What so many results answer: the oldest batch, or the first calls of it. Raises FrameError where it is neither."""
        batch = self._batches[0] if self._batches else None
        if batch is not None and count == len(batch.requests):
            self._batches.popleft()
        elif batch is not None and batch.apart and 0 < count < len(batch.requests):
            requests = batch.requests
            batch = Batch(requests[:count], apart=True)
            del requests[:count]
        else:
            raise FrameError(f"{count} results to no batch of that size")
        self._answered += count
        self._calls -= batch.calls
        return batch

    def let_go(self) -> list[Batch]:
        """The worker has ended: what nobody has answered; `begun` stays true."""
        if self.progress is not None:
            self._begun = self.progress.read()
            self.progress.close()
            self.progress = None
        unanswered = list(self._batches)
        self._batches.clear()
        return unanswered

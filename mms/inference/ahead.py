"""When a batch leaves for a worker that is still busy: pure decisions from how long its turns took; seconds of one monotonic clock."""

from __future__ import annotations

import math

from mms.workers.engine import MAX_IN_FLIGHT


class SendingAhead:
    """How many calls a worker may hold at once, each of them with a full batch, so that it never idles between two of them.

    What waits at a slow handler's door is lost to workers that come free earlier, and is computed even if its client goes.
    So it leaves only when a worker is about to be done: then it still arrives in time. Where turns are short enough that
    hardly a client goes within one, and all take about as long, so that it is known who comes free next, that care is not
    worth the event loop's coming back for each batch. A fast handler would stand still for most of its time.
    """

    __slots__ = ("_deviation", "_most", "_seconds")

    SLOW = 0.025  # seconds a batch; from here on a moment is known at which it is about to be done
    LONG = 0.1  # seconds a batch; from here on the event loop's way is next to nothing beside it
    EVEN = 0.2  # of a turn: how far turns may be off on average while they take "about as long"
    LEAD = 0.004  # seconds before that moment: a large batch is on its way for a millisecond or two, and so late is a timer
    WINDOW = 0.001  # seconds of work at a worker's door: the time that the event loop may need to come back to it
    REQUESTS = 16  # for small batches: at most so many requests ahead
    SINGLES = 32  # the same at batch size 1, where two frames of several calls shall fit

    def __init__(self, batch_size: int) -> None:
        self._seconds = self._deviation = -1.0
        self.configure(batch_size)

    def configure(self, batch_size: int) -> None:
        """Hold from the next batch on."""
        most = max(self.REQUESTS // batch_size, 1) if batch_size > 1 else self.SINGLES
        self._most = min(most, MAX_IN_FLIGHT - 1)

    def answered(self, seconds: float) -> None:
        """A call was answered `seconds` after its turn began."""
        known = self._seconds
        if known < 0.0:
            self._seconds = self._deviation = seconds
        else:
            self._seconds = known + 0.1 * (seconds - known)
            self._deviation += 0.1 * (abs(seconds - known) - self._deviation)

    @property
    def slow(self) -> bool:
        """Whether a call is worth the event loop's coming back for each."""
        return self._seconds >= self.SLOW

    @property
    def ripe(self) -> float:
        """Seconds into a turn from which on the next batch may be sent; 0.0 where it may be from the beginning."""
        seconds = self._seconds
        if not self.slow or (seconds < self.LONG and self._deviation <= self.EVEN * seconds):
            return 0.0
        return seconds - self.LEAD

    @property
    def longest_turn(self) -> float:
        """Seconds after which a turn is no usual one any more: what is sent ahead then would be stuck behind it."""
        return 2 * self._seconds + self.WINDOW

    @property
    def calls(self) -> int:
        """Most calls in one worker's hands: 1 means that nothing is sent ahead."""
        seconds = self._seconds
        if seconds < 0.0:
            return 1
        if self.slow:
            return 2
        if seconds * self._most <= self.WINDOW:
            return 1 + self._most
        return 1 + math.ceil(self.WINDOW / seconds)

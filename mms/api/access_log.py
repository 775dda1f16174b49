"""Writes one line a request into the access log and one into the metrics log, in MMS's formats, as cheaply as bytes allow."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Protocol


class LogSink(Protocol):
    """Where lines go. `write` must return at once: a buffer that another thread flushes."""

    def write(self, line: bytes, /) -> object:
        """Take one or more whole lines."""


PIECE = 192
"""Bits of lines, three to each, from which on they are handed on as one: the log's thread works while the event loop stands still."""

PIECE_WAITS = 0.1  # seconds that a line may wait for others

_FEW = 1000
_MILLIS = [b"%d\n" % number for number in range(_FEW)]


class RequestLog:
    """The record of every request answered; `counts[n]` is how many answers had a status of n hundred.

    `later` calls a function after some seconds, as `loop.call_later` does, so that lines can be handed on in pieces; None
    hands on each by itself. Used on one thread.
    """

    def __init__(
        self,
        access: LogSink | None = None,
        metrics: LogSink | None = None,
        *,
        later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        self.counts = [0] * 10
        self._access = access
        self._metrics = metrics
        self._off = access is None and metrics is None
        self._pieces: list[bytes] = []  # of lines, joined when they are handed on
        self._metric_pieces: list[bytes] = []
        self._metered = [0] * 10  # how many of `counts` the metrics log has
        self._later = later
        self._timed = False
        self._stale = 0.0  # the monotonic time from which on `_stamp` is not the present millisecond's any more
        self._second = -1
        self._date = self._stamp = b""
        host = socket.gethostname()
        tail = [
            f" - Requests{name}.Count:1|#Level:Host|#hostname:{host},timestamp:null\n" for name in ("2XX", "4XX", "5XX")
        ]
        two, four, five = (line.encode() for line in tail)
        # as in MMS, whatever is neither 2xx nor 4xx counts as 5xx
        self._tails = [two if n == 2 else four if n == 4 else five for n in range(10)]

    def record(self, peer: bytes, line: bytes, status: int, seconds: float) -> None:
        """One answered request: its request line, and `seconds` from its last byte in to its answer out."""
        self.record_line(answered_line(peer, line, status), status // 100, time.monotonic(), seconds)

    def record_line(self, line: bytes, hundreds: int, now: float, seconds: float) -> None:
        """The same with what `answered_line` says, at `now` by the monotonic clock; `hundreds` are those of its status."""
        if self._off:
            self.counts[hundreds] += 1
            return
        if now >= self._stale:
            self._new_millisecond(now)
        self.counts[hundreds] += 1
        millis = int(seconds * 1000)
        self._pieces += (self._stamp, line, _MILLIS[millis] if millis < _FEW else b"%d\n" % millis)
        if self._later is None:
            self.flush()

    def _new_millisecond(self, now: float) -> None:
        self._meter()
        if len(self._pieces) >= PIECE:
            self.flush()
        wall = time.time() * 1000
        millis = int(wall)
        self._stale = now + (millis + 1 - wall) / 1000
        second, millis = divmod(millis, 1000)
        if second != self._second:
            self._second = second
            self._date = time.strftime("%Y-%m-%dT%H:%M:%S,", time.localtime(second)).encode()
        self._stamp = b"%b%03d" % (self._date, millis)
        if not self._timed and self._later is not None:
            self._timed = True
            self._later(PIECE_WAITS, self._time_is_over)

    def _meter(self) -> None:
        """A line in the metrics log for each answer since the last call, with the stamp that they share."""
        if self._metrics is None or self.counts == self._metered:
            return
        for tail, count, metered in zip(self._tails, self.counts, self._metered, strict=True):
            if count > metered:
                self._metric_pieces.append((self._stamp + tail) * (count - metered))
        self._metered = self.counts.copy()

    def _time_is_over(self) -> None:
        self._timed = False
        self.flush()

    def flush(self) -> None:
        """Hand on what there is."""
        self._meter()
        if self._access is not None and self._pieces:
            self._access.write(b"".join(self._pieces))
        if self._metrics is not None and self._metric_pieces:
            self._metrics.write(b"".join(self._metric_pieces))
        self._pieces.clear()
        self._metric_pieces.clear()
        self._stale = 0.0  # the next line has to see to it that somebody hands it on


def answered_line(peer: bytes, line: bytes, status: int) -> bytes:
    """The middle of an access line, request line and status: whoever records the same again and again keeps it."""
    return b' - %b "%b" %d ' % (peer, line, status)


def peer_name(client: tuple[str, int] | None) -> bytes:
    """A peer as MMS writes it: `/127.0.0.1:64003`, and `0.0.0.0` where there is no address (a Unix socket)."""
    return f"/{client[0]}:{client[1]}".encode() if client else b"0.0.0.0"

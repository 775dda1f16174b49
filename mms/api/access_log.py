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


PIECE = 64
"""Lines that are handed on as one: what the log's thread does with each, it does while the event loop stands still."""

PIECE_WAITS = 0.1  # seconds that a line may wait for others


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
        self._access_lines: list[bytes] = []
        self._metric_lines: list[bytes] = []
        self._later = later
        self._timed = False
        self._now = self._second = -1
        self._date = self._stamp = b""
        host = socket.gethostname()
        tail = [
            f" - Requests{name}.Count:1|#Level:Host|#hostname:{host},timestamp:null\n" for name in ("2XX", "4XX", "5XX")
        ]
        two, four, five = (line.encode() for line in tail)
        # as in MMS, whatever is neither 2xx nor 4xx counts as 5xx
        self._tails = [two if n == 2 else four if n == 4 else five for n in range(10)]
        self._stamped = self._tails

    def record(self, peer: bytes, line: bytes, status: int, seconds: float) -> None:
        """One answered request: its request line, and `seconds` from its last byte in to its answer out."""
        kind = status // 100
        self.counts[kind] += 1
        if self._off:
            return
        now = int(time.time() * 1000)
        if now != self._now:
            self._now = now
            second, millis = divmod(now, 1000)
            if second != self._second:
                self._second = second
                self._date = time.strftime("%Y-%m-%dT%H:%M:%S,", time.localtime(second)).encode()
            self._stamp = b"%b%03d" % (self._date, millis)
            self._stamped = [self._stamp + tail for tail in self._tails]
        lines = self._access_lines
        lines.append(b'%b - %b "%b" %d %d\n' % (self._stamp, peer, line, status, seconds * 1000))
        self._metric_lines.append(self._stamped[kind])
        if len(lines) >= PIECE or self._later is None:
            self.flush()
        elif not self._timed:
            self._timed = True
            self._later(PIECE_WAITS, self._time_is_over)

    def _time_is_over(self) -> None:
        self._timed = False
        self.flush()

    def flush(self) -> None:
        """Hand on what there is."""
        if self._access is not None and self._access_lines:
            self._access.write(b"".join(self._access_lines))
        if self._metrics is not None and self._metric_lines:
            self._metrics.write(b"".join(self._metric_lines))
        self._access_lines.clear()
        self._metric_lines.clear()


def peer_name(client: tuple[str, int] | None) -> bytes:
    """A peer as MMS writes it: `/127.0.0.1:64003`, and `0.0.0.0` where there is no address (a Unix socket)."""
    return f"/{client[0]}:{client[1]}".encode() if client else b"0.0.0.0"

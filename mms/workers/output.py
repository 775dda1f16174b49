"""Takes what a worker prints, line by line, into the server's log and metrics; runs on the event loop, never blocks it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

MetricSink = Callable[[bytes], None]
"""Takes finished metric lines, each ending in a newline."""

_METRIC = b"[METRICS]"
_METRIC_LINE = re.compile(r"(?P<value>[^|]+\|#[^|]*\|#hostname:[^,]+)(,(?P<time>\d+))?(,(?P<request>.+))?")
_CHUNK = 65536
_LONGEST_LINE = 16384  # bytes; a longer one is cut into several
_KEPT_LINES = 40
_PIPE_CHUNKS = 64  # more than a pipe holds

metrics_logger = logging.getLogger("mms.model_metrics")


def log_metrics(lines: bytes) -> None:
    """The default sink: one record of the logger `mms.model_metrics` for each line."""
    if metrics_logger.isEnabledFor(logging.INFO):
        for line in lines.decode("utf-8", "replace").splitlines():
            metrics_logger.info("%s", line)


def printed_metric(text: str) -> str:
    """A metric line as handlers print it, in the form of the metrics log; any other text as it is."""
    match = _METRIC_LINE.fullmatch(text)
    if match is None:
        return text
    request = f",requestID:{match['request']}" if match["request"] else ""
    return f"{match['value']}{request},timestamp:{match['time'] or int(time.time())}"


class WorkerOutput:
    """Reads one pipe of a worker until it ends; `tail` keeps the last lines for error reports."""

    def __init__(self, descriptor: int, model: str, level: int, sink: MetricSink) -> None:
        self._descriptor = descriptor
        self._logger = logging.getLogger(f"mms.worker.{model}")
        self._level = level
        self._sink = sink
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self.tail: deque[str] = deque(maxlen=_KEPT_LINES)
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    def _read(self) -> bool:
        """Take one chunk; False where there was none."""
        try:
            data = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._end()
            return False
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) > _LONGEST_LINE:
            lines.append(rest[:_LONGEST_LINE])
            rest = rest[_LONGEST_LINE:]
        self._rest = rest
        for line in lines:
            self._take(line)
        return True

    def _take(self, line: bytes) -> None:
        if line.startswith(_METRIC):
            text = printed_metric(line[len(_METRIC) :].decode("utf-8", "replace"))
            self._sink(f"{text}\n".encode())
            return
        text = line.decode("utf-8", "replace").rstrip("\r")
        self.tail.append(text)
        self._logger.log(self._level, "%s", text)

    def close(self) -> None:
        """The worker is gone: take what is left in the pipe and close it, even if some process still holds the other end."""
        left = _PIPE_CHUNKS
        while self._descriptor >= 0 and left and self._read():
            left -= 1
        if self._descriptor >= 0:
            self._end()

    def _end(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        self._loop.remove_reader(descriptor)
        with suppress(OSError):
            os.close(descriptor)
        if self._rest:
            rest, self._rest = self._rest, b""
            self._take(rest)

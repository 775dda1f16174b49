"""MMS's lines of mms_metrics.log that are not of requests: how loaded the machine is, and how long each worker took to load."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterable, Iterator

import psutil

from mms.api.access_log import LogSink

logger = logging.getLogger(__name__)

FIRST_LOOK = 0.1  # seconds over which the first figure of the processor is taken; later ones span the whole interval
_MEGABYTE, _GIGABYTE = 1 << 20, 1 << 30


class HostMetrics:
    """Seven figures at once and then every `interval` seconds, from `start` to `close`.

    They are the machine's, as psutil tells them: in a container the memory and the processor are the host's, as in MMS.
    """

    def __init__(self, sink: LogSink, interval: float, *, disk: str = "/") -> None:
        self._sink = sink
        self._interval = interval
        self._disk = disk
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mms-host-metrics", daemon=True)
        self._broken = False

    def start(self) -> None:
        """Begin to measure; returns at once."""
        self._thread.start()

    def close(self) -> None:
        """Measure no more; returns when the thread has ended."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        psutil.cpu_percent()
        self._closing.wait(FIRST_LOOK)
        while not self._closing.is_set():
            self._measure()
            self._closing.wait(self._interval)

    def _measure(self) -> None:
        """One round; a figure that the machine does not give costs that round, and is said once."""
        try:
            lines = b"".join(metric_lines(self._figures(), time.time()))
        except (OSError, psutil.Error) as error:
            if not self._broken:
                logger.warning("The machine's load cannot be measured: %s", error)
            self._broken = True
            return
        self._broken = False
        self._sink.write(lines)

    def _figures(self) -> Iterator[tuple[str, float]]:
        disk, memory = psutil.disk_usage(self._disk), psutil.virtual_memory()
        yield "CPUUtilization.Percent", psutil.cpu_percent()
        yield "DiskAvailable.Gigabytes", disk.free / _GIGABYTE
        yield "DiskUsage.Gigabytes", disk.used / _GIGABYTE
        yield "DiskUtilization.Percent", disk.percent
        yield "MemoryAvailable.Megabytes", memory.available / _MEGABYTE
        yield "MemoryUsed.Megabytes", memory.used / _MEGABYTE
        yield "MemoryUtilization.Percent", memory.percent


class WorkerLoads:
    """One line for each worker that has loaded, replacements too: `W-ID-MODEL.ms`; MMS's id is its port, from 9000 on as here."""

    def __init__(self, sink: LogSink) -> None:
        self._sink = sink

    def __call__(self, worker_id: str, model: str, seconds: float) -> None:
        """Take one load; returns at once."""
        self._sink.write(b"".join(metric_lines([(f"W-{worker_id}-{model}.ms", round(1000 * seconds))], time.time())))


def metric_lines(figures: Iterable[tuple[str, float]], now: float) -> Iterator[bytes]:
    """Each figure as a line of the metrics log: `TIME - Name.Unit:value|#Level:Host|#hostname:HOST,timestamp:SECONDS`."""
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.localtime(now))},{int(now % 1 * 1000):03d}"
    tail = f"|#Level:Host|#hostname:{socket.gethostname()},timestamp:{int(now)}\n"
    for name, value in figures:
        yield f"{stamp} - {name}:{value}{tail}".encode()

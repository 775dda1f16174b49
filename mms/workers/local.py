"""The engine of local processes: makes workers on this machine and ends them all; nothing outside `workers/` knows how."""

from __future__ import annotations

import asyncio
import itertools
from typing import Literal

from mms.workers.engine import WorkerSpec
from mms.workers.fork_launcher import ForkServerLauncher
from mms.workers.launcher import ForkServerProcess, Launcher, SpawnLauncher
from mms.workers.output import MetricSink, log_metrics
from mms.workers.process import LocalWorker

StartMethod = Literal["forkserver", "spawn"]

_FIRST_ID = 9000


class LocalEngine:
    """Workers as child processes; one a server, used from one event loop.

    `fork_server` is what `launch_fork_server` returned (None: started by `open`). `blacklist` is a regular expression;
    variables whose whole name it matches are kept from workers. `store_uuid` and `epoch` tag every process for the sweep after
    a crash. `metric_sink` takes finished metric lines as bytes (default: the logger `mms.model_metrics`).
    """

    def __init__(
        self,
        *,
        fork_server: ForkServerProcess | None = None,
        start_method: StartMethod = "forkserver",
        blacklist: str | None = None,
        store_uuid: str = "",
        epoch: int = 0,
        metric_sink: MetricSink = log_metrics,
    ) -> None:
        tag = f"{store_uuid}:{epoch}"
        self._launcher: Launcher
        if start_method == "spawn":
            self._launcher = SpawnLauncher(blacklist, tag)
        else:
            self._launcher = ForkServerLauncher(blacklist, tag, fork_server)
        self._sink = metric_sink
        self._ids = itertools.count(_FIRST_ID)
        self._workers: set[LocalWorker] = set()

    async def open(self) -> None:
        """Make ready: with a fork server, wait for its imports. Idempotent. Raises LoadFailed (environment)."""
        await self._launcher.open()

    def worker(self, spec: WorkerSpec) -> LocalWorker:
        """A new worker in STARTING; nothing runs before its `start`."""
        worker = LocalWorker(spec, str(next(self._ids)), self._launcher, self._sink)
        self._workers.add(worker)
        worker.gone.add_done_callback(lambda _: self._workers.discard(worker))
        return worker

    async def close(self) -> None:
        """End every process of this engine, children and fork server; returns when none is left."""
        workers = list(self._workers)
        await asyncio.gather(*(worker.stop(0) for worker in workers))
        await self._launcher.close()

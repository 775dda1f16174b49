"""From parsed flags to a running server: configuration first, then the fork server, and only then the heavy imports."""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mms.config.check import Severity, check
from mms.config.resolve import resolve_server
from mms.config.sources import read_sources
from mms.errors import UsageError
from mms.records import BootOptions

_COLLECT_AFTER = 20_000
"""Objects: requests under way are many and hold no cycles, and the collector would walk them again and again to find none."""


def run_server(config: str | None, flags: Mapping[str, Any], *, config_flag: str = "--config") -> int:
    """Run one server life in this process; returns its exit code. Raises BootError in one line."""
    sources = read_sources(config=config, flags=flags, config_flag=config_flag)
    findings = check(sources, archive_name=_named_by if sources.environment_enabled else None)
    if any(finding.fatal for finding in findings):
        raise UsageError("\n".join(str(f) if f.fatal else f"{f.severity}: {f}" for f in findings))
    settings = resolve_server(sources)
    # The fork server holds what every worker needs and nothing of the server: it starts before the server's own imports,
    # and while they run it imports numpy and onnxruntime on another core.
    from mms.workers.launcher import launch_fork_server

    forks = settings.worker_start_method == "forkserver"
    fork_server = launch_fork_server(settings.blacklist_env_vars) if forks else None

    gc.disable()  # while everything is imported, as in __main__

    import uvloop

    from mms import logging as server_log
    from mms.host_metrics import HostMetrics, WorkerLoads
    from mms.logfiles import LogFiles
    from mms.parts import Logs
    from mms.server import serve
    from mms.workers.local import LocalEngine

    server_log.configure(level=settings.log_level)
    server_log.add_file(settings.log_location)
    if settings.log_config is not None:
        server_log.configure_from(settings.log_config)
    log = logging.getLogger("mms.config")
    for finding in findings:
        log.log(logging.INFO if finding.severity is Severity.NOTE else logging.WARNING, "%s", finding)
    options = BootOptions(settings.recover, settings.clean_start, settings.recovery_mode)

    files = LogFiles()
    metrics = files.open(settings.metrics_location, "mms_metrics.log")
    logs = Logs(
        access=files.open(settings.log_location, "access_log.log") if settings.access_log else None,
        metrics=metrics if settings.access_log else None,
        loads=WorkerLoads(metrics) if metrics is not None else None,
    )
    host_metrics = HostMetrics(metrics, settings.metric_time_interval) if metrics is not None else None
    model_metrics = files.open(settings.metrics_location, "model_metrics.log")

    def make_engine(store_uuid: str, epoch: int) -> LocalEngine:
        return LocalEngine(
            fork_server=fork_server,
            start_method="forkserver" if forks else "spawn",
            blacklist=settings.blacklist_env_vars,
            store_uuid=store_uuid,
            epoch=epoch,
            metric_sink=model_metrics.write if model_metrics is not None else _forget,
        )

    gc.freeze()  # the modules live as long as the process: the collector need not walk them again
    gc.set_threshold(_COLLECT_AFTER, 20, 20)
    gc.enable()
    if host_metrics is not None:
        host_metrics.start()
    try:
        return uvloop.run(serve(settings, sources, options, make_engine, logs))
    finally:
        if host_metrics is not None:
            host_metrics.close()
        files.close()


def _named_by(path: Path) -> str:
    # Only a server that reads variables has to look into every archive for names that share them.
    from mms.archive.peek import named_by

    return named_by(path)


def _forget(lines: bytes) -> None:
    """Where the metrics log cannot be had."""

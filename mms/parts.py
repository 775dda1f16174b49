"""Builds every part of a server life once its store is claimed: dependencies are constructor arguments, made here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mms.activation import Activator
from mms.api.access_log import LogSink
from mms.api.apps import Listeners
from mms.api.ports import Metrics, Resume
from mms.archive.download import DownloadLimits
from mms.archive.model_archive import ArchiveStore
from mms.attempts import Attempts
from mms.changes import Changes
from mms.config.machine import available_cores
from mms.config.resolve import ServerSettings
from mms.config.sources import ConfigSources
from mms.gate import Gate
from mms.inference.registry import Registry
from mms.inference.service import InferenceService
from mms.model_manager import ModelManager
from mms.status import ServerStatus
from mms.store.store import Store
from mms.wanted import WantedState
from mms.workers.engine import Engine
from mms.workers.pool import LoadListener

EngineMaker = Callable[[str, int], Engine]
"""Makes the engine from the store's uuid and this life's epoch, which tag its processes."""


class Logs(NamedTuple):
    """Where the lines of answered requests (`access`, `metrics`) and of loaded workers go; None leaves them out."""

    access: LogSink | None = None
    metrics: LogSink | None = None
    loads: LoadListener | None = None


class Parts:
    """The parts of one server life, in the order in which they depend on each other."""

    def __init__(
        self,
        settings: ServerSettings,
        sources: ConfigSources,
        store: Store,
        status: ServerStatus,
        registry: Registry,
        gate: Gate,
        make_engine: EngineMaker,
        logs: Logs,
        resume: Resume,
    ) -> None:
        self.cores = available_cores()
        self.state = WantedState(store)
        self.attempts = Attempts(store)
        self.engine = make_engine(store.store_uuid, store.epoch)
        self.archives = ArchiveStore(
            settings.model_store,
            settings.data_dir,
            tag=f"{store.store_uuid[:8]}-{store.epoch}",
            limits=DownloadLimits(total=settings.download_timeout, max_size=settings.max_archive_size),
        )
        self.activator = Activator(
            self.archives, self.engine, sources, settings, load_slots=self.cores, on_load=logs.loads
        )
        self.changes = Changes(
            self.state,
            gate,
            self.activator,
            registry,
            self.attempts,
            unregister_timeout=settings.unregister_model_timeout,
        )
        self.manager = ModelManager(self.state, gate, self.activator, registry, self.changes, store)
        self.inference = InferenceService(registry)

        def make_metrics() -> Metrics:
            from mms.telemetry import Telemetry  # prometheus-client: not before the models answer

            return Telemetry(
                models=registry, status=status, store=store, answers=lambda: self.listeners.request_log.counts
            )

        self.listeners = Listeners(
            settings,
            manager=self.manager,
            status=status,
            inference=self.inference,
            models=self.inference,
            store=store,
            resume=resume,
            access_log=logs.access,
            metrics_log=logs.metrics,
            make_metrics=make_metrics,
        )

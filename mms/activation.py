"""Turns what is wanted into a model in service: archive, settings, workers; one path for registrations, start-up and replay."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from platform import python_version

from mms.archive.manifest import RUNTIMES
from mms.archive.model_archive import ArchiveStore, ModelArchive
from mms.config.provenance import UNNUMBERED, numbered
from mms.config.resolve import ModelSettings, ServerSettings, Source, resolve_model
from mms.config.sources import ConfigSources
from mms.config.startup_models import check_model_name
from mms.errors import InvalidModel, LoadFailed
from mms.inference.registry import ServedModel
from mms.records import ModelKey, Overrides
from mms.workers.engine import Engine, WorkerSpec
from mms.workers.pool import LoadListener, WorkerPool

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model that can be brought into service: everything is known and checked, nothing runs yet."""

    key: ModelKey
    archive: ModelArchive
    handler: str | None
    runtime: str
    settings: ModelSettings
    startup: bool
    sources: ConfigSources | None = None
    """The configuration that its settings were resolved from; None where that is the one of the model in service."""


@dataclass(frozen=True, slots=True)
class Said:
    """What the operator said of a model beside its archive."""

    name: str | None = None
    handler: str | None = None
    runtime: str | None = None
    overrides: Overrides = field(default_factory=dict)
    startup: bool = False


class Activator:
    """Prepares models and makes them served ones; holds no model itself, only which files each was configured by."""

    def __init__(
        self,
        archives: ArchiveStore,
        engine: Engine,
        sources: ConfigSources,
        settings: ServerSettings,
        *,
        load_slots: int,
        on_load: LoadListener | None = None,
    ) -> None:
        self._archives = archives
        self._engine = engine
        self._sources = sources
        self._settings = settings
        self._in_force: dict[str, ConfigSources] = {}  # what each served model was resolved from, by name
        self._gpus = _gpu_ids(settings.number_of_gpu)
        # Loading is CPU-bound: more at once than there are cores only makes each slower.
        self._load_slots = asyncio.Semaphore(load_slots)
        self._on_load = on_load

    async def open(self, url: str) -> ModelArchive:
        """Open what the URL names today; raises as `ArchiveStore.open` does."""
        return await asyncio.to_thread(self._archives.open, url)

    async def reopen(self, url: str, sha256: str) -> ModelArchive:
        """Open what was registered; raises as `ArchiveStore.reopen` does."""
        return await asyncio.to_thread(
            self._archives.reopen, url, sha256, changed=self._settings.replay_changed_archive
        )

    def prepare(self, archive: ModelArchive, said: Said) -> Prepared:
        """Check name, handler, runtime and settings. Raises InvalidModel or BadInput, and has no effect."""
        manifest = archive.manifest
        name = said.name or manifest.model_name or (archive.default_name if said.startup else None)
        if not name:
            raise InvalidModel("Model name is not defined.")
        check_model_name(name)
        handler = said.handler or manifest.handler or self._settings.default_service_handler
        if not handler and archive.onnx_file is None:
            raise InvalidModel("Model handler is not defined.")
        runtime = said.runtime or manifest.runtime
        if runtime not in RUNTIMES:
            raise InvalidModel("Runtime is not defined or invalid.")
        if runtime == "python2":
            raise LoadFailed(f"The runtime python2 is not to be had: handlers run on Python {python_version()}.")
        if archive.error:  # after name and handler, whose absence MMS complains about first
            raise InvalidModel(archive.error)
        key = ModelKey(name, manifest.model_version or "")
        sources = self._sources.with_model_file(key.name)  # read anew: it may have come with the archive
        settings = self._resolve(sources, key, archive, said)
        return Prepared(key, archive, handler, runtime, settings, said.startup, sources)

    def resolve(self, key: ModelKey, archive: ModelArchive, said: Said) -> ModelSettings:
        """The settings of a model in service, from the files as they were read when it came into service."""
        return self._resolve(self._in_force.get(key.name, self._sources), key, archive, said)

    def _resolve(self, sources: ConfigSources, key: ModelKey, archive: ModelArchive, said: Said) -> ModelSettings:
        return resolve_model(
            sources,
            key.name,
            overrides=said.overrides,
            manifest_settings=archive.manifest.settings,
            startup=said.startup,
            cores=self._settings.number_of_gpu or None,
        )

    def serve(self, prepared: Prepared) -> ServedModel:
        """A served model with no workers yet; `scale` brings them up."""
        if prepared.sources is not None:
            self._in_force[prepared.key.name] = prepared.sources
        settings = prepared.settings
        if settings.preload_model:
            logger.warning(
                "Model %s: preload_model has no effect: each worker loads the model itself.", prepared.key.name
            )
        spec = WorkerSpec(
            model=prepared.key,
            model_dir=prepared.archive.model_dir,
            handler=prepared.handler,
            runtime=prepared.runtime,
            batch_size=settings.batch_size,
            startup_timeout=settings.startup_timeout,
            response_timeout=settings.response_timeout,
            max_response_size=settings.max_response_size,
            decode_input_request=self._settings.decode_input_request,
            preload_model=settings.preload_model,
            legacy=prepared.archive.manifest.legacy,
        )
        pool = WorkerPool(
            self._engine, spec, next_gpu=self._next_gpu, load_slots=self._load_slots, on_load=self._on_load
        )
        return ServedModel(
            key=prepared.key,
            archive=prepared.archive,
            runtime=prepared.runtime,
            settings=settings,
            pool=pool,
            startup=prepared.startup,
            batching=self._settings.batching,
        )

    def _next_gpu(self) -> int | None:
        return next(self._gpus)


def with_numbers(settings: ModelSettings, seqs: Mapping[str, int]) -> ModelSettings:
    """The same settings, the API's values shown with their journal numbers, as far as these are known."""
    return replace(settings, explained=numbered(settings.explained, seqs))


def warn_of_overruled_manifest(name: str, settings: ModelSettings, options: Iterable[str] | None = None) -> None:
    """Say in the log where an API value is not the manifest's: both values, both sources. `options` None means all."""
    for option in settings.explained if options is None else options:
        one = settings.explained[option]
        if one.chosen.source is not Source.API:
            continue
        for beaten in one.beaten:
            if beaten.source is Source.MANIFEST and beaten.value != one.value:
                api = "" if one.chosen.where.startswith(UNNUMBERED) else f" ({one.chosen.where})"
                logger.warning(
                    "Model %s: %s=%s from the management API%s is used; the archive's manifest says %s (%s)",
                    name, option, one.value, api, beaten.value, beaten.where,
                )  # fmt: skip


def _gpu_ids(count: int) -> Iterator[int | None]:
    """Workers get GPUs in turn, over all models, as in MMS; None where there are none."""
    return itertools.cycle(range(count)) if count > 0 else itertools.repeat(None)

"""What there is to read about models: each as the API describes it, from its stored row and what serves it; changes nothing."""

from __future__ import annotations

from mms.inference.registry import ServedModel
from mms.records import Origin, Registration, RegistrationState
from mms.wishes import ModelDescription, WorkerDescription


def describe(served: ServedModel | None, row: Registration | None) -> ModelDescription | None:
    """A model that is served, or one that is kept but not in service; None where it is neither."""
    if served is not None:
        return _served(served, row)
    if row is not None and row.wanted:
        return _kept(row)
    return None


def _served(served: ServedModel, row: Registration | None) -> ModelDescription:
    settings = served.settings
    state = row.state if row is not None else RegistrationState.ACTIVE
    return ModelDescription(
        name=served.key.name,
        version=served.key.version,
        url=served.archive.url,
        engine=served.archive.manifest.engine_name,
        runtime=served.runtime,
        min_workers=settings.min_workers,
        max_workers=settings.max_workers,
        batch_size=settings.batch_size,
        max_batch_delay=settings.max_batch_delay,
        startup=served.startup,
        workers=tuple(
            WorkerDescription(
                id=worker.worker_id,
                started_at=worker.started_at,
                status=worker.state.value,
                gpu=worker.gpu_id is not None,
                memory_usage=worker.memory_usage,
            )
            for worker in served.workers
        ),
        state=state.value,
        last_error=served.last_error or (row.last_error if row is not None else ""),
        queue_depth=served.queue_depth,
    )


def _kept(row: Registration) -> ModelDescription:
    """Quarantined, or its archive is missing: it has no settings in force, so only what the operator said is shown."""
    return ModelDescription(
        name=row.key.name,
        version=row.key.version,
        url=row.url,
        engine=None,
        runtime=row.runtime or "python",
        min_workers=row.overrides.get("min_workers", 0),
        max_workers=row.overrides.get("max_workers", 0),
        batch_size=row.overrides.get("batch_size", 1),
        max_batch_delay=row.overrides.get("max_batch_delay", 100),
        startup=row.origin is Origin.MANIFEST,
        workers=(),
        state=row.state.value,
        last_error=row.last_error,
        queue_depth=0,
    )

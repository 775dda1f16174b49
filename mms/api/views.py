"""What the management routes show: records of the server as JSON documents, with MMS's names and key order where MMS has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mms.config.resolve import Candidate, Explained
from mms.records import Incarnation, JournalEntry, Registration
from mms.status import RecoveryReport
from mms.wishes import ChangeResult, ChangeStatus, ModelDescription, Readiness, WorkerDescription

Document = dict[str, Any]

_QUIET_STATES = ("active", "pending")
"""States in which a model is described just as MMS would."""

_ENDING = "STOPPING"

_SERVING = ("READY", "BUSY")
"""States of a worker that takes batches."""

CHANGE_STATUS: Mapping[ChangeStatus, tuple[int, str]] = {
    ChangeStatus.REGISTERED: (200, 'Model "{model}" registered'),
    ChangeStatus.PROCESSING: (202, "Processing worker updates..."),
    ChangeStatus.SCALED: (200, "Workers scaled"),
    ChangeStatus.PARTIAL: (210, "Workers scaling in progress..."),
    ChangeStatus.UPDATED: (200, 'Model "{model}" updated'),
    ChangeStatus.UNREGISTERED: (200, 'Model "{model}" unregistered'),
    ChangeStatus.OVERRIDE_REMOVED: (200, 'Setting "{option}" of model "{model}" removed'),
    ChangeStatus.QUARANTINE_CLEARED: (200, 'Quarantine of model "{model}" cleared'),
}


def change(result: ChangeResult) -> tuple[int, Document]:
    """Status and body of a change that ended well."""
    status, text = CHANGE_STATUS[result.status]
    said = text.replace("{model}", result.model) if "{option}" not in text else text.format(**_named(result))
    return status, {"status": said}


def _named(result: ChangeResult) -> Mapping[str, str]:
    return {"model": result.model, "option": result.option}


def listed(models: Sequence[ModelDescription], limit: int, offset: int, *, details: bool = False) -> Document:
    """One page of the list; as in MMS, an exact fit still names a next page, which is then empty."""
    page = [_item(model, details=details) for model in models[offset : offset + limit]]
    token = {"nextPageToken": str(offset + limit)} if offset + limit <= len(models) else {}
    return {**token, "models": page}


def _item(model: ModelDescription, *, details: bool) -> Document:
    item: Document = {"modelName": model.name, "modelUrl": model.url}
    if details:
        item |= {
            "modelVersion": model.version,
            "state": model.state,
            "lastError": model.last_error,
            "queueDepth": model.queue_depth,
            "minWorkers": model.min_workers,
            "maxWorkers": model.max_workers,
            "readyWorkers": sum(worker.status in _SERVING for worker in model.workers),
        }
    return item


def described(model: ModelDescription, *, details: bool = False) -> Document:
    """One model. What MMS does not say of it is told where it is not in service, and where `details` are asked for.

    MMS knows two words for a worker's status: READY also stands for one that loads or is being replaced, UNLOADING for one
    that ends. Scripts compare them, so the true state has a place of its own among the details.
    """
    known = {
        "modelName": model.name,
        "modelVersion": model.version or None,
        "modelUrl": model.url,
        "engine": model.engine,
        "runtime": model.runtime,
        "minWorkers": model.min_workers,
        "maxWorkers": model.max_workers,
        "batchSize": model.batch_size,
        "maxBatchDelay": model.max_batch_delay,
        "loadedAtStartup": model.startup,
        "workers": [_worker(worker, details=details) for worker in model.workers],
    }
    document = {key: value for key, value in known.items() if value is not None}
    if details or (model.state not in _QUIET_STATES and not model.workers):
        document |= {"state": model.state, "lastError": model.last_error}
    if details:
        document["queueDepth"] = model.queue_depth
    return document


def _worker(worker: WorkerDescription, *, details: bool) -> Document:
    document: Document = {
        "id": worker.id,
        "startTime": instant(worker.started_at),
        "status": "UNLOADING" if worker.status == _ENDING else "READY",
        "gpu": worker.gpu,
        "memoryUsage": worker.memory_usage,
    }
    if details:
        document["state"] = worker.status
    return document


def instant(seconds: float) -> str:
    """Seconds since the epoch as MMS writes a time, in UTC, which is what its Z says."""
    return moment(datetime.fromtimestamp(seconds, UTC)) or ""


def moment(when: datetime | None) -> str | None:
    """A time in UTC, to the millisecond."""
    if when is None:
        return None
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"


def readiness(answer: Readiness) -> tuple[int, Document]:
    """Status and body of /readyz."""
    document = {
        "ready": answer.ready,
        "reason": answer.reason,
        "degraded": list(answer.degraded),
        "store": answer.store,
    }
    return (200 if answer.ready else 503), document


def recovery(report: RecoveryReport) -> Document:
    """What this boot decided and what came of it."""
    models = [
        {
            "modelName": model.key.name,
            "modelVersion": model.key.version,
            "origin": model.origin.value,
            "outcome": model.outcome.value,
            "seconds": round(model.seconds, 3),
            "error": model.error,
        }
        for model in report.models
    ]
    previous = report.previous
    return {
        "decision": report.decision.decision.name,
        "reason": report.decision.reason,
        "incarnation": report.incarnation.epoch,
        "previous": None
        if previous is None
        else {
            "epoch": previous.epoch,
            "generation": previous.generation,
            "state": previous.state.value,
            "startedAt": moment(previous.started_at),
            "stoppedAt": moment(previous.stopped_at),
        },
        "state": "complete" if report.complete else "recovering",
        "seconds": report.seconds,
        "generation": report.incarnation.generation,
        "safeMode": report.safe_mode,
        "warnings": list(report.decision.warnings),
        "models": models,
    }


def incarnation(life: Incarnation) -> Document:
    """One life of the server."""
    return {
        "epoch": life.epoch,
        "generation": life.generation,
        "state": life.state.value,
        "decision": life.decision.name,
        "reason": life.reason,
        "flags": list(life.flags),
        "host": life.identity.host,
        "pid": life.identity.pid,
        "version": life.identity.version,
        "startedAt": moment(life.started_at),
        "readyAt": moment(life.ready_at),
        "heartbeatAt": moment(life.heartbeat_at),
        "stoppedAt": moment(life.stopped_at),
        "stopReason": life.stop_reason,
    }


def journal(entries: Sequence[JournalEntry], limit: int) -> Document:
    """A page of the journal; `next` is the number to go on after, null at the end."""
    following = entries[-1].seq if entries and len(entries) >= limit else None
    return {"entries": [journal_entry(entry) for entry in entries], "next": following}


def journal_entry(entry: JournalEntry) -> Document:
    """One change."""
    return {
        "seq": entry.seq,
        "at": moment(entry.at),
        "epoch": entry.epoch,
        "generation": entry.generation,
        "actor": entry.actor,
        "requestId": entry.request_id,
        "operation": entry.operation.value,
        "modelName": entry.key.name,
        "modelVersion": entry.key.version,
        "after": registration(entry.after),
        "outcome": entry.outcome.value,
    }


def registration(row: Registration) -> Document:
    """One row of the snapshot."""
    return {
        "origin": row.origin.value,
        "state": row.state.value,
        "url": row.url,
        "sha256": row.sha256,
        "handler": row.handler,
        "runtime": row.runtime,
        "overrides": dict(row.overrides),
        "revision": row.revision,
        "charges": row.charges,
        "lastError": row.last_error,
    }


def settings(name: str, explained: Mapping[str, Explained]) -> Document:
    """Every option of a model with the source of its value and the sources that it beat."""
    shown = {
        option: {
            "value": one.value,
            "unit": one.unit,
            "source": one.chosen.source.value,
            "scope": one.chosen.scope.value,
            "where": one.chosen.where,
            "live": one.live,
            "beaten": [_candidate(other) for other in one.beaten],
        }
        for option, one in explained.items()
    }
    return {"modelName": name, "settings": shown}


def _candidate(one: Candidate) -> Document:
    return {"value": one.value, "source": one.source.value, "scope": one.scope.value, "where": one.where}

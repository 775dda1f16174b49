"""What a management caller wishes and what it is told: the manager's records on the way in and out, with no word of HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mms import errors
from mms.errors import MmsError
from mms.records import ModelKey, Origin, Overrides, ReplayOutcome


@dataclass(frozen=True, slots=True)
class RegisterModel:
    """Register the archive at `url`; None means what the manifest says. `overrides` are by option name (`min_workers`, ...)."""

    url: str
    model_name: str | None = None
    handler: str | None = None
    runtime: str | None = None
    overrides: Overrides = field(default_factory=dict)
    synchronous: bool = True


@dataclass(frozen=True, slots=True)
class UpdateModel:
    """Change a model's overrides; `scale` False where no worker count was named beside other options."""

    name: str
    overrides: Overrides = field(default_factory=dict)
    scale: bool = True
    synchronous: bool = False


class ChangeStatus(StrEnum):
    """How a change ended well; the API has one text for each."""

    REGISTERED = "registered"  # no workers were asked for
    PROCESSING = "processing"  # durable; workers are on their way
    SCALED = "scaled"  # all workers are up
    PARTIAL = "partial"  # some workers are up
    UPDATED = "updated"  # only overrides were named
    UNREGISTERED = "unregistered"
    OVERRIDE_REMOVED = "override_removed"
    QUARANTINE_CLEARED = "quarantine_cleared"


@dataclass(frozen=True, slots=True)
class ChangeResult:
    """The answer to a change; `replayed` is True where it is the stored answer to an earlier request with the same key."""

    status: ChangeStatus
    model: str
    option: str = ""
    replayed: bool = False

    def as_response(self) -> Mapping[str, Any]:
        """The stored form: what an Idempotency-Key brings back."""
        return {"status": self.status.value, "model": self.model, "option": self.option}

    @staticmethod
    def failure(error: MmsError) -> Mapping[str, Any]:
        """The stored form of a change that failed."""
        extra = {k: v for k, v in vars(error).items() if k in ("code", "out_of_memory")}
        return {"error": type(error).__name__, "message": error.message, **extra}

    @staticmethod
    def from_response(response: Mapping[str, Any]) -> ChangeResult:
        """The result behind a stored answer; raises the stored error where the change had failed."""
        if "error" in response:
            extra = {k: v for k, v in response.items() if k not in ("error", "message")}
            stored: MmsError = getattr(errors, response["error"])(response["message"], **extra)
            stored.replayed = True
            raise stored
        return ChangeResult(ChangeStatus(response["status"]), response["model"], response.get("option", ""), True)


@dataclass(frozen=True, slots=True)
class WorkerDescription:
    """One worker as the API shows it; `started_at` in seconds since the epoch, `memory_usage` in bytes."""

    id: str
    started_at: float
    status: str
    gpu: bool
    memory_usage: int


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """One model as the API shows it; `state` is the registration's (or `active` where the operator never touched it)."""

    name: str
    version: str
    url: str
    engine: str | None
    runtime: str
    min_workers: int
    max_workers: int
    batch_size: int
    max_batch_delay: int
    startup: bool
    workers: tuple[WorkerDescription, ...]
    state: str
    last_error: str
    queue_depth: int


@dataclass(frozen=True, slots=True)
class ModelRecovery:
    """What the boot made of one model; `seconds` is 0 until its first outcome."""

    key: ModelKey
    origin: Origin
    outcome: ReplayOutcome
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the server can answer for its wanted models, and why not; `degraded` where some of them failed."""

    ready: bool
    reason: str
    degraded: tuple[str, ...]
    store: str

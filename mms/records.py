"""Control-plane records: the nouns that store, recovery and manager hand to each other; frozen, no behaviour but reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

Overrides = Mapping[str, Any]
"""Option name (as in the option table) to value: only what the caller said, never a resolved value."""


@dataclass(frozen=True, slots=True, order=True)
class ModelKey:
    """A model's name and version; the version is empty where the archive names none."""

    name: str
    version: str = ""


class Origin(StrEnum):
    """Who wants the model: a registration through the API, or the configured start-up models."""

    API = "api"
    MANIFEST = "manifest"


class RegistrationState(StrEnum):
    """State of a snapshot row; UNREGISTERED is a tombstone, a row like any other."""

    PENDING = "pending"
    ACTIVE = "active"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    UNREGISTERED = "unregistered"


class Operation(StrEnum):
    """What a journal entry did."""

    REGISTER = "register"
    UPDATE = "update"  # scale, or set overrides
    REMOVE_OVERRIDE = "remove_override"
    UNREGISTER = "unregister"
    CHARGE = "charge"  # a failed load charged to its registration; may quarantine it
    CLEAR_QUARANTINE = "clear_quarantine"
    RESTORE = "restore"


class ChangeOutcome(StrEnum):
    """Outcome of a journal entry; PENDING where the server died before it knew."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"  # compensated: its after-image never counts


class IncarnationState(StrEnum):
    """BOOTING -> RUNNING -> STOPPING -> CLEAN; anything but CLEAN on the last row means that it crashed."""

    BOOTING = "booting"
    RUNNING = "running"
    STOPPING = "stopping"
    CLEAN = "clean"


class Decision(StrEnum):
    """What a boot does with the stored registrations."""

    REPLAY = "replay"
    CLEAN = "clean"
    MANIFEST = "manifest"


class RecoveryMode(StrEnum):
    """The `recovery_mode` setting; flags beat it."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Registration:
    """One row of the snapshot: the durable wish to serve (or, as a tombstone, not to serve) one model.

    `url` and `sha256` say which archive; for a start-up model that the operator only changed, `url` is empty and today's
    configuration says it. `seq` is the journal entry that wrote the row, `revision` counts the row's own changes.
    """

    key: ModelKey
    origin: Origin
    state: RegistrationState
    url: str = ""
    sha256: str = ""
    handler: str | None = None
    runtime: str | None = None
    overrides: Overrides = field(default_factory=dict)
    generation: int = 0
    revision: int = 0
    seq: int = 0
    charges: int = 0
    last_error: str = ""
    requests_seen: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def wanted(self) -> bool:
        """False for a tombstone."""
        return self.state is not RegistrationState.UNREGISTERED


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for a change, kept in the journal.

    `actor` is the token's name, else `anonymous@ADDRESS`; `idempotency_key` is the header's value or None, and
    `request_digest` binds it to method, path, query and body.
    """

    actor: str = "server"
    request_id: str = ""
    idempotency_key: str | None = None
    request_digest: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One wanted change of the snapshot: `after` is the row as it shall be (the store fills in generation, revision, seq, times).

    `loads` is True where applying it loads the model: its load attempt is then opened and closed in the change's own two
    transactions.
    """

    operation: Operation
    after: Registration
    caller: Caller
    loads: bool = False


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One change, as the journal keeps it; `after` is the row's whole after-image, `response` the stored answer (JSON)."""

    seq: int
    epoch: int
    generation: int
    at: datetime
    actor: str
    request_id: str
    operation: Operation
    key: ModelKey
    after: Registration
    outcome: ChangeOutcome
    idempotency_key: str | None = None
    request_digest: str = ""
    response: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """Which process an incarnation was: for people and for finding leftovers, never for deciding who owns the store."""

    host: str
    boot_id: str
    pid: int
    start_ticks: int
    version: str


@dataclass(frozen=True, slots=True)
class Incarnation:
    """One life of the server process: one row, numbered by its epoch."""

    epoch: int
    generation: int
    state: IncarnationState
    decision: Decision
    reason: str
    identity: ProcessIdentity
    flags: tuple[str, ...] = ()
    started_at: datetime | None = None
    ready_at: datetime | None = None
    heartbeat_at: datetime | None = None
    stopped_at: datetime | None = None
    stop_reason: str = ""

    @property
    def crashed(self) -> bool:
        """True unless it ended with the clean-shutdown marker (asked of an incarnation that no longer runs)."""
        return self.state is not IncarnationState.CLEAN


@dataclass(frozen=True, slots=True)
class GenerationSummary:
    """What a generation holds: `registrations` counts wanted rows, `changes` is True if the API changed anything in it."""

    generation: int
    registrations: int
    changes: bool
    abandoned: bool


@dataclass(frozen=True, slots=True)
class LoadAttempt:
    """A load that is, or was when its server died, under way."""

    epoch: int
    key: ModelKey
    sha256: str
    opened_at: datetime | None = None
    closed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class BootFacts:
    """All that the boot decision may look at, as read from the store in the claiming transaction.

    `interrupted_stops` are epochs that an orderly stop ended while BOOTING: dirty, but no failed boot.
    `failed_boots` counts the last incarnations in a row that crashed while BOOTING.
    """

    last: Incarnation | None
    generations: tuple[GenerationSummary, ...] = ()
    open_attempts: tuple[LoadAttempt, ...] = ()
    failed_boots: int = 0


@dataclass(frozen=True, slots=True)
class BootOptions:
    """What the operator asked of this boot."""

    recover: bool = False
    clean_start: bool = False
    recovery_mode: RecoveryMode = RecoveryMode.AUTO

    @property
    def flags(self) -> tuple[str, ...]:
        """The one-shot flags given, as typed."""
        given = (("--recover", self.recover), ("--clean-start", self.clean_start))
        return tuple(name for name, on in given if on)


@dataclass(frozen=True, slots=True)
class BootDecision:
    """What this boot does and why, in one sentence; `generation` None means: begin a new one."""

    decision: Decision
    reason: str
    generation: int | None = None
    warnings: tuple[str, ...] = ()
    safe_mode: bool = False


class ReplayOutcome(StrEnum):
    """What became of one model of the boot's plan."""

    PENDING = "pending"
    ACTIVE = "active"
    FAILED = "failed"
    MISSING_ARCHIVE = "missing_archive"
    CHANGED_ARCHIVE = "changed_archive"
    QUARANTINED = "quarantined"
    SHADOWED = "shadowed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class StartupModel:
    """A model that the configuration names; `name` is None where the archive's own name is to be used."""

    url: str
    name: str | None = None


class StoreHealth(StrEnum):
    """How the store answers, as `/readyz` shows it."""

    OK = "ok"
    UNREACHABLE = "unreachable"
    FENCED = "fenced"
    READ_ONLY = "read-only"


@dataclass(frozen=True, slots=True)
class Begun:
    """A change that is durable: its journal number and the row as written; `before` is the row it replaced, or None."""

    seq: int
    operation: Operation
    row: Registration
    before: Registration | None
    loads: bool = False


@dataclass(frozen=True, slots=True)
class Replayed:
    """The stored answer to a request that was made before with the same Idempotency-Key."""

    seq: int
    response: Mapping[str, Any]

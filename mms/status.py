"""What the server says of itself: boot decision, recovery so far, readiness; derived from the parts that know, kept nowhere twice."""

from __future__ import annotations

import time
from dataclasses import dataclass

from mms.inference.registry import Registry
from mms.records import BootDecision, Incarnation, RegistrationState, ReplayOutcome, StoreHealth
from mms.replay import Replay
from mms.store.store import Store
from mms.wishes import ModelRecovery, Readiness

_FAILED = (
    ReplayOutcome.FAILED,
    ReplayOutcome.MISSING_ARCHIVE,
    ReplayOutcome.CHANGED_ARCHIVE,
    ReplayOutcome.QUARANTINED,
)


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """This boot's decision and what came of it; `previous` is the incarnation before this one, or None; `seconds` since the claim.

    `safe_mode` is True as long as it lasts.
    """

    decision: BootDecision
    incarnation: Incarnation
    previous: Incarnation | None
    complete: bool
    seconds: float
    models: tuple[ModelRecovery, ...]
    safe_mode: bool = False


class ServerStatus:
    """Filled in by the server as the boot goes on; before the claim it only knows that the server lives."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._decision: BootDecision | None = None
        self._incarnation: Incarnation | None = None
        self._previous: Incarnation | None = None
        self._replay: Replay | None = None
        self._claimed = 0.0
        self._completed: float | None = None
        self._stopping = False
        self.safe_mode = False

    def claimed(self, incarnation: Incarnation, decision: BootDecision, previous: Incarnation | None) -> None:
        """The store is this life's."""
        self._incarnation, self._decision, self._previous = incarnation, decision, previous
        self.safe_mode = decision.safe_mode
        self._claimed = time.monotonic()

    def replaying(self, replay: Replay) -> None:
        """The plan is made and being carried out."""
        self._replay = replay

    def complete(self) -> None:
        """Every model of the plan has had its first outcome."""
        self._completed = time.monotonic()

    def resuming(self) -> None:
        """Safe mode is over: what it left out is being loaded."""
        self.safe_mode, self._completed = False, None
        self._claimed = time.monotonic()

    def stopping(self) -> None:
        """Not ready any more."""
        self._stopping = True

    @property
    def recovered_in(self) -> float:
        """Seconds from the claim to the last first outcome, or until now."""
        return (self._completed if self._completed is not None else time.monotonic()) - self._claimed

    def recovery(self) -> RecoveryReport:
        """The boot's story so far."""
        assert self._decision is not None  # the ports open after the claim
        assert self._incarnation is not None
        models = tuple(self._replay.report) if self._replay is not None else ()
        return RecoveryReport(
            self._decision,
            self._incarnation,
            self._previous,
            self._completed is not None,
            round(self.recovered_in, 3),
            models,
            self.safe_mode,
        )

    def readiness(self) -> Readiness:
        """Ready once each model of the plan has had its first outcome; failed ones degrade, they do not unready."""
        store = self._store.health
        degraded = self._degraded()
        if self._stopping:
            return Readiness(False, "stopping", degraded, store.value)
        if self._completed is None:
            return Readiness(False, "recovering", degraded, store.value)
        if self.safe_mode:
            reason = "safe mode: several boots in a row crashed; `mms recovery resume` loads the models"
            return Readiness(False, reason, degraded, store.value)
        if store is StoreHealth.FENCED:
            return Readiness(False, "another server has taken the store", degraded, store.value)
        return Readiness(True, "degraded" if degraded else "ready", degraded, store.value)

    def _degraded(self) -> tuple[str, ...]:
        """Names of wanted models that are not in service now."""
        if self._replay is None:
            return ()
        return tuple(sorted({model.key.name for model in self._replay.report if self._is_down(model)}))

    def _is_down(self, model: ModelRecovery) -> bool:
        if model.outcome not in _FAILED:
            return False
        served = self._registry.get(model.key.name)
        row = self._replay.row(model.key.name) if self._replay is not None else None
        if row is not None and not row.wanted:
            return False
        return served is None or (
            served.last_error != "" and row is not None and row.state is not RegistrationState.ACTIVE
        )

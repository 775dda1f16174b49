"""The boot's plan: the snapshot laid over the configured start-up models, in order; pure, no database, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mms.records import (
    BootDecision,
    BootFacts,
    Decision,
    ModelKey,
    Origin,
    Overrides,
    Registration,
    RegistrationState,
    ReplayOutcome,
    StartupModel,
)
from mms.recovery.suspicion import Charge, suspect

__all__ = ["Charge", "NamedStartupModel", "Plan", "PlanItem", "SAFE_MODE", "make_plan"]

SAFE_MODE = "safe mode"


@dataclass(frozen=True, slots=True)
class NamedStartupModel:
    """A configured start-up model with its name found out (from the configuration, the archive's manifest or its file name).

    `sha256` is today's digest of its archive, empty where it is not known; `error` says why the archive cannot be opened.
    """

    name: str
    model: StartupModel
    version: str = ""
    error: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class PlanItem:
    """One model of the plan. `outcome` PENDING means: activate it; any other is final and `error` says why.

    `registration` is the stored row behind it, None for a start-up model that the operator never touched. `url` and
    `overrides` say what to load. `wave` 0 loads first, in parallel; higher waves (suspects) load one at a time after it.
    A SHADOWED item has the name of another item, the one that is used.
    """

    key: ModelKey
    origin: Origin
    url: str
    overrides: Overrides = field(default_factory=dict)
    registration: Registration | None = None
    startup: bool = False
    wave: int = 0
    outcome: ReplayOutcome = ReplayOutcome.PENDING
    error: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the boot brings up, busiest first, and what it charges before it begins; `notes` are sentences for the log."""

    items: tuple[PlanItem, ...]
    charges: tuple[Charge, ...] = ()
    notes: tuple[str, ...] = ()


def make_plan(
    decision: BootDecision,
    facts: BootFacts,
    snapshot: Sequence[Registration],
    startup: Sequence[NamedStartupModel],
    *,
    quarantine_after: int = 3,
) -> Plan:
    """Merge what the operator told (snapshot) with what is configured (startup), by the rules of replay.

    Every stored row and every configured model appears in the plan exactly once, loaded or not. Only a replay looks at
    the snapshot: any other boot has begun a new generation, which holds none.
    """
    rows = sorted(snapshot, key=lambda row: row.seq) if decision.decision is Decision.REPLAY else []
    names = [model.name for model in startup]
    items = [_configured(model, rows, repeated=model.name in names[:i]) for i, model in enumerate(startup)]
    laid_over = {item.registration.key for item in items if item.registration is not None}
    last_words = {row.key.name: row for row in rows}
    items += [_stored(row, last_words[row.key.name]) for row in rows if row.key not in laid_over]

    suspicion = suspect(
        [_loading(item) for item in items if item.outcome is ReplayOutcome.PENDING],
        facts,
        charging=decision.decision is Decision.REPLAY,
        quarantine_after=quarantine_after,
    )
    items = [_quarantine(item, suspicion.charges) for item in items]
    ordered = _in_waves(_busiest_first(items), suspicion.alone)
    if decision.safe_mode:
        ordered = [_skip(item, SAFE_MODE) if item.outcome is ReplayOutcome.PENDING else item for item in ordered]
    return Plan(tuple(ordered), suspicion.charges, (*suspicion.notes, *_notes(ordered)))


def _configured(model: NamedStartupModel, rows: Sequence[Registration], *, repeated: bool) -> PlanItem:
    """A configured model, with what the operator said about its name on top."""
    item = PlanItem(
        ModelKey(model.name, model.version), Origin.MANIFEST, model.model.url, startup=True, sha256=model.sha256
    )
    if repeated:
        return replace(item, outcome=ReplayOutcome.FAILED, error=f"Model {model.name} is already registered.")
    about = [row for row in rows if row.key.name == model.name]
    if about and about[-1].wanted and about[-1].origin is Origin.API:
        error = "the registration made through the API is used instead of the configured model"
        return replace(item, outcome=ReplayOutcome.SHADOWED, error=error)
    if about:
        row = about[-1]  # the operator's last word on this name
        item = replace(item, key=row.key, registration=row, overrides=row.overrides)
        if not row.wanted:
            return _skip(item, _unregistered(row))
        if _quarantined(row, model.sha256):
            return replace(item, outcome=ReplayOutcome.QUARANTINED, error=row.last_error)
    if model.error:
        return replace(item, outcome=ReplayOutcome.FAILED, error=model.error)
    return item


def _stored(row: Registration, last: Registration) -> PlanItem:
    """A stored row that lies over no configured model; `last` is the last word on its name, maybe of another version."""
    item = PlanItem(row.key, row.origin, row.url, row.overrides, registration=row, sha256=row.sha256)
    if not row.wanted:
        return _skip(item, _unregistered(row))
    if row is not last:
        return _skip(item, f"superseded by journal entry {last.seq} about version {last.key.version or '(none)'}")
    if row.origin is Origin.MANIFEST:
        return _skip(item, "no longer among the configured start-up models; its stored overrides are kept")
    if _quarantined(row, row.sha256):
        return replace(item, outcome=ReplayOutcome.QUARANTINED, error=row.last_error)
    return item


def _unregistered(row: Registration) -> str:
    return f"unregistered by the operator (journal entry {row.seq})"


def _quarantined(row: Registration, sha256: str) -> bool:
    """A quarantine holds for the digest that earned it: a new archive is tried again."""
    new_archive = bool(sha256 and row.sha256 and sha256 != row.sha256)
    return row.state is RegistrationState.QUARANTINED and not new_archive


def _loading(item: PlanItem) -> tuple[ModelKey, str, Registration | None]:
    return item.key, item.sha256, item.registration


def _skip(item: PlanItem, error: str) -> PlanItem:
    return replace(item, outcome=ReplayOutcome.SKIPPED, error=error)


def _quarantine(item: PlanItem, charges: Sequence[Charge]) -> PlanItem:
    for charge in charges:
        if charge.quarantine and charge.key == item.key and item.outcome is ReplayOutcome.PENDING:
            return replace(item, outcome=ReplayOutcome.QUARANTINED, error=charge.error)
    return item


def _busiest_first(items: Iterable[PlanItem]) -> list[PlanItem]:
    """By requests seen, most first; among equals the configured ones in their order, then the others by journal number."""
    numbered = list(enumerate(items))
    numbered.sort(key=lambda pair: (-(pair[1].registration.requests_seen if pair[1].registration else 0), pair[0]))
    return [item for _, item in numbered]


def _in_waves(items: Sequence[PlanItem], alone: Mapping[ModelKey, int]) -> list[PlanItem]:
    """Those that may have killed a server load one at a time after all others, the most suspected last."""
    waiting = [item for item in items if item.outcome is ReplayOutcome.PENDING and item.key in alone]
    waiting.sort(key=lambda item: alone[item.key])
    rest = [item for item in items if item not in waiting]
    return rest + [replace(item, wave=wave) for wave, item in enumerate(waiting, start=1)]


def _notes(items: Iterable[PlanItem]) -> list[str]:
    told = (ReplayOutcome.SHADOWED, ReplayOutcome.QUARANTINED, ReplayOutcome.FAILED)
    return [
        f"Model {item.key.name} is not loaded ({item.outcome.value}): {item.error}"
        for item in items
        if item.outcome in told or (item.outcome is ReplayOutcome.SKIPPED and item.error != SAFE_MODE)
    ]

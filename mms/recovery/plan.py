"""The boot's plan: the snapshot laid over the configured start-up models, in order; pure, no database, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mms.records import (
    BootDecision,
    BootFacts,
    ModelKey,
    Origin,
    Overrides,
    Registration,
    ReplayOutcome,
    StartupModel,
)


@dataclass(frozen=True, slots=True)
class NamedStartupModel:
    """A configured start-up model with its name found out (from the configuration, the archive's manifest or its file name)."""

    name: str
    model: StartupModel
    version: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class PlanItem:
    """One model of the plan. `outcome` PENDING means: activate it; any other is final and `error` says why.

    `registration` is the stored row behind it, None for a start-up model that the operator never touched. `url` and
    `overrides` say what to load. `wave` 0 loads first, in parallel; higher waves (suspects) load one at a time after it.
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


@dataclass(frozen=True, slots=True)
class Charge:
    """A model charged with the death of an earlier server; `quarantine` is True where that reached `quarantine_after`."""

    key: ModelKey
    sha256: str
    quarantine: bool
    error: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What the boot brings up, busiest first, and what it charges before it begins."""

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
    """Merge what the operator told (snapshot) with what is configured (startup), by the rules of replay."""
    raise NotImplementedError

"""The boot decision: facts and options in, decision and reason out; pure, no database, no clock."""

from __future__ import annotations

from mms.records import BootDecision, BootFacts, BootOptions


def decide(facts: BootFacts, options: BootOptions) -> BootDecision:
    """The first row of the decision table that fits (docs/recovery.md shows the same table)."""
    raise NotImplementedError

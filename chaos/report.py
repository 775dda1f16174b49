"""What a run found, as a table for people and as JSON: every zero beside the number of trials that it stands on."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chaos.trial import Fault, Verdict, as_document


@dataclass(frozen=True, slots=True)
class Points:
    """Crash points of one scenario: how many system calls were hit, and what was wrong after them."""

    scenario: str
    points: int
    violations: tuple[str, ...] = ()


@dataclass(slots=True)
class Report:
    """Filled while the run goes on; may be written at any time."""

    seed: int
    verdicts: list[Verdict] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)
    points: list[Points] = field(default_factory=list)
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def held(self) -> bool:
        """Whether no trial found anything, and each was really run."""
        return all(verdict.held for verdict in self.verdicts) and not any(each.violations for each in self.points)

    def as_markdown(self, faults: Sequence[Fault]) -> str:
        """The tables."""
        minutes = (datetime.now(UTC) - self.began).total_seconds() / 60
        bad = sum(not verdict.held for verdict in self.verdicts)
        lines = [
            (
                f"Seed {self.seed}; {len(self.verdicts)} trials, {sum(each.points for each in self.points)} exact crash points, "
                f"{bad + sum(len(each.violations) for each in self.points)} violations; {minutes:.0f} minutes; "
                f"Python {platform.python_version()}, {platform.system()} {platform.release()}."
            ),
            "",
            "| fault | store | trials | changes acknowledged | of unknown outcome | violations |",
            "|---|---|---:|---:|---:|---:|",
            *self._rows(faults),
        ]
        if self.points:
            lines += ["", "| exact crash points: scenario | system calls hit | violations |", "|---|---:|---:|"]
            lines += [f"| {each.scenario} | {each.points} | {len(each.violations)} |" for each in self.points]
        if self.not_run:
            lines += ["", "Not run:", ""]
            lines += [f"- {name}: {why}" for name, why in sorted(self.not_run.items())]
        lines += ["", *self._findings()]
        return "\n".join(lines).rstrip() + "\n"

    def _rows(self, faults: Sequence[Fault]) -> list[str]:
        rows = []
        for fault in faults:
            for store in fault.stores:
                of_fault = [each for each in self.verdicts if (each.fault, each.store) == (fault.name, store)]
                if of_fault:
                    said = [sum(each.counts.get(name, 0) for each in of_fault) for name in ("ok", "unknown")]
                    bad = sum(not each.held for each in of_fault)
                    what = fault.what or fault.name
                    rows.append(f"| {what} | {store} | {len(of_fault)} | {said[0]} | {said[1]} | {bad} |")
        return rows

    def _findings(self) -> list[str]:
        lines = []
        for verdict in self.verdicts:
            if not verdict.held:
                kind = "VIOLATION" if verdict.violation else "ERROR OF THE HARNESS"
                text = (verdict.violation or verdict.error).strip()
                lines += [f"{kind} {verdict.fault} ({verdict.store}, trial {verdict.number}): {text}"]
                lines += [f"  evidence: {verdict.evidence}", ""]
        for each in self.points:
            lines += [f"VIOLATION crash points, {each.scenario}: {text}" for text in each.violations]
        return lines

    def as_document(self) -> dict[str, Any]:
        """The same for machines."""
        return {
            "seed": self.seed,
            "began": self.began.isoformat(),
            "python": sys.version,
            "held": self.held,
            "trials": [as_document(verdict) for verdict in self.verdicts],
            "crashPoints": [
                {"scenario": each.scenario, "points": each.points, "violations": list(each.violations)}
                for each in self.points
            ],
            "notRun": self.not_run,
        }

    def write(self, folder: Path, faults: Sequence[Fault]) -> None:
        """Write chaos.md and chaos.json."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "chaos.md").write_text(self.as_markdown(faults))
        (folder / "chaos.json").write_text(json.dumps(self.as_document(), indent=1) + "\n")

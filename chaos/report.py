"""What a run found, as a table for people and as JSON: every zero beside the number of trials that it stands on."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from chaos import column
from chaos.results import ERROR, Results, outcome
from chaos.trial import Fault, Verdict, as_document


@dataclass(slots=True)
class Report:
    """Made from the results, whenever it is asked for."""

    results: Results
    not_run: dict[str, str] = field(default_factory=dict)

    def as_markdown(self, faults: Sequence[Fault]) -> str:
        """The tables."""
        results = self.results
        verdicts = [each for _, each in results.verdicts if not each.error]
        errors = len(results.verdicts) - len(verdicts)
        points = sum(each.points for _, each in results.points)
        bad = sum(bool(each.violation) for each in verdicts) + sum(len(each.violations) for _, each in results.points)
        hours = sum(each.seconds for each in verdicts) / 3600
        lines = [
            (
                f"Seed {results.seed}; {len(verdicts)} trials ({hours:.1f} hours of them), {points} exact crash points and "
                f"power cuts, {bad} violations; {errors} errors of the harness, not counted as trials. "
                f"Commits {', '.join(results.commits) or 'none'}; Python {platform.python_version()}, "
                f"{platform.system()} {platform.release()}."
            ),
            "",
            "| fault | store | trials | of | changes acknowledged | of unknown outcome | violations |",
            "|---|---|---:|---:|---:|---:|---:|",
            *self._rows(faults, verdicts),
        ]
        if figures := self._figures(faults, verdicts):
            lines += [
                "",
                "| measured | fault | store | times | median | largest |",
                "|---|---|---|---:|---:|---:|",
                *figures,
            ]
        if results.points:
            lines += ["", "| exact points | scenario | hit | violations |", "|---|---|---:|---:|"]
            lines += [
                f"| {each.what} | {each.scenario} | {each.points} | {len(each.violations)} |"
                for _, each in results.points
            ]
        if self.not_run:
            lines += ["", "Not run:", ""]
            lines += [f"- {name}: {why}" for name, why in sorted(self.not_run.items())]
        lines += ["", *self._findings()]
        return "\n".join(lines).rstrip() + "\n"

    def _rows(self, faults: Sequence[Fault], verdicts: Sequence[Verdict]) -> list[str]:
        """One for each fault and store; `of` is the number that a full run makes."""
        rows = []
        for fault in faults:
            for store in fault.stores:
                of_fault = [each for each in verdicts if (each.fault, each.store) == (fault.name, store)]
                if of_fault:
                    said = [sum(each.counts.get(name, 0) for each in of_fault) for name in ("ok", "unknown")]
                    bad = sum(not each.held for each in of_fault)
                    numbers = f"{len(of_fault)} | {column.trials(fault.name, store)}"
                    rows.append(f"| {fault.what or fault.name} | {store} | {numbers} | {said[0]} | {said[1]} | {bad} |")
        return rows

    def _figures(self, faults: Sequence[Fault], verdicts: Sequence[Verdict]) -> list[str]:
        """Milliseconds (`_ms`) and differences (`_more`) that trials measured, beside the numbers of calls."""
        rows = []
        for fault in faults:
            for store in fault.stores:
                of_fault = [each.counts for each in verdicts if (each.fault, each.store) == (fault.name, store)]
                names = dict.fromkeys(name for counts in of_fault for name in counts if name.endswith(("_ms", "_more")))
                for name in names:
                    values = [counts[name] for counts in of_fault if name in counts]
                    what = f"| {name} | {fault.what} | {store} | {len(values)} "
                    rows.append(f"{what}| {median(values):.0f} | {max(values)} |")
        return rows

    def _findings(self) -> list[str]:
        lines = []
        for commit, verdict in self.results.verdicts:
            if not verdict.held:
                kind = "ERROR OF THE HARNESS" if outcome(verdict) == ERROR else "VIOLATION"
                text = (verdict.violation or verdict.error).strip()
                lines += [f"{kind} {verdict.fault} ({verdict.store}, trial {verdict.number}, {commit}): {text}"]
                lines += [f"  evidence: {verdict.evidence}", ""]
        for commit, each in self.results.points:
            lines += [f"VIOLATION {each.what}, {each.scenario} ({commit}): {text}" for text in each.violations]
        return lines

    def as_document(self) -> dict[str, Any]:
        """The same for machines."""
        return {
            "seed": self.results.seed,
            "python": sys.version,
            "held": self.results.held,
            "trials": [
                {**as_document(verdict), "outcome": outcome(verdict), "commit": commit}
                for commit, verdict in self.results.verdicts
            ],
            "crashPoints": [{**asdict(each), "commit": commit} for commit, each in self.results.points],
            "notRun": self.not_run,
        }

    def write(self, folder: Path, faults: Sequence[Fault]) -> None:
        """Write chaos.md and chaos.json."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "chaos.md").write_text(self.as_markdown(faults))
        (folder / "chaos.json").write_text(json.dumps(self.as_document(), indent=1) + "\n")

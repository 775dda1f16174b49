"""A campaign's file of results: one line of JSON for each trial, so that a run that was cut off goes on, and a report adds up."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chaos.plan import Key
from chaos.trial import Verdict

HELD, BROKEN, ERROR = "held", "broken", "error"


@dataclass(frozen=True, slots=True)
class Points:
    """Crash points of one scenario: how many were hit, and what was wrong after them. `what` is the kind of crash."""

    what: str
    scenario: str
    points: int
    violations: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(slots=True)
class Results:
    """All verdicts so far, in memory and, where there is a file, in it. Lines are only ever added."""

    seed: int
    file: Path | None = None
    verdicts: list[tuple[str, Verdict]] = field(default_factory=list)  # with the commit that each ran on
    points: list[tuple[str, Points]] = field(default_factory=list)

    @classmethod
    def of(cls, file: Path | None, seed: int) -> Results:
        """What a file holds already, or nothing. The seed of a campaign is that of its first line."""
        results = cls(seed, file)
        if file is None or not file.exists():
            return results
        lines = file.read_text().splitlines(keepends=True)
        for line in lines:
            if not line.endswith("\n"):
                file.write_text("".join(lines[:-1]))  # the line that the cut-off run was writing
                break
            results._take(json.loads(line))
        return results

    def _take(self, line: dict[str, Any]) -> None:
        commit = line.pop("commit")
        if "scenario" in line:
            self.points.append((commit, Points(**{**line, "violations": tuple(line["violations"])})))
            return
        line.pop("outcome")
        verdict = Verdict(**line)
        if not self.verdicts:
            self.seed = verdict.seed
        self.verdicts.append((commit, verdict))

    def add(self, verdict: Verdict, commit: str) -> None:
        """One more trial."""
        self.verdicts.append((commit, verdict))
        self._write({**asdict(verdict), "outcome": outcome(verdict), "commit": commit})

    def add_points(self, found: Points, commit: str) -> None:
        """The crash points of one more scenario."""
        self.points.append((commit, found))
        self._write({**asdict(found), "commit": commit})

    def _write(self, line: Mapping[str, Any]) -> None:
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    @property
    def done(self) -> set[Key]:
        """The trials that need not be run again: those of which the harness itself failed do."""
        return {(each.fault, each.store, each.number) for _, each in self.verdicts if not each.error}

    def walked(self, what: str, scenario: str) -> bool:
        """Whether these crash points were all hit already."""
        return any((each.what, each.scenario) == (what, scenario) for _, each in self.points)

    @property
    def commits(self) -> Sequence[str]:
        """The commits that were attacked, in the order of their first trial."""
        return list(dict.fromkeys(commit for commit, _ in [*self.verdicts, *self.points]))

    @property
    def held(self) -> bool:
        """Whether nothing broke, and the harness failed in no trial that was not repeated well."""
        failed = {(each.fault, each.store, each.number) for _, each in self.verdicts if each.error}
        broken = any(each.violation for _, each in self.verdicts) or any(each.violations for _, each in self.points)
        return not broken and failed <= self.done


def outcome(verdict: Verdict) -> str:
    """One word for a verdict."""
    return BROKEN if verdict.violation else ERROR if verdict.error else HELD


def commit_under_test(folder: Path) -> str:
    """The short name of the checkout's commit, with `-dirty` where files were changed; `unknown` outside of git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"

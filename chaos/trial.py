"""One attack and its verdict: what a fault gets to work with, and how its trials are run one after the other with seeds."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.database import Databases
from chaos.history import History
from chaos.leaks import reap_orphans
from chaos.site import Site
from chaos.story import Story
from chaos.violation import Violation

SQLITE, POSTGRES = "sqlite", "postgres"


@dataclass(slots=True)
class Trial:
    """One attack under way. `environment` is added to every server's."""

    number: int
    seed: int
    store: str
    folder: Path
    databases: Databases
    environment: Mapping[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _histories: list[History] = field(default_factory=list)

    @property
    def rng(self) -> random.Random:
        """A generator of this trial's own; the same one for the same seed."""
        return random.Random(f"{self.seed}/{self.number}")

    @contextmanager
    def story(
        self, *, store_url: str | None = None, config: Mapping[str, object] | None = None, **environment: str
    ) -> Iterator[Story]:
        """A server in the trial's folder, on a store of its own, not yet started."""
        url = store_url if store_url is not None else self.databases.fresh(self.store)
        folder = self.folder / "server"
        site = Site(folder, store_url=url, config=config, environment={**self.environment, **environment})
        history = History(self.folder / "history.jsonl")
        self._histories.append(history)
        with site:
            story = Story(site, history, self.seed)
            try:
                yield story
                story.rest()
            finally:
                story.abandon()
                self.counts = history.counts()
                history.close()
                self.databases.keep(url, self.folder)


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of attack: one trial is `run(trial)`, which raises Violation where the promise was broken.

    `quick` and `full` are numbers of trials for each store; `missing` says what this machine lacks for it, or nothing.
    """

    name: str
    run: Callable[[Trial], None]
    quick: int
    full: int
    stores: tuple[str, ...] = (SQLITE, POSTGRES)
    missing: Callable[[], str] = lambda: ""
    what: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a trial. `violation` is empty where the promise held; `error` is a failure of the harness itself."""

    fault: str
    store: str
    number: int
    seed: int
    seconds: float
    violation: str = ""
    error: str = ""
    evidence: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        """Whether nothing is wrong."""
        return not self.violation and not self.error


def run_trial(
    fault: Fault,
    store: str,
    number: int,
    seed: int,
    databases: Databases,
    evidence: Path,
    environment: Mapping[str, str] | None = None,
    command: str = "",
) -> Verdict:
    """Run one trial in a folder of its own; the folder is kept, with the command that repeats it, where the promise broke."""
    folder = Path(tempfile.mkdtemp(prefix="mms-chaos-"))
    trial = Trial(number, seed, store, folder, databases, environment or {})
    began = time.monotonic()
    violation = error = ""
    try:
        fault.run(trial)
    except Violation as broken:
        violation = str(broken)
    except Exception:
        error = traceback.format_exc()
    except BaseException:  # told to stop
        shutil.rmtree(folder, ignore_errors=True)
        raise
    seconds = time.monotonic() - began
    kept = ""
    if violation or error:
        kept = str(_keep(folder, evidence, fault, trial, command, violation or error))
    shutil.rmtree(folder, ignore_errors=True)
    reap_orphans()
    return Verdict(fault.name, store, number, seed, round(seconds, 2), violation, error, kept, trial.counts)


def _keep(folder: Path, evidence: Path, fault: Fault, trial: Trial, command: str, what: str) -> Path:
    """Database, witness, history, log and the command to repeat it, in a folder that the next run does not touch."""
    target = evidence / f"{fault.name}-{trial.store}-{trial.seed}-{trial.number}"
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, target, symlinks=True, ignore=_no_specials)
    (target / "violation.txt").write_text(f"{what}\n\nTo repeat it:\n{command}\n")
    return target


def _no_specials(folder: str, names: list[str]) -> list[str]:
    return [
        name for name in names if not ((path := Path(folder) / name).is_file() or path.is_dir() or path.is_symlink())
    ]


def as_document(verdict: Verdict) -> dict[str, Any]:
    """A verdict for the JSON report."""
    return {name: getattr(verdict, name) for name in Verdict.__dataclass_fields__} | {"counts": dict(verdict.counts)}

"""One attack and its verdict: what a fault gets to work with, and how its trials are run with seeds and deadlines.

A trial is one attack with a full check after it. Several trials of a fault may share one server's history, one after the
other ("rounds"): that spares the setting-up, and gives longer histories.
"""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from chaos.column import POSTGRES, SQLITE
from chaos.database import Databases
from chaos.history import History
from chaos.leaks import reap_orphans
from chaos.site import Site
from chaos.story import Story
from chaos.violation import Violation

LONGEST = 600
"""Seconds that one trial may take; past them it is an error of the harness."""


@dataclass(slots=True)
class Trial:
    """Attacks number `first` to `first + count - 1` under way. `environment` is added to every server's.

    `figures` are what the attack under way has measured; they go into its counts.
    """

    fault: str
    store: str
    first: int
    count: int
    seed: int
    folder: Path
    databases: Databases
    environment: Mapping[str, str] = field(default_factory=dict)
    figures: dict[str, int] = field(default_factory=dict)
    held: list[tuple[float, Mapping[str, int]]] = field(default_factory=list)
    _histories: list[History] = field(default_factory=list)
    _before: Counter[str] = field(default_factory=Counter)
    _began: float = field(default_factory=time.monotonic)

    @property
    def number(self) -> int:
        """Of the attack under way; of the last one where all have held."""
        return self.first + min(len(self.held), self.count - 1)

    @property
    def rng(self) -> random.Random:
        """A generator of this attack's own; the same one for the same seed and number."""
        return random.Random(f"{self._seeded}/{self.number}")

    @property
    def _seeded(self) -> str:
        return f"{self.seed}/{self.fault}/{self.store}"

    def rounds(self) -> Iterator[random.Random]:
        """Go through all attacks in one history; each is held once the loop's body has ended well."""
        for _ in range(self.count):
            signal.alarm(LONGEST)
            yield self.rng
            self.hold()

    def hold(self) -> None:
        """The attack under way is over, and all was right."""
        self.held.append(self.spent())

    def spent(self) -> tuple[float, Mapping[str, int]]:
        """Seconds and numbers of calls since the end of the attack before."""
        counts = Counter[str]()
        for history in self._histories:
            counts.update(history.counts())
        now = time.monotonic()
        since = (round(now - self._began, 2), {**(counts - self._before), **self.figures})
        self.figures.clear()
        self._began, self._before = now, counts
        return since

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
            story = Story(site, history, f"{self._seeded}/{self.first}")
            try:
                yield story
                story.rest()
            finally:
                story.abandon()
                history.close()
                self.databases.keep(url, self.folder)


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of attack: `run(trial)` raises Violation where the promise was broken.

    `quick` is the number of trials of a quick run, `rounds` the most trials that share a history; chaos/column.py has the
    numbers of a full run. `missing` says what this machine lacks for it, or nothing.
    """

    name: str
    run: Callable[[Trial], None]
    quick: int
    rounds: int = 1
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


def run_trials(
    fault: Fault,
    store: str,
    first: int,
    count: int,
    seed: int,
    databases: Databases,
    evidence: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Verdict]:
    """Run `count` trials in one history, in a folder of its own; ends with the first that is not held.

    The folder is kept, with the command that repeats it, where the promise broke.
    """
    folder = Path(tempfile.mkdtemp(prefix="mms-chaos-"))
    trial = Trial(fault.name, store, first, count, seed, folder, databases, environment or {})
    violation = error = ""
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LONGEST)
    try:
        fault.run(trial)
        if not trial.held:
            trial.hold()
        if len(trial.held) != count:
            raise RuntimeError(f"{len(trial.held)} of {count} trials were made")
    except Violation as broken:
        violation = str(broken)
    except Exception:
        error = traceback.format_exc()
    except BaseException:  # told to stop
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    for index, (seconds, counts) in enumerate(trial.held[: count - 1 if violation or error else count]):
        yield Verdict(fault.name, store, first + index, seed, seconds, counts=counts)
    if violation or error:
        seconds, counts = trial.spent()
        kept = str(_keep(folder, evidence, fault, trial, violation or error))
        yield Verdict(fault.name, store, trial.number, seed, seconds, violation, error, kept, counts)
    shutil.rmtree(folder, ignore_errors=True)
    reap_orphans()


class Overdue(Exception):
    """A trial that does not end; no OSError, which the code of a trial may look away from."""


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise Overdue(f"the trial took more than {LONGEST} s")


def _keep(folder: Path, evidence: Path, fault: Fault, trial: Trial, what: str) -> Path:
    """Database, witness, history, log and the command to repeat it, in a folder that the next run does not touch."""
    target = evidence / f"{fault.name}-{trial.store}-{trial.seed}-{trial.number}"
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, target, symlinks=True, ignore=_no_specials)
    command = (
        f"scripts/chaos --seed {trial.seed} --faults {fault.name} --store {trial.store} --first {trial.first} "
        f"--trials {trial.number - trial.first + 1} --no-crash-points"
    )
    (target / "violation.txt").write_text(f"{what}\n\nTo repeat it:\n{command}\n")
    return target


def _no_specials(folder: str, names: list[str]) -> list[str]:
    return [
        name for name in names if not ((path := Path(folder) / name).is_file() or path.is_dir() or path.is_symlink())
    ]


def as_document(verdict: Verdict) -> dict[str, Any]:
    """A verdict for machines."""
    return {name: getattr(verdict, name) for name in Verdict.__dataclass_fields__} | {"counts": dict(verdict.counts)}

"""Proof that the attacks can fail: copies of the server with one promise broken each, and the trials that must catch them."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos import block_cuts, crash_points, power_cuts
from chaos.catalogue import BY_NAME
from chaos.column import POSTGRES, SQLITE
from chaos.database import Databases
from chaos.site import package_folder
from chaos.trial import run_trials

POINTS = 40
"""Crash points of each scenario that a mutation is given to be caught by."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One text of one file, and what stands there in the broken copy; it must occur just once."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutation:
    """A broken variant. `trials` are (fault, store, most trials) to catch it; `points` are scenarios of exact crash points."""

    name: str
    edits: tuple[Edit, ...]
    trials: tuple[tuple[str, str, int], ...] = ()
    points: tuple[str, ...] = ()
    power_cut: bool = False


MUTATIONS = (
    Mutation(
        "acknowledge-before-commit",
        (
            Edit(
                "store/database.py",
                'connection = sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, isolation_level=None)',
                "class Lazy(sqlite3.Connection):\n"
                "        commits = 0\n"
                "        def commit(self) -> None:\n"
                "            self.commits += 1\n"
                "            if self.commits % 6 == 0:\n"
                "                super().commit()\n"
                "        def begin(self) -> None:\n"
                "            if not self.in_transaction:\n"
                "                self.execute('BEGIN IMMEDIATE')\n"
                "        def rollback(self) -> None:\n"
                "            pass\n"
                "        def close(self) -> None:\n"
                "            super().commit()\n"
                "            super().close()\n"
                '    connection = sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, isolation_level=None, factory=Lazy)',
            ),
            Edit(
                "store/database.py",
                'connection.exec_driver_sql("BEGIN" if mode() == "ro" else "BEGIN IMMEDIATE")',
                "connection.connection.dbapi_connection.begin()",
            ),
        ),
        trials=(("kill", SQLITE, 4),),
        points=("replay",),
    ),
    Mutation(
        "no-witness",
        (
            Edit(
                "store/witness.py",
                '        """Make the mark durable; call it only after the store\'s own commit. Raises OSError."""\n',
                '        """Does nothing."""\n        return\n',
            ),
        ),
        trials=(("damage-old-copy", SQLITE, 3), ("damage-delete", SQLITE, 4)),
    ),
    Mutation(
        "no-epoch-check",
        (
            Edit("store/meta.py", "    if found.epoch > known.epoch:\n", "    if False:\n"),
            Edit(
                "store/meta.py",
                ".where(store_meta.c.server_id == server_id, store_meta.c.epoch == epoch)",
                ".where(store_meta.c.server_id == server_id)",
            ),
            Edit("store/writer.py", "        elif found != known:\n", "        elif False:\n"),
        ),
        trials=(("lock-lost", SQLITE, 2), ("lock-lost", POSTGRES, 2)),
    ),
    Mutation(
        "clean-mark-during-boot",
        (
            Edit(
                "life.py",
                "            await self._store.interrupt_boot(reason)\n",
                "            for state in (IncarnationState.RUNNING, IncarnationState.STOPPING, IncarnationState.CLEAN):\n"
                "                await self._store.advance(state, reason)\n",
            ),
        ),
        trials=(("stop-in-boot", SQLITE, 2),),
    ),
    Mutation(
        "synchronous-off",
        (Edit("store/database.py", '"PRAGMA synchronous = FULL"', '"PRAGMA synchronous = OFF"'),),
        power_cut=True,
    ),
    Mutation(
        "attempt-counted-after-the-load",
        (
            Edit(
                "attempts.py",
                "        await self.open(key, sha256)\n        try:\n            yield\n"
                "        finally:\n            await self.close(key)",
                "        yield\n        await self.open(key, sha256)\n        await self.close(key)",
            ),
        ),
        trials=(("poison-kills-parent", SQLITE, 2),),
    ),
    Mutation(
        "neighbours-fail-together",
        (
            Edit(
                "workers/handler.py",
                "                return None, _NO_METRICS\n",
                '                return [PredictionFailed("Prediction failed")] * count, _NO_METRICS\n',
            ),
        ),
        trials=(("neighbours", SQLITE, 2),),
    ),
)


def broken_copy(mutation: Mutation, folder: Path) -> Path:
    """A folder to put before the installed package on the path. Raises ValueError where a text is no longer in the code."""
    source = package_folder()
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source / "mms", folder / "mms", ignore=ignore)
    shutil.copytree(source / "migrations", folder / "migrations", ignore=ignore)
    for edit in mutation.edits:
        path = folder / "mms" / edit.file
        text = path.read_text()
        if text.count(edit.old) != 1:
            raise ValueError(f"mutation {mutation.name}: {edit.file} holds its text {text.count(edit.old)} times")
        path.write_text(text.replace(edit.old, edit.new))
    return folder


def prove(seed: int, evidence: Path, only: str, out: Path | None) -> int:
    """Run each mutation until something catches it; print which trial did. Returns 0 where each was caught."""
    wanted = [mutation for mutation in MUTATIONS if not only or mutation.name in only.split(",")]
    databases = Databases()
    rows: list[dict[str, str]] = []
    try:
        for mutation in wanted:
            folder = Path(tempfile.mkdtemp(prefix="mms-mutant-"))
            try:
                environment = {"PYTHONPATH": str(broken_copy(mutation, folder))}
                rows.append(_hunt(mutation, environment, seed, evidence / "mutations", databases))
            finally:
                shutil.rmtree(folder)
            print(f"{rows[-1]['mutation']:32} {rows[-1]['caught by']}\n    {rows[-1]['how']}", flush=True)
    finally:
        databases.close()
    print("\n" + as_markdown(rows))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "mutations.md").write_text(as_markdown(rows))
        (out / "mutations.json").write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(row["caught by"] != MISSED for row in rows) else 1


MISSED = "NOT CAUGHT"


def as_markdown(rows: Sequence[dict[str, str]]) -> str:
    """One line a mutation."""
    lines = ["| broken variant | caught by | how |", "|---|---|---|"]
    lines += [f"| {row['mutation']} | {row['caught by']} | {row['how'].replace('|', '/')} |" for row in rows]
    return "\n".join(lines) + "\n"


def _hunt(
    mutation: Mutation, environment: dict[str, str], seed: int, evidence: Path, databases: Databases
) -> dict[str, str]:
    caught: list[str] = []
    how = ""
    attempts: list[Callable[[], tuple[str, str]]] = []
    for name, store, most in mutation.trials:
        attempts.append(lambda n=name, s=store, m=most: _by_trials(n, s, m, environment, seed, evidence, databases))  # type: ignore[misc]
    for scenario in mutation.points:
        attempts.append(lambda s=scenario: _by_points(s, environment, seed))  # type: ignore[misc]
    if mutation.power_cut:
        attempts.append(lambda: _by_power_cuts(environment))
    for attempt in attempts:
        by, found = attempt()
        if by:
            caught.append(by)
            how = how or found
    return {"mutation": mutation.name, "caught by": ", ".join(caught) or MISSED, "how": how[:300]}


def _by_trials(
    name: str, store: str, most: int, environment: dict[str, str], seed: int, evidence: Path, databases: Databases
) -> tuple[str, str]:
    for number in range(1, most + 1):
        (verdict,) = run_trials(BY_NAME[name], store, number, 1, seed, databases, evidence, environment)
        if verdict.error:
            raise RuntimeError(verdict.error)
        if verdict.violation:
            return f"{name} on {store} (trial {number})", _one_line(verdict.violation)
    return "", ""


def _by_points(scenario: str, environment: dict[str, str], seed: int) -> tuple[str, str]:
    if crash_points.missing():
        return "", ""
    found = crash_points.walk(scenario, random.Random(seed), POINTS, environment)
    return (f"crash points of {scenario}", _one_line(found.violations[0])) if found.violations else ("", "")


def _by_power_cuts(environment: dict[str, str]) -> tuple[str, str]:
    if power_cuts.missing():
        return "", "a power cut is needed to show it: " + power_cuts.missing()
    found = power_cuts.cut("replay", environment)
    by = [found.what] if found.violations else []
    if not block_cuts.missing():
        of_disk = block_cuts.cut("replay", "mutation", POINTS, environment)
        by += [of_disk.what] if of_disk.violations else []
    return ", ".join(by), _one_line(found.violations[0]) if found.violations else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())

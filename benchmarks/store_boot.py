"""Measures the store alone: claim and decision with many stored rows, and what a long journal costs a boot and a change.

Run as a program, it fills a store: `store_boot.py fill FOLDER ROWS ENTRIES`, or claims it once: `store_boot.py claim FOLDER`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from statistics import median
from urllib.parse import urlencode
from uuid import uuid4

from benchmarks.contenders import Ours, Running, clean_environment
from benchmarks.workloads import Material
from mms.records import (
    BootOptions,
    ChangeOutcome,
    JournalEntry,
    ModelKey,
    Operation,
    Origin,
    ProcessIdentity,
    RecoveryMode,
    Registration,
    RegistrationState,
)
from mms.recovery.decision import decide
from mms.store import journal, snapshot
from mms.store.database import Transaction
from mms.store.meta import Meta, counted
from mms.store.opening import open_once
from mms.store.packing import pack_oldest
from mms.store.store import Store, StoreConfig
from mms.store.writer import Answer, Writer

Progress = Callable[[str], None]

_SERVER_ID = "default"
_WHO = ProcessIdentity(host="bench", boot_id="bench", pid=1, start_ticks=1, version="0")
_OPTIONS = BootOptions(False, False, RecoveryMode.AUTO)
_CHUNK = 1000
_GONE = 20  # models of a long journal of which none is left


@dataclass(frozen=True)
class JournalCost:
    """Seconds, each with a journal of `entries` and with an empty one."""

    entries: int
    boot: float
    empty_boot: float
    change: float
    empty_change: float


def _config(folder: Path) -> StoreConfig:
    data = folder / "mms-data"
    data.mkdir(parents=True, exist_ok=True)
    return StoreConfig(url=f"sqlite:///{data / 'store.db'}", server_id=_SERVER_ID, data_dir=data)


def fill(folder: Path, rows: int, entries: int) -> None:
    """A store that crashed, with so many registrations and so many journal entries, all of them done and the older ones packed."""
    config = _config(folder)
    opened = open_once(config)
    writer = Writer(_SERVER_ID, opened)
    try:
        writer.claim(partial(decide, options=_OPTIONS), _WHO, ())
        names = [f"stored{number:05d}" for number in range(rows or _GONE)]
        for start in range(0, entries, _CHUNK):
            writer.durable(partial(_write, names, rows > 0, min(_CHUNK, entries - start)))
            while writer.durable(partial(_pack, config)):
                pass
    finally:
        writer.close()


def _write(names: list[str], wanted: bool, count: int, tx: Transaction, found: Meta) -> tuple[None, Meta]:
    """Updates in turn, as many as asked for; names that are not wanted end as tombstones, of which nothing is loaded."""
    at = datetime.now(UTC)
    seq = found.last_seq
    state = RegistrationState.ACTIVE if wanted else RegistrationState.UNREGISTERED
    for number in range(seq + 1, seq + count + 1):
        name = names[number % len(names)]
        row = Registration(
            key=ModelKey(name),
            origin=Origin.API,
            state=state,
            url="noop",
            overrides={"batch_size": 8, "min_workers": 0, "max_workers": 0},
            generation=found.generation,
            revision=number,
            seq=number,
            created_at=at,
            updated_at=at,
        )
        operation = Operation.UPDATE if wanted else Operation.UNREGISTER
        entry = JournalEntry(
            seq=number,
            epoch=found.epoch,
            generation=found.generation,
            at=at,
            actor="bench",
            request_id=uuid4().hex,
            idempotency_key=uuid4().hex,
            request_digest=sha256(str(number).encode()).hexdigest(),
            operation=operation,
            key=row.key,
            after=row,
            outcome=ChangeOutcome.DONE,
            response={"status": "updated"},
        )
        journal.append(tx, _SERVER_ID, entry, replace(row, revision=number - 1))
        if number > seq + count - len(names):
            snapshot.put(tx, _SERVER_ID, row)
    return None, counted(found, last_seq=seq + count, entries=(found.entries or 0) + count)


def _pack(config: StoreConfig, tx: Transaction, found: Meta) -> tuple[bool, Meta]:
    """As the server does it while it runs; False where there is nothing left to pack."""
    too_few = pack_oldest(tx, _SERVER_ID, found.last_seq, loose=config.journal_loose, size=config.journal_segment)
    if too_few:
        raise Answer(False)
    return True, counted(found)


async def claim(folder: Path) -> dict[str, float]:
    """Open, claim, decide and read the snapshot, as a boot does; seconds of each."""
    began = time.perf_counter()
    store = await Store.open(_config(folder))
    opened = time.perf_counter()
    await store.claim(partial(decide, options=_OPTIONS), _WHO, ())
    claimed = time.perf_counter()
    rows = await store.snapshot()
    read = time.perf_counter()
    await store.close()
    return {"open": opened - began, "claim": claimed - opened, "snapshot": read - claimed, "rows": len(rows)}


def claim_times(folder: Path, rows: int, rounds: int, progress: Progress) -> dict[str, float]:
    """Medians over several claims of one store, each in a process of its own."""
    _program("fill", folder, str(rows), str(rows))
    found = [json.loads(_program("claim", folder)) for _ in range(rounds)]
    medians = {name: median(one[name] for one in found) for name in found[0]}
    progress(f"claim with {rows} stored rows: " + ", ".join(f"{k} {v:.3f}" for k, v in medians.items()))
    return medians


def journal_cost(folder: Path, material: Material, entries: int, rounds: int, progress: Progress) -> JournalCost:
    """Boots and registrations on a long journal and on an empty one, in turns."""
    long, empty = folder / "long", folder / "empty"
    _program("fill", long, "0", str(entries))
    _program("fill", empty, "0", "0")
    boots: dict[Path, list[float]] = {long: [], empty: []}
    changes: dict[Path, list[float]] = {long: [], empty: []}
    for number in range(rounds):
        for place in (long, empty):
            boot, change = _boot(place, material)
            boots[place].append(boot)
            changes[place] += change
        progress(f"journal round {number + 1}: boot {boots[long][-1]:.3f} s, empty {boots[empty][-1]:.3f} s")
    return JournalCost(
        entries, median(boots[long]), median(boots[empty]), median(changes[long]), median(changes[empty])
    )


def _boot(place: Path, material: Material) -> tuple[float, list[float]]:
    """One boot to /readyz and some registrations without workers; killed, so that the next boot replays again."""
    run = place / f"run-{time.monotonic_ns()}"
    ours = Ours()
    extra = f"data_dir={place / 'mms-data'}\n"
    _, management, config = ours.configure(run, material.archives, extra)
    began = time.monotonic()
    running = Running(run, ours.command(config), clean_environment(run))
    try:
        running.wait("GET", f"{management}/readyz")
        boot = time.monotonic() - began
        changes = []
        for _ in range(20):
            asked = time.perf_counter()
            running.wait("POST", f"{management}/models?{urlencode({'url': 'noop', 'initial_workers': 0})}")
            changes.append(time.perf_counter() - asked)
            running.wait("DELETE", f"{management}/models/noop")
        return boot, changes
    finally:
        running.end()


def _program(verb: str, folder: Path, *numbers: str) -> str:
    command = [sys.executable, "-m", "benchmarks.store_boot", verb, str(folder), *numbers]
    found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    if found.returncode:
        raise SystemExit(f"the store could not be measured: {found.stderr}")
    return found.stdout


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        print(json.dumps(asyncio.run(claim(Path(sys.argv[2])))))

"""How many trials a full run makes of each fault: the one table, row for row that of the target matrix.

Where a row of the matrix names one number for several faults or databases, it is divided here. A fault that the matrix
does not name has a row of its own at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SQLITE, POSTGRES = "sqlite", "postgres"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the matrix. `trials`: name of a fault (`at-*`: each that begins so) to its numbers on SQLite and PostgreSQL."""

    what: str
    trials: Mapping[str, tuple[int, int]]


COLUMN: tuple[Row, ...] = (
    Row("SIGKILL of the server at a random moment under load: 300 SQLite, 100 PostgreSQL", {"kill": (300, 100)}),
    Row("SIGKILL of all PostgreSQL processes: 100", {"postgres-kill": (0, 70), "postgres-both": (0, 30)}),
    Row("chains of 2 to 5 crashes: 150", {"crash-chain": (100, 50)}),
    Row(
        "SIGTERM at a random moment, during boot, replay and drain, and twice: 100",
        {
            "stop": (18, 12),
            "stop-booting": (18, 12),
            "stop-in-boot": (6, 4),
            "stop-twice": (9, 6),
            "stop-kill": (9, 6),
        },
    ),
    Row("each failpoint with kill, sleep and raise: 3 each", {"at-*": (2, 1)}),
    Row(
        "disk full, inodes full, read-only, I/O errors: 20 each",
        {f"disk-{name}": (20, 0) for name in ("full", "inodes", "readonly", "eio-write", "eio-sync", "eio-open")},
    ),
    Row(
        "corruption of database, write-ahead log or witness: 200",
        {
            "damage-flip": (80, 0),
            "damage-zero": (35, 0),
            "damage-cut": (35, 0),
            "damage-delete": (25, 0),
            "damage-old-copy": (25, 0),
        },
    ),
    Row("2 to 4 starters at once: 40", {"starters": (25, 15)}),
    Row("SIGSTOP of the owner: 40", {"owner-stopped": (25, 15)}),
    Row("a reused pid: 40", {"pid-reused": (25, 15)}),
    Row("process 1: 40", {"pid-one": (25, 15)}),
    Row("a clock that is years off: 10", {"clock": (10, 0)}),
    Row(
        "the network to PostgreSQL: 20 each",
        {f"network-{name}": (0, 20) for name in ("cut", "reply", "silent", "slow", "half-open")},
    ),
    Row(
        "poison models: 5 each",
        {
            f"poison-{name}": (5, 0)
            for each in ("kills-parent", "segfault", "abort", "exit", "hang", "oom")
            for name in (each, f"predict-{each}")
        }
        | {"poison-slow-crash": (5, 0)},
    ),
    Row(
        "SIGKILL and SIGSTOP of workers under load: 100",
        {"worker-kill": (50, 0), "worker-stop": (20, 0), "worker-memory": (10, 0), "worker": (20, 0)},
    ),
    Row("recovery time: 30", {"boot-times": (15, 15), "open-again": (0, 30)}),
    Row("open files flat over 100 restarts", {"leak-workers": (1, 0), "leak-boots": (1, 1)}),
    Row(
        "not in the matrix",
        {
            "forkserver": (10, 0),
            "neighbours": (10, 0),
            "lock-lost": (10, 10),
            "network-refuse": (0, 10),
            "upgrade-kill": (15, 10),
        },
    ),
)


def trials(fault: str, store: str) -> int:
    """Number of trials of a full run. Raises LookupError for a fault that is in no row."""
    for row in COLUMN:
        for name, (on_sqlite, on_postgres) in row.trials.items():
            if name == fault or (name.endswith("*") and fault.startswith(name.removesuffix("*"))):
                return on_sqlite if store == SQLITE else on_postgres
    raise LookupError(f"the fault {fault} is in no row of the table")

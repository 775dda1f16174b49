"""What a server costs: CPU seconds and memory of its whole process tree, read from the kernel."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

POLL = 0.002


def tree(pid: int) -> list[psutil.Process]:
    """The process and everything below it."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def cpu_seconds(pid: int) -> float:
    """User and system time of the tree so far."""
    total = 0.0
    for process in tree(pid):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


@dataclass(frozen=True)
class Memory:
    """Proportional set size of a tree in MB (a page that n processes share counts 1/n in each), and its processes."""

    megabytes: float
    processes: int


def memory(pids: list[int], field: str = "Pss") -> Memory:
    """Of these processes; those that have ended count nothing. `field` Pss_Anon leaves out files that are mapped."""
    kilobytes, count = 0, 0
    for pid in pids:
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            kilobytes += int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])
            count += 1
    return Memory(kilobytes / 1000, count)


def end(pid: int) -> None:
    """Kill the tree and wait until nothing of it is left."""
    processes = tree(pid)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    deadline = time.monotonic() + 20
    while any(_runs(process) for process in processes):
        if time.monotonic() > deadline:
            raise SystemExit(f"the processes below {pid} did not end")
        time.sleep(POLL)


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False

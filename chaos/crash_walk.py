"""Kills one store life at each of its system calls, one after the other; run as a process of its own, prints JSON.

The interpreter is loaded once and forked for each point, so that a point costs a fraction of a second. strace attaches
to the fork and kills it as it enters its Nth write, sync, truncation, removal or rename; the call is not carried out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from chaos.store_life import Scenario, victim, wrong_after
from chaos.walking import drawn, in_child, walk

CALLS = "write,pwrite64,writev,fsync,fdatasync,ftruncate,unlink,unlinkat,rename,renameat,renameat2"
"""Writes, syncs, truncations, removals and renames; opening and locking change nothing that a boot could see."""
_ATTACH_WITHIN = 20.0
_LINE = re.compile(r"^\s*(\d+)\s+(\w+)\(")
UNHARMED = "unharmed"
"""Said for a life that ended by itself."""


def main() -> int:
    """Arguments: scenario, seed, and how many points (0: all)."""
    return walk(_look)


def _look(scenario: Scenario, template: Path, base: Path) -> dict[str, Any]:
    every = _points(scenario, template, base)
    points = drawn(every)
    violations = []
    for call, number in points:
        found = _hit(scenario, template, base, call, number)
        violations += [f"killed at {call} number {number}: {text}" for text in found]
    return {"total": len(every), "points": len(points), "violations": violations}


def _points(scenario: Scenario, template: Path, base: Path) -> list[tuple[str, int]]:
    """Each call that an unharmed life makes, as its name and number: strace counts each name for itself, in each thread."""
    trace = base / "trace"
    said = traced(scenario, template, base / "counted", ["-o", str(trace), "-e", f"trace={CALLS}"])
    if said[-1:] != [UNHARMED]:
        raise RuntimeError(f"the unharmed life did not end well: {said}")
    counts: Counter[tuple[str, str]] = Counter()
    for line in trace.read_text().splitlines():
        match = _LINE.match(line)
        if match is not None:
            counts[match[2], match[1]] += 1
    most = {call: max(count for (name, _), count in counts.items() if name == call) for call, _ in counts}
    return [(call, number) for call in sorted(most) for number in range(1, most[call] + 1)]


def _hit(scenario: Scenario, template: Path, base: Path, call: str, number: int) -> list[str]:
    folder = base / f"{call}-{number}"
    inject = ["-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
    said = traced(scenario, template, folder, inject)
    found = in_child(lambda: wrong_after(scenario, folder, said)) or []
    shutil.rmtree(folder)
    return [*found, "the life was not killed"] if said[-1:] == [UNHARMED] else found


def traced(scenario: Scenario, template: Path, folder: Path, options: list[str]) -> list[str]:
    """One life under strace; returns what it acknowledged. No thread may be alive in this process: it forks."""
    shutil.copytree(template, folder)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            _wait_for_tracer()
            victim(scenario, folder, write)
        finally:
            os._exit(0)
    os.close(write)
    strace = subprocess.Popen(["strace", "-f", "-q", *options, "-p", str(pid)], stderr=subprocess.PIPE)
    with os.fdopen(read) as pipe:
        said = pipe.read().splitlines()
    _, status = os.waitpid(pid, 0)
    strace.communicate(timeout=30)
    if os.WIFEXITED(status) and said[-1:] == ["closed"]:
        said.append(UNHARMED)
    return said


def _wait_for_tracer() -> None:
    deadline = time.monotonic() + _ATTACH_WITHIN
    while "TracerPid:\t0\n" in Path("/proc/self/status").read_text():
        if time.monotonic() > deadline:
            raise TimeoutError("strace did not attach")
        time.sleep(0.002)
    time.sleep(0.02)  # attached, it still has to be told what to watch for


if __name__ == "__main__":
    sys.exit(main())

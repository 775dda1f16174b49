"""Sends millions of requests to one server and looks at its memory between the pieces: it has to stay flat."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks import processes
from benchmarks.contenders import Ours, Running
from benchmarks.load import Generator
from benchmarks.workloads import WORKLOADS, Material

Progress = Callable[[str], None]

WORKLOAD = next(one for one in WORKLOADS if one.name == "noop-8")
ROLES = ("server", "fork server", "worker")
SETTLED = 1_000_000
"""Requests after which everything that is made once has been made: pools, caches, buffers at the size that the load needs."""
_PIECES = 20
_FIRST_PIECE = 1.0  # seconds


@dataclass(frozen=True)
class Sample:
    """After so many requests: MB of anonymous memory by role, pages that processes share counted in parts.

    Pages of mapped files are left out: what they count depends on who else on the machine maps them.
    """

    requests: int
    megabytes: dict[str, float]

    @property
    def total(self) -> float:
        """Of all processes."""
        return sum(self.megabytes.values())


@dataclass
class Soak:
    """The samples of one run, and how long it took; `answered` is what the server itself counted at the end."""

    samples: list[Sample] = field(default_factory=list)
    errors: int = 0
    seconds: float = 0.0

    @property
    def growth(self) -> float:
        """MB from the first sample after SETTLED requests (or the first at all, in a short run) to the last."""
        settled = [one for one in self.samples if one.requests >= min(SETTLED, self.samples[-1].requests // 2)]
        return self.samples[-1].total - settled[0].total

    @property
    def growths(self) -> dict[str, float]:
        """The same by role."""
        settled = [one for one in self.samples if one.requests >= min(SETTLED, self.samples[-1].requests // 2)]
        return {role: self.samples[-1].megabytes[role] - settled[0].megabytes[role] for role in ROLES}


def soak(folder: Path, material: Material, generator: Generator, requests: int, progress: Progress) -> Soak:
    """At least so many requests, in pieces."""
    running, url = Ours().start(folder, material, WORKLOAD)
    found = Soak()
    body, kind = material.body(WORKLOAD.model), material.content_type(WORKLOAD.model)
    began = time.monotonic()
    try:
        roles = _roles(running)
        found.samples.append(Sample(0, _look(roles)))
        sent, piece = 0, _FIRST_PIECE
        while sent < requests:
            load = generator.run(url, body, kind, WORKLOAD.clients, piece)
            if not load.requests:
                raise SystemExit(f"{url} answered nothing\n{running.log()}")
            sent += load.requests
            found.errors += load.errors
            found.samples.append(Sample(sent, _look(roles)))
            sizes = ", ".join(f"{role} {size:.1f}" for role, size in found.samples[-1].megabytes.items())
            progress(f"{sent:,} requests: {sizes} MB")
            # As many pieces as the table has rows, whatever the server's speed; wrk takes whole seconds.
            piece = max(requests / _PIECES / (load.requests / load.seconds), 1.0)
    finally:
        running.end()
    found.seconds = time.monotonic() - began
    return found


def _roles(running: Running) -> dict[str, list[int]]:
    """Process ids by role: the head, what forks, and the youngest generation."""
    head, *others = processes.tree(running.pid)
    workers = [one for one in others if not one.children()]
    between = [one for one in others if one not in workers]
    if not workers or not between:
        raise SystemExit(f"no worker below a fork server: {others}")
    return dict(zip(ROLES, (_ids([head]), _ids(between), _ids(workers)), strict=True))


def _ids(found: Sequence[psutil.Process]) -> list[int]:
    return [process.pid for process in found]


def _look(roles: dict[str, list[int]]) -> dict[str, float]:
    sizes = {role: processes.memory(pids, "Pss_Anon") for role, pids in roles.items()}
    if any(size.processes != len(roles[role]) for role, size in sizes.items()):
        raise SystemExit("a process of the server ended during the soak")
    return {role: size.megabytes for role, size in sizes.items()}

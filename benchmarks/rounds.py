"""Measures workloads in interleaved rounds (A B C A B C ...), so that whatever else the machine does meets all alike."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import processes
from benchmarks.contenders import Contender, Running
from benchmarks.load import Generator, Load
from benchmarks.workloads import SERVED, Material, Workload

Progress = Callable[[str], None]

WARM_UP = 1.0  # seconds


@dataclass
class Series:
    """The rounds of one contender on one workload; `cpu` in seconds per 1,000 requests, percentiles as in `Load`."""

    contender: str
    rate: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    p99_by_clock: list[float] = field(default_factory=list)
    errors: int = 0

    @property
    def median_rate(self) -> float:
        """Requests a second."""
        return median(self.rate)

    @property
    def median_cpu(self) -> float:
        """CPU-seconds per 1,000 requests."""
        return median(self.cpu)

    @property
    def tail(self) -> float:
        """p99 over p50, medians of the rounds; 0 for a loop, which has none."""
        return median(self.p99) / median(self.p50) if self.p50 else 0.0


@dataclass(frozen=True)
class Plan:
    """How often, and for how long each time."""

    rounds: int
    seconds: float

    def seconds_of(self, workload: Workload) -> float:
        """How long a round of it takes."""
        return self.seconds * workload.longer


class Bench:
    """Runs workloads against contenders in one folder."""

    def __init__(self, folder: Path, material: Material, generator: Generator, plan: Plan, progress: Progress) -> None:
        self._folder = folder
        self._material = material
        self._generator = generator
        self._plan = plan
        self._progress = progress

    def measure(self, workload: Workload, contenders: Sequence[Contender], *, loop: bool) -> list[Series]:
        """All rounds of one workload; with `loop`, the bare model too, in as many processes as there are workers."""
        with ExitStack() as stack:
            served = [(one, *stack.enter_context(self._served(one, workload))) for one in contenders]
            series = {one.name: Series(one.name) for one in contenders}
            if loop:
                series["loop"] = Series("loop")
            for number in range(self._plan.rounds):
                for place, (contender, running, url) in enumerate(served):
                    self._round(series[contender.name], running, url, workload)
                    if loop and place == 0:
                        # At once after the one that is compared with it: the machine differs from minute to minute.
                        self._loop_round(series["loop"], workload)
                rates = ", ".join(f"{one.contender} {one.rate[-1]:,.0f}" for one in series.values())
                self._progress(f"{workload.name} round {number + 1}: {rates}")
        return list(series.values())

    def turns(self, workload: Workload, served: Sequence[tuple[Running, str]]) -> list[Series]:
        """All rounds of one workload on servers that run already."""
        series = [Series("mms") for _ in served]
        for running, url in served:
            self._check(running, url, workload)
            self._load(url, workload, WARM_UP)
        for number in range(self._plan.rounds):
            for one, (running, url) in zip(series, served, strict=True):
                self._round(one, running, url, workload)
            self._progress(f"round {number + 1}: " + ", ".join(f"{one.rate[-1]:,.0f}" for one in series))
        return series

    @contextmanager
    def _served(self, contender: Contender, workload: Workload) -> Iterator[tuple[Running, str]]:
        folder = self._folder / f"{workload.name}-{contender.name}"
        running, url = contender.start(folder, self._material, workload)
        try:
            self._check(running, url, workload)
            self._load(url, workload, WARM_UP)
            yield running, url
            self._check(running, url, workload)
        finally:
            running.end()

    def _check(self, running: Running, url: str, workload: Workload) -> None:
        model = workload.model
        body = self._material.body(model).read_bytes()
        headers = {"content-type": self._material.content_type(model)}
        answer = running.wait("POST", url, content=body, headers=headers)
        if not self._material.is_right(model, answer.content):
            raise SystemExit(f"{url} answers wrongly: {answer.content[:200]!r}")

    def _round(self, series: Series, running: Running, url: str, workload: Workload) -> None:
        before = processes.cpu_seconds(running.pid)
        load = self._load(url, workload, self._plan.seconds_of(workload))
        cpu = processes.cpu_seconds(running.pid) - before
        if not load.requests:
            raise SystemExit(f"{url} answered nothing\n{running.log()}")
        series.rate.append(load.requests / load.seconds)
        series.cpu.append(1000 * cpu / load.requests)
        series.p50.append(load.p50)
        series.p99.append(load.p99)
        series.p99_by_clock.append(load.p99_by_clock)
        series.errors += load.errors

    def _load(self, url: str, workload: Workload, seconds: float) -> Load:
        material = self._material
        body, kind = material.body(workload.model), material.content_type(workload.model)
        return self._generator.run(url, body, kind, workload.clients, seconds)

    def _loop_round(self, series: Series, workload: Workload) -> None:
        material = self._material
        command = [sys.executable, str(SERVED / "loop.py"), workload.model, str(material.archive(workload.model))]
        command += [str(workload.batch_size), str(material.body(workload.model)), str(self._plan.seconds_of(workload))]
        loops = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(workload.workers)
        ]
        for one in loops:
            assert one.stdout is not None
            if one.stdout.readline() != "warm\n":
                raise SystemExit("the loop did not start")
        time.sleep(0.1)
        for one in loops:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        found = [json.loads(one.communicate()[0]) for one in loops]
        series.rate.append(sum(one["rate"] for one in found))
        series.cpu.append(median(one["cpu"] for one in found))

"""Measures a light model alone and beside a busy one on the same server: what the large batches of another cost it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from urllib.parse import urlencode

from benchmarks.contenders import Ours
from benchmarks.load import Generator, Load
from benchmarks.workloads import WORKLOADS, Material, Workload

Progress = Callable[[str], None]

LIGHT = next(one for one in WORKLOADS if one.name == "noop-8-light")
BUSY = next(one for one in WORKLOADS if one.name == "convnet-8")
_LEAD = 1.0  # seconds that the busy one is under load before and after the light one is measured


@dataclass
class Fairness:
    """Rounds of the light model, alone and beside; milliseconds. `batch` is what one batch of the busy model takes.

    p99 is the one by the clock: a single client that waits for its answer meets a stall of the server once, however long.
    """

    alone_p50: list[float] = field(default_factory=list)
    alone_p99: list[float] = field(default_factory=list)
    beside_p50: list[float] = field(default_factory=list)
    beside_p99: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    errors: int = 0

    @property
    def share(self) -> float:
        """The light model's p99 beside the busy one, in batches of the busy one."""
        return median(self.beside_p99) / median(self.batch)


def light_beside_busy(
    folder: Path, material: Material, generator: Generator, rounds: int, seconds: float, progress: Progress
) -> Fairness:
    """Both models on one server, one worker each; in each round the light one alone, then beside."""
    running, busy_url = Ours().start(folder, material, BUSY)
    found = Fairness()
    try:
        inference, management = (
            line.partition("=")[2] for line in (folder / "config.properties").read_text().splitlines()[:2]
        )
        wish = {"batch_size": LIGHT.batch_size, "max_batch_delay": LIGHT.delay_ms, "initial_workers": 1}
        running.wait("POST", f"{management}/models?{urlencode({'url': LIGHT.model, 'synchronous': 'true', **wish})}")
        light_url = f"{inference}/predictions/{LIGHT.model}"

        def load(workload: Workload, url: str, length: float) -> Load:
            kind = material.content_type(workload.model)
            return generator.run(url, material.body(workload.model), kind, workload.clients, length)

        for workload, url in ((LIGHT, light_url), (BUSY, busy_url)):
            load(workload, url, _LEAD)
        with ThreadPoolExecutor(1) as beside:
            for number in range(rounds):
                alone = load(LIGHT, light_url, seconds)
                pressing = beside.submit(load, BUSY, busy_url, seconds + 2 * _LEAD)
                load(LIGHT, light_url, _LEAD)
                both = load(LIGHT, light_url, seconds)
                busy = pressing.result()
                found.alone_p50.append(alone.p50)
                found.alone_p99.append(alone.p99_by_clock)
                found.beside_p50.append(both.p50)
                found.beside_p99.append(both.p99_by_clock)
                found.batch.append(1000 * BUSY.batch_size * busy.seconds / busy.requests)
                found.errors += alone.errors + both.errors + busy.errors
                progress(
                    f"fairness round {number + 1}: p50 {alone.p50:.2f} and {both.p50:.2f} ms beside, "
                    f"p99 {found.alone_p99[-1]:.2f} and {found.beside_p99[-1]:.2f} ms beside, a batch {found.batch[-1]:.0f} ms"
                )
    finally:
        running.end()
    return found

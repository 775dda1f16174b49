"""Measures boots: from the start of the process until every model has answered, after SIGKILL where the server can remember."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from urllib.parse import urlencode

from benchmarks import processes
from benchmarks.contenders import (
    Contender,
    Mosec,
    MultiModelServer,
    Ours,
    Running,
    TorchServe,
    clean_environment,
)
from benchmarks.onnx_models import build_mlp
from benchmarks.workloads import Material, Workload

Progress = Callable[[str], None]


@dataclass
class Boots:
    """Several boots of one server with its models: seconds to the first and to the last answer, and what it then holds."""

    contender: str
    models: int
    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    worker_megabytes: list[float] = field(default_factory=list)
    processes: int = 0

    @property
    def seconds(self) -> float:
        """Median time until every model has answered."""
        return median(self.last)

    def add(self, running: Running, first: float, last: float) -> None:
        """Note one boot and the memory after it."""
        self.first.append(first)
        self.last.append(last)
        tree = processes.tree(running.pid)
        found = processes.memory([process.pid for process in tree])
        self.megabytes.append(found.megabytes)
        self.processes = found.processes


def until_all_answer(
    running: Running, urls: Sequence[str], body: bytes, kind: str, began: float
) -> tuple[float, float]:
    """Ask the models round after round; seconds from `began` to the first and to the last first answer."""
    missing = list(urls)
    first = 0.0
    while missing:
        for url in list(missing):
            answer = running.ask("POST", url, content=body, headers={"content-type": kind})
            if answer is None:
                break
            if answer.status_code == 200:
                first = first or time.monotonic() - began
                missing.remove(url)
        if time.monotonic() - began > 120:
            raise SystemExit(f"{len(missing)} models do not answer\n{running.log()}")
        time.sleep(0.002)
    return first, time.monotonic() - began


class NoopBoots:
    """20 no-op models: ours comes back from SIGKILL by itself; the others start with what their configuration names."""

    MODELS = 20

    def __init__(self, folder: Path, material: Material, progress: Progress) -> None:
        self._folder = folder
        self._material = material
        self._progress = progress
        self._store = folder / "models"
        self._names = [f"noop{number:03d}" for number in range(self.MODELS)]
        for name in self._names:
            shutil.copytree(material.archive("noop"), self._store / name)
            manifest = self._store / name / "MAR-INF" / "MANIFEST.json"
            content = json.loads(manifest.read_text())
            content["model"]["modelName"] = name
            manifest.write_text(json.dumps(content))

    def measure(self, contenders: Sequence[Contender], rounds: int) -> list[Boots]:
        """Interleaved boots of each."""
        found = {one.name: Boots(one.name, self.MODELS) for one in contenders}
        for number in range(rounds):
            for one in contenders:
                folder = self._folder / f"{one.name}-{number}"
                boots = found[one.name]
                if isinstance(one, Ours):
                    self._ours(one, folder, boots)
                elif isinstance(one, MultiModelServer):
                    self._original(one, folder, boots)
                elif isinstance(one, TorchServe):
                    self._torchserve(one, folder, boots)
                elif isinstance(one, Mosec):
                    self._mosec(one, folder, boots)
                self._progress(
                    f"{self.MODELS} models, {one.name} boot {number + 1}: first answer {boots.first[-1]:.2f} s, "
                    f"all {boots.last[-1]:.2f} s, {boots.megabytes[-1]:.0f} MB in {boots.processes} processes"
                )
        return list(found.values())

    def _register(self, running: Running, inference: str, management: str) -> None:
        """Every model, through a management API that speaks as multi-model-server does."""
        running.wait("GET", f"{inference}/ping")
        for name in self._names:
            wish = urlencode({"url": name, "initial_workers": 1, "synchronous": "true"})
            running.wait("POST", f"{management}/models?{wish}")

    def _ours(self, ours: Ours, folder: Path, boots: Boots) -> None:
        inference, management, config = ours.configure(folder, self._store)
        running = ours.launch(folder, config, self._store)
        try:
            self._register(running, inference, management)
            running.kill()
            began = time.monotonic()
            running.launch()
            self._time(running, [f"{inference}/predictions/{name}" for name in self._names], boots, began)
        finally:
            running.end()

    def _original(self, original: MultiModelServer, folder: Path, boots: Boots) -> None:
        extra = f"load_models={','.join(self._names)}\ndefault_workers_per_model=1\n"
        inference, _, config = original.configure(folder, self._store, extra)
        began = time.monotonic()
        running = original.launch(folder, config, self._store)
        try:
            self._time(running, [f"{inference}/predictions/{name}" for name in self._names], boots, began)
        finally:
            running.end()

    def _torchserve(self, torchserve: TorchServe, folder: Path, boots: Boots) -> None:
        inference, management, config = torchserve.configure(folder, self._store)
        running = torchserve.launch(folder, config, self._store)
        try:
            self._register(running, inference, management)
        finally:
            running.end()  # its head is a script: without it, the server itself would live on
        began = time.monotonic()
        running = torchserve.launch(folder, torchserve.newest_snapshot(folder), self._store)
        try:
            self._time(running, [f"{inference}/predictions/{name}" for name in self._names], boots, began)
        finally:
            running.end()

    def _mosec(self, mosec: Mosec, folder: Path, boots: Boots) -> None:
        workload = Workload("boot", "", "noop", 1, 5, 1)
        began = time.monotonic()
        running, port = mosec.launch(folder, self._material, workload, routes=self.MODELS)
        try:
            urls = [f"http://127.0.0.1:{port}/inference{number}" for number in range(self.MODELS)]
            self._time(running, urls, boots, began)
        finally:
            running.end()

    def _time(self, running: Running, urls: list[str], boots: Boots, began: float) -> None:
        first, last = until_all_answer(
            running, urls, self._material.body("noop").read_bytes(), self._material.content_type("noop"), began
        )
        boots.add(running, first, last)


def hundred_onnx_models(folder: Path, material: Material, rounds: int, progress: Progress, models: int = 100) -> Boots:
    """Many small ONNX models on the built-in handler, one worker each, back after SIGKILL."""
    store = folder / "models"
    names = [f"small{number:03d}" for number in range(models)]
    for number, name in enumerate(names):
        (store / name / "MAR-INF").mkdir(parents=True)
        manifest = {"runtime": "python", "model": {"modelName": name}}
        (store / name / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
        build_mlp(store / name / "model.onnx", seed=number)
    ours = Ours()
    inference, management, config = ours.configure(folder / "server", store)
    running = Running(folder / "server", ours.command(config), clean_environment(folder / "server"))
    boots = Boots(ours.name, models)
    try:
        running.wait("GET", f"{inference}/ping")
        for name in names:
            wish = urlencode({"url": name, "initial_workers": 1, "synchronous": "true"})
            running.wait("POST", f"{management}/models?{wish}")
        body = json.dumps({"x": json.loads(material.body("mlp").read_bytes())}).encode()
        for number in range(rounds):
            running.kill()
            began = time.monotonic()
            running.launch()
            urls = [f"{inference}/predictions/{name}" for name in names]
            first, last = until_all_answer(running, urls, body, "application/json", began)
            boots.add(running, first, last)
            boots.worker_megabytes.append(_worker_memory(running, models))
            progress(
                f"{models} ONNX models, boot {number + 1}: first answer {first:.2f} s, all {last:.2f} s "
                f"({1000 * last / models:.1f} ms a model), {boots.worker_megabytes[-1]:.1f} MB a worker"
            )
    finally:
        running.end()
    return boots


def _worker_memory(running: Running, workers: int) -> float:
    """PSS of one worker, the mean of all: the youngest generation of the tree."""
    leaves = [process.pid for process in processes.tree(running.pid) if not process.children()]
    found = processes.memory(leaves)
    if found.processes < workers:
        raise SystemExit(f"only {found.processes} workers are there")
    return found.megabytes / found.processes

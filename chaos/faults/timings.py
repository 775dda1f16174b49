"""How long recoveries take and what a hundred of them leave behind; the figures of each trial go into its counts."""

from __future__ import annotations

import json
import re
import signal
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import psutil

from benchmarks.onnx_models import build_mlp
from chaos.clients import Client
from chaos.column import POSTGRES, SQLITE
from chaos.faults.serving import must_come_back
from chaos.faults.workers import STEADY, Callers, workers
from chaos.history import Verb
from chaos.site import MODELS, Site, until
from chaos.story import Story
from chaos.trial import Fault, Trial
from chaos.violation import Violation
from tests.acceptance.running import make_model

ROWS = 1000
ONNX_MODELS = 20
CLAIM_WITHIN = {SQLITE: 200, POSTGRES: 500}
"""Milliseconds from the first line of the log to the decision: the store is opened in them, on PostgreSQL with its driver."""
LISTENING_WITHIN = 2000  # milliseconds, these too
READY_WITHIN = 10_000
OPEN_AGAIN_WITHIN = 5000
ATTEMPTS = 3
"""Boots of which one must be in time: other trials may keep the processors busy meanwhile."""
RESTARTS = 100
_SLACK = 4
"""Open files and threads more than before that are no leak: connections under way, a pool of threads that grows once."""


def boot_times(trial: Trial) -> None:
    """1,000 rows and 20 small ONNX models, SIGKILL, and the next boot by the clock."""
    with trial.story() as story:
        for number in range(ONNX_MODELS):
            _onnx_model(story.site.models, f"onnx{number}")
        story.boot()
        _register_all(story.site)
        for _ in trial.rounds():
            for attempt in range(1, ATTEMPTS + 1):
                story.kill()
                trial.figures["attempts"] = attempt
                if not (late := _timed_boot(story.site, trial)):
                    break
            else:
                raise Violation(f"{ATTEMPTS} boots in a row were late, the last one with {late}")


def _onnx_model(store: Path, name: str) -> None:
    folder = store / name
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({"model": {"modelName": name}}))
    build_mlp(folder / "model.onnx")


def _register_all(site: Site) -> None:
    wishes = [f"url=onnx{number}&min_worker=1&max_worker=1" for number in range(ONNX_MODELS)]
    wishes += [f"url=alder&model_name=row{number}&min_worker=0&max_worker=0" for number in range(ROWS)]
    for wish in wishes:
        answer = site.manage("POST", f"/models?{wish}")
        if answer.status_code != 200:
            raise Violation(f"{wish} was answered {answer.status_code}: {answer.text[:200]}")


def _timed_boot(site: Site, trial: Trial) -> str:
    """One boot; says which of its figures are late."""
    printed = len(site.log())
    began = time.monotonic()
    site.launch()
    until(site.is_listening, 30, "open ports")
    listening = time.monotonic()
    recovery = site.wait_complete()
    ready = time.monotonic()
    told = site.log()[printed:]
    claim = _moment(told, "Boot decision") - _moment(told, "Data directory")
    figures = {
        "claim_ms": round(1000 * claim),
        "listening_ms": round(1000 * (listening - began)),
        "ready_ms": round(1000 * (ready - began)),
    }
    trial.figures.update(figures)
    active = sum(model["outcome"] == "active" for model in recovery["models"])
    if active < ROWS + ONNX_MODELS:
        raise Violation(f"{active} of {ROWS + ONNX_MODELS} models are active after the boot")
    return _late(
        figures, {"claim_ms": CLAIM_WITHIN[trial.store], "listening_ms": LISTENING_WITHIN, "ready_ms": READY_WITHIN}
    )


def _moment(log: str, words: str) -> float:
    found = re.search(rf"^(\S+Z) .*{words}", log, re.MULTILINE)
    if found is None:
        raise Violation(f"the log does not say {words}")
    return datetime.fromisoformat(found[1]).timestamp()


def _late(figures: dict[str, int], limits: dict[str, int]) -> str:
    return "; ".join(f"{name} {figures[name]}, not {limit}" for name, limit in limits.items() if figures[name] > limit)


def open_again(trial: Trial) -> None:
    """PostgreSQL is killed and comes back: how long until a change is acknowledged again."""
    postgres = trial.databases.postgres
    with trial.story() as story:
        story.boot()
        for rng in trial.rounds():
            story.load().wait_for(3)
            postgres.kill()
            try:
                time.sleep(rng.uniform(0.5, 4))
            finally:
                postgres.start()
            back = time.monotonic()
            must_come_back(story, 30)
            trial.figures["open_again_ms"] = round(1000 * (time.monotonic() - back))
            story.judge_living()
            if late := _late(trial.figures, {"open_again_ms": OPEN_AGAIN_WITHIN}):
                raise Violation(late)


def worker_restarts(trial: Trial) -> None:
    """A hundred workers of one model are killed, one after the other: the server's open files and threads stay as they were."""
    with trial.story() as story:
        make_model(story.site.models, "steady", STEADY)
        story.boot()
        story.site.manage("POST", "/models?url=steady&min_worker=1&max_worker=1")
        server = psutil.Process(story.site.pid)
        before = {}
        callers = Callers(story.site, "steady").start(1)
        try:
            for number in range(RESTARTS + 5):
                if number == 5:  # by now every pool and cache is there
                    before = _held(server)
                _kill_one(story.site, callers)
        finally:
            callers.stop()
        _flat(before, _held(server), trial)


def _kill_one(site: Site, callers: Callers) -> None:
    (worker,) = [each for each in workers(site) if Path(each.cwd()).name == "steady"]
    struck = time.monotonic()
    worker.send_signal(signal.SIGKILL)
    until(lambda: callers.good_since(struck) > 0, 20, "an answer after the worker was killed")


def _held(server: psutil.Process) -> dict[str, int]:
    children = server.children(recursive=True)
    files = server.num_fds()
    for child in children:
        with suppress(psutil.Error):
            files += child.num_fds() if child.name().startswith("mms-fork") else 0
    return {"files": files, "threads": server.num_threads(), "processes": len(children)}


def _flat(before: dict[str, int], after: dict[str, int], trial: Trial) -> None:
    trial.figures.update({f"{name}_more": after[name] - before[name] for name in before})
    grown = [f"{name} {before[name]} -> {after[name]}" for name in before if after[name] > before[name] + _SLACK]
    if grown:
        raise Violation(f"after {RESTARTS} restarts there are more: {'; '.join(grown)}")


def crashed_boots(trial: Trial) -> None:
    """A hundred lives under load, each killed: files of the server's folder and open files of a life stay as they were."""
    with trial.story() as story:
        story.boot()
        before: dict[str, int] = {}
        for number in range(RESTARTS + 3):
            if number == 3:
                before = _kept(story)
            story.load().wait_for(1)
            story.kill()
            story.boot()
        _flat(before, _kept(story), trial)


def _kept(story: Story) -> dict[str, int]:
    """Of a living server with no model: open files, threads, and files and folders beside the log."""
    story.rest()
    site = story.site
    client = Client("tidier", site, story.history, story.rng)
    try:
        for model in MODELS:
            client.change(Verb.REGISTER, model, {"min_workers": 1})  # its archive is unpacked, now if never before
            client.change(Verb.UNREGISTER, model, {})
    finally:
        client.close()
    server = psutil.Process(site.pid)
    entries = sum(1 for path in site.folder.rglob("*") if "__pycache__" not in path.parts)
    return {"files": server.num_fds(), "threads": server.num_threads(), "entries": entries}


FAULTS = (
    Fault("boot-times", boot_times, 0, 15, what="a boot with 1,000 stored rows and 20 ONNX models, by the clock"),
    Fault("open-again", open_again, 0, 5, (POSTGRES,), what="the loss and return of PostgreSQL, by the clock"),
    Fault("leak-workers", worker_restarts, 0, 1, (SQLITE,), what="100 SIGKILLs of a worker: what the server holds"),
    Fault("leak-boots", crashed_boots, 0, 1, what="100 SIGKILLs of one server: what it holds and keeps"),
)

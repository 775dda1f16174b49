"""Workers under attack: killed, stopped and starved of memory under load, their fork server killed, and bad neighbours."""

from __future__ import annotations

import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import psutil

from chaos.column import SQLITE
from chaos.faults.poison import memory_group, no_memory_group
from chaos.site import Site, until
from chaos.story import Story
from chaos.trial import Fault, Trial
from chaos.violation import Violation
from tests.acceptance.running import make_model

RESPAWN_WITHIN = 2.0
RESPONSE_TIMEOUT = 1
BATCH = 4
CALLERS = 8

STEADY = """
import time

def handle(data, context):
    if data is None:
        return None
    time.sleep(0.02)
    texts = [row["body"] if isinstance(row["body"], str) else bytes(row["body"]).decode() for row in data]
    hoard = []
    while "hoard" in texts:
        hoard.append(bytearray(b"x" * 4_000_000))
    return [f"{context.model_name}:{text}" for text in texts]
"""


@dataclass(slots=True)
class Callers:
    """Threads that ask one model for predictions without a pause, and note each answer: when it began and ended, and what it was."""

    site: Site
    model: str
    answers: list[tuple[float, float, int, str]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, count: int) -> Callers:
        """Begin with so many at once."""
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(count)]
        for thread in self._threads:
            thread.start()
        return self

    def _run(self, caller: int) -> None:
        with httpx.Client(timeout=30, trust_env=False) as http:
            number = 0
            while not self._stop.is_set():
                number += 1
                body = f"{caller}-{number}"
                began = time.monotonic()
                answer = http.post(f"{self.site.inference_url}/predictions/{self.model}", content=body)
                text = "" if answer.text == f"{self.model}:{body}" else answer.text
                self.answers.append((began, time.monotonic(), answer.status_code, text))

    def good_since(self, moment: float) -> int:
        """Right answers to requests that began after that moment."""
        return sum(began > moment and status == 200 and not text for began, _, status, text in list(self.answers))

    def stop(self) -> None:
        """End all; raises Violation for an answer that was wrong."""
        self._stop.set()
        for thread in self._threads:
            thread.join(40)
        wrong = [text for _, _, status, text in self.answers if status == 200 and text]
        if wrong:
            raise Violation(f"{self.model} answered {wrong[:3]}")


def worker_struck(how: str, trial: Trial) -> None:
    """The only worker of a busy model is struck: its batch alone fails, and another worker is there in less than 2 s."""
    config = {"default_response_timeout": RESPONSE_TIMEOUT}
    with memory_group() if how == "memory" else nullcontext() as cgroup, trial.story(config=config) as story:
        for name in ("steady", "other"):
            make_model(story.site.models, name, STEADY)
        story.boot()
        for name in ("steady", "other"):
            wish = f"/models?url={name}&min_worker=1&max_worker=1&batch_size={BATCH}&max_batch_delay=5"
            if (answer := story.site.manage("POST", wish)).status_code != 200:
                raise Violation(f"the model was not registered: {answer.text}")
        busy, other = Callers(story.site, "steady").start(CALLERS), Callers(story.site, "other").start(1)
        try:
            for rng in trial.rounds():
                _strike_busy(story.site, busy, how, rng, cgroup)
        finally:
            busy.stop()
            other.stop()
        if bad := [(status, text) for _, _, status, text in other.answers if status != 200]:
            raise Violation(f"another model than the struck one failed: {bad[:3]}")


def _strike_busy(site: Site, busy: Callers, how: str, rng: random.Random, cgroup: Path | None) -> None:
    began = time.monotonic()
    until(lambda: busy.good_since(began) > CALLERS, 20, "answers before the worker is struck")
    (worker,) = [each for each in workers(site) if Path(each.cwd()).name == "steady"]
    time.sleep(rng.uniform(0, 0.1))
    struck = time.monotonic()
    if cgroup is not None:
        (cgroup / "cgroup.procs").write_text(str(worker.pid))
        if (answer := site.predict("steady", "hoard")).status_code != 500:
            raise Violation(f"the request that took all memory was answered {answer.status_code}: {answer.text[:200]}")
    else:
        worker.send_signal(signal.SIGSTOP if how == "stop" else signal.SIGKILL)
    patience = RESPAWN_WITHIN + (RESPONSE_TIMEOUT if how == "stop" else 0)
    until(lambda: busy.good_since(struck) > CALLERS, 30, "answers after the worker was struck")
    first = min(
        ended for began, ended, status, _ in list(busy.answers) if ended > struck and status == 200 and began > struck
    )
    failed = [(status, text) for _, ended, status, text in list(busy.answers) if ended > struck and status != 200]
    if len(failed) > BATCH or any(status != 500 or "Worker died." not in text for status, text in failed):
        raise Violation(f"a worker with a batch of {BATCH} was struck and {len(failed)} requests failed: {failed[:6]}")
    if first - struck > patience:
        raise Violation(f"the first answer came {first - struck:.1f} s after the worker was struck")


def worker_trouble(trial: Trial) -> None:
    """Random workers are killed or stopped while clients work: wrong answers are none, and every model comes back."""
    with trial.story(config={"default_response_timeout": 2}) as story:
        story.boot()
        for rng in trial.rounds():
            _trouble(story, rng)


def _trouble(story: Story, rng: random.Random) -> None:
    story.load().wait_for(2)
    for _ in range(6):
        time.sleep(rng.uniform(0.05, 0.3))
        living = workers(story.site)
        if living:
            with suppress(psutil.NoSuchProcess):
                rng.choice(living).send_signal(rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP)))
    story.rest()
    states = story.site.states()
    until(lambda: not story.site.wrong_answers(states), 40, "the right answer of every model")
    story.judge_living()
    story.kill()
    story.boot()


def workers(site: Site) -> list[psutil.Process]:
    """Processes that hold a model; the fork server is their parent and is left alone here."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in site.children():
            with suppress(psutil.Error):
                folder = Path(child.cwd())
                if site.models in folder.parents or "archives" in folder.parts:
                    found.append(child)
    return found


def forkserver_killed(trial: Trial) -> None:
    """The process that starts the workers is killed: all models are loaded anew, and none of them is charged for it."""
    with trial.story() as story:
        story.boot()
        story.load().wait_for(3)
        story.rest()
        states = story.site.states()
        children = psutil.Process(story.site.pid).children()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)
        until(lambda: not story.site.wrong_answers(states), 40, "the right answer of every model")
        story.judge_living()
        story.kill()
        story.boot()


NEIGHBOURS = """
def handle(data, context):
    if data is None:
        return None
    rows = [bytes(row["body"]).decode() if not isinstance(row["body"], str) else row["body"] for row in data]
    if "bad" in rows:
        raise ValueError("a bad request")
    return [f"neighbours:{row}" for row in rows]
"""


def neighbours(trial: Trial) -> None:
    """Bad requests among good ones in full batches: only the bad ones fail."""
    with trial.story() as story:
        make_model(story.site.models, "neighbours", NEIGHBOURS)
        story.boot()
        answer = story.site.manage("POST", "/models?url=neighbours&min_worker=1&batch_size=8&max_batch_delay=200")
        if answer.status_code != 200:
            raise Violation(f"the model was not registered: {answer.text}")
        bodies = [f"good-{number}" for number in range(30)] + ["bad"] * 6
        trial.rng.shuffle(bodies)
        with httpx.Client(timeout=30, trust_env=False) as http, ThreadPoolExecutor(16) as threads:
            url = f"{story.site.inference_url}/predictions/neighbours"
            answers = list(threads.map(lambda body: http.post(url, content=body), bodies))
        wrong = [
            f"{body}: {answer.status_code} {answer.text[:80]!r}"
            for body, answer in zip(bodies, answers, strict=True)
            if (body == "bad") == (answer.status_code == 200) or (body != "bad" and answer.text != f"neighbours:{body}")
        ]
        if wrong:
            raise Violation("beside bad requests in its batch: " + "; ".join(wrong))


FAULTS = (
    Fault(
        "worker-kill", partial(worker_struck, "kill"), 2, 10, (SQLITE,), what="SIGKILL of a busy model's only worker"
    ),
    Fault(
        "worker-stop", partial(worker_struck, "stop"), 1, 10, (SQLITE,), what="SIGSTOP of a busy model's only worker"
    ),
    Fault(
        "worker-memory",
        partial(worker_struck, "memory"),
        1,
        5,
        (SQLITE,),
        missing=no_memory_group,
        what="a request that takes all the memory that a busy model's only worker may have",
    ),
    Fault(
        "worker", worker_trouble, 1, 3, (SQLITE,), what="SIGKILL and SIGSTOP of 6 workers while clients change models"
    ),
    Fault("forkserver", forkserver_killed, 0, 1, (SQLITE,), what="SIGKILL of the fork server"),
    Fault("neighbours", neighbours, 1, 1, (SQLITE,), what="bad requests among good ones in full batches"),
)

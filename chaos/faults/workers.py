"""Workers under attack: killed or stopped under load, and models that poison whoever loads them."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from chaos.checker import States
from chaos.column import SQLITE
from chaos.site import Site, until
from chaos.story import Story
from chaos.trial import Fault, Trial
from chaos.violation import Violation
from tests.acceptance.running import ECHO, make_model

POISONS = {
    "kills-parent": "import os, signal\nos.kill(SERVER, signal.SIGKILL)\n",
    "segfault": "import ctypes\nctypes.string_at(0)\n",
    "abort": "import os\nos.abort()\n",
    "exit": "import os\nos._exit(0)\n",
    "hang": "import time\ntime.sleep(3600)\n",
}
_BOOTS = 6


def worker_trouble(trial: Trial) -> None:
    """Random workers are killed or stopped while clients work: wrong answers are none, and every model comes back."""
    rng = trial.rng
    with trial.story(config={"default_response_timeout": 2}) as story:
        story.boot()
        story.load().wait_for(2)
        for _ in range(6):
            time.sleep(rng.uniform(0.05, 0.3))
            workers = _workers(story.site)
            if workers:
                with suppress(psutil.NoSuchProcess):
                    rng.choice(workers).send_signal(rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP)))
        story.rest()
        states = story.site.states()
        until(lambda: not story.site.wrong_answers(states), 40, "the right answer of every model")
        story.judge_living()
        story.kill()
        story.boot()


def _workers(site: Site) -> list[psutil.Process]:
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


def poisoned(name: str, trial: Trial) -> None:
    """A model that is healthy when registered turns to poison: the server comes up with every other one, in bounded boots."""
    with trial.story(config={"startup_timeout": 3}) as story:
        switch = trial.folder / "poisoned"
        _make_poison(story, name, str(switch))
        story.boot()
        answer = story.site.manage("POST", "/models?url=poison&initial_workers=1&startup_timeout=3")
        if answer.status_code != 200:
            raise Violation(f"the model that will be poison was not registered: {answer.text}")
        for url in ("alder", "cedar.mar"):
            story.site.manage("POST", f"/models?url={url}&min_worker=1")
        states: States = {"base": {}, "alder": {"min_workers": 1}, "cedar": {"min_workers": 1}}
        switch.touch()
        story.note_belongings()
        story.site.kill()
        story.died()
        _boot_until_up(story, states)
        # however it is taken out of service, it is kept: the operator's wish is not forgotten
        names = story.site.model_names()
        if "poison" not in names:
            raise Violation(f"the poisoned registration was dropped; there are {names}")


def _boot_until_up(story: Story, states: States) -> None:
    for _ in range(_BOOTS):
        story.site.launch()
        process = story.site.process
        assert process is not None
        deadline = time.monotonic() + 40
        while process.poll() is None:
            if _recovered(story.site):
                if wrong := story.site.wrong_answers(states):
                    raise Violation("beside a poisoned model: " + "; ".join(wrong))
                return
            if time.monotonic() > deadline:
                raise Violation("with a poisoned model the server is neither up nor down after 40 s")
            time.sleep(0.05)
        story.died()
    raise Violation(f"a poisoned model took the server down in {_BOOTS} boots in a row")


def _resume(site: Site) -> None:
    """What an operator does in safe mode; the poison may take the server down once more while it answers."""
    lives = site.manage("GET", "/incarnations?limit=4").json()["incarnations"][1:]
    if [life["state"] for life in lives] != ["booting"] * 3:
        raise Violation(f"safe mode after lives that ended {[life['state'] for life in lives]}")
    site.manage("POST", "/recovery/resume")


def _recovered(site: Site) -> bool:
    with suppress(httpx.TransportError):
        answer = site.manage("GET", "/recovery")
        if answer.status_code == 200 and answer.json()["state"] == "complete":
            if answer.json()["safeMode"]:
                _resume(site)
                return False
            return True
    return False


def _make_poison(story: Story, name: str, switch: str) -> None:
    # The parent of the parent of a worker is the server: fork server between them.
    server = (
        "import os\n"
        "def _parent(pid):\n"
        "    return int(open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[1])\n"
        "SERVER = _parent(os.getppid())\n"
    )
    body = "".join(f"    {line}\n" for line in POISONS[name].splitlines())
    source = (
        f"import os\nif os.path.exists({switch!r}):\n"
        + "".join(f"    {line}\n" for line in server.splitlines())
        + body
        + ECHO
    )
    make_model(story.site.models, "poison", source)


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


def _poison(name: str, quick: int) -> Fault:
    return Fault(
        f"poison-{name}",
        lambda trial: poisoned(name, trial),
        quick=quick,
        stores=(SQLITE,),
        what=f"a registered model that turns to poison: {name}",
    )


FAULTS = (
    Fault("worker", worker_trouble, quick=1, stores=(SQLITE,), what="SIGKILL and SIGSTOP of workers under load"),
    Fault("forkserver", forkserver_killed, quick=0, stores=(SQLITE,), what="SIGKILL of the fork server"),
    Fault("neighbours", neighbours, quick=1, stores=(SQLITE,), what="bad requests among good ones in full batches"),
    *(_poison(name, int(name == "kills-parent")) for name in POISONS),
)

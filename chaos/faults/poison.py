"""Models that were healthy when they were registered and turn to poison, while they load or while they answer."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from chaos.checker import States
from chaos.column import SQLITE
from chaos.site import Site, until
from chaos.story import Story
from chaos.trial import Fault, Trial
from chaos.violation import Violation
from tests.acceptance.running import make_model

POISONS = {
    "kills-parent": "os.kill(_server(), signal.SIGKILL)\ntime.sleep(30)",
    "segfault": "ctypes.string_at(0)",
    "abort": "os.abort()",
    "exit": "os._exit(0)",
    "hang": "time.sleep(3600)",
    "oom": "_join_cgroup()\nhoard = []\nwhile True:\n    hoard.append(bytearray(b'x' * 4_000_000))",
    "slow-crash": "threading.Timer(random.uniform(0.3, 2.0), os.abort).start()",
}
_BOOTS = 6
_RESUMES = 2
"""Times that an operator may have to leave safe mode: among several models the poison is charged from the second crash on."""
_WATCHED = 1.5
"""Seconds for which the other models are asked, beside a model that goes on crashing."""
_CGROUPS = Path("/sys/fs/cgroup/memory")
_LIMIT = 150_000_000
_BACK_WITHIN = 15.0

_SOURCE = """
import ctypes, os, random, signal, threading, time

def _server():  # the parent of the parent of a worker: the fork server is between them
    parent = lambda pid: int(open(f"/proc/{{pid}}/stat").read().rsplit(")", 1)[1].split()[1])
    return parent(os.getppid())

def _join_cgroup():
    with open({cgroup!r} + "/cgroup.procs", "w") as file:
        file.write(str(os.getpid()))

def _poison():
{body}

def _armed():
    return os.path.exists({switch!r})

if {at_load} and _armed():
    _poison()

def handle(data, context):
    if data is None:
        return None
    texts = [row["body"] if isinstance(row["body"], str) else bytes(row["body"]).decode() for row in data]
    if not {at_load} and _armed() and "drink" in texts:
        _poison()
    return [f"poison:{{text}}" for text in texts]
"""


def at_load(name: str, trial: Trial) -> None:
    """A model that is healthy when registered turns to poison: the server comes up with every other one, in bounded boots."""
    with _cgroup(name) as cgroup, trial.story(config={"startup_timeout": 3}) as story:
        switch = trial.folder / "poisoned"
        states = _live_with_poison(story, name, switch, cgroup, loading=True)
        switch.touch()
        story.note_belongings()
        story.site.kill()
        story.died()
        _boot_until_up(story, states)
        _watch(story, states)
        # however it is taken out of service, it is kept: the operator's wish is not forgotten
        names = story.site.model_names()
        if "poison" not in names:
            raise Violation(f"the poisoned registration was dropped; there are {names}")


def at_predict(name: str, trial: Trial) -> None:
    """A request that poisons its worker: it alone gets an error, the other models answer, and the model comes back."""
    with _cgroup(name) as cgroup, trial.story() as story:
        switch = trial.folder / "poisoned"
        states = _live_with_poison(story, name, switch, cgroup, loading=False)
        switch.touch()
        story.note_belongings()
        began = time.monotonic()
        try:
            answer = story.site.predict("poison", "drink")
        except httpx.TransportError:
            answer = None
        if name == "kills-parent":
            story.site.gone()
            story.died()
            story.site.launch()
            story.site.wait_complete()
        elif answer is None or answer.status_code not in (500, 503):
            raise Violation(
                f"a request that poisons its worker was answered {answer and (answer.status_code, answer.text)}"
            )
        elif time.monotonic() - began > 10:
            raise Violation(f"a request that poisons its worker was answered after {time.monotonic() - began:.1f} s")
        if wrong := story.site.wrong_answers(states):
            raise Violation("beside a poisoned request: " + "; ".join(wrong))
        until(lambda: _answers(story.site), _BACK_WITHIN, "an answer of the model after the poisoned request")
        story.kill()
        story.site.launch()
        recovery = story.site.wait_complete()
        if recovery["decision"] != "REPLAY" or not _answers(story.site):
            raise Violation(f"after a poisoned request the model did not come back: {recovery}")


def _answers(site: Site) -> bool:
    answer = site.predict("poison", "water")
    return (answer.status_code, answer.text) == (200, "poison:water")


def _live_with_poison(story: Story, name: str, switch: Path, cgroup: str, *, loading: bool) -> States:
    """A first life with the model, still healthy, and two others; returns those others' states."""
    body = "".join(f"    {line}\n" for line in POISONS[name].splitlines())
    source = _SOURCE.format(cgroup=cgroup, body=body, switch=str(switch), at_load=loading)
    make_model(story.site.models, "poison", source)
    story.boot()
    answer = story.site.manage("POST", "/models?url=poison&initial_workers=1&startup_timeout=3&response_timeout=3")
    if answer.status_code != 200:
        raise Violation(f"the model that will be poison was not registered: {answer.text}")
    for url in ("alder", "cedar.mar"):
        story.site.manage("POST", f"/models?url={url}&min_worker=1")
    return {"base": {}, "alder": {"min_workers": 1}, "cedar": {"min_workers": 1}}


def _watch(story: Story, states: States) -> None:
    """The other models answer for as long as the poisoned one goes on crashing and being replaced."""
    until_ = time.monotonic() + _WATCHED
    while time.monotonic() < until_:
        if wrong := story.site.wrong_answers(states):
            raise Violation("beside a poisoned model: " + "; ".join(wrong))
        time.sleep(0.1)


def _boot_until_up(story: Story, states: States) -> None:
    resumed = 0
    for _ in range(_BOOTS):
        story.site.launch()
        process = story.site.process
        assert process is not None
        deadline = time.monotonic() + 40
        while process.poll() is None:
            if _safe(story.site):
                resumed += 1
                if resumed > _RESUMES:
                    raise Violation(f"safe mode {resumed} times because of one poisoned model")
                _resume(story.site)
            elif _recovered(story.site):
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
    with suppress(httpx.TransportError):
        site.manage("POST", "/recovery/resume")


def _recovered(site: Site) -> bool:
    with suppress(httpx.TransportError):
        answer = site.manage("GET", "/recovery")
        return answer.status_code == 200 and answer.json()["state"] == "complete" and not answer.json()["safeMode"]
    return False


def _safe(site: Site) -> bool:
    with suppress(httpx.TransportError):
        answer = site.manage("GET", "/recovery")
        return answer.status_code == 200 and answer.json()["state"] == "complete" and bool(answer.json()["safeMode"])
    return False


@contextmanager
def _cgroup(name: str) -> Iterator[str]:
    """A group of its own with little memory, for the poison that takes all there is."""
    if name != "oom":
        yield ""
        return
    with memory_group() as folder:
        yield str(folder)


@contextmanager
def memory_group() -> Iterator[Path]:
    """A control group whose members may use 150 MB together, and are killed beyond."""
    folder = _CGROUPS / f"mms-chaos-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text(str(_LIMIT))
    try:
        yield folder
    finally:
        for pid in (folder / "cgroup.procs").read_text().split():
            with suppress(psutil.NoSuchProcess):
                psutil.Process(int(pid)).kill()
        until(lambda: _removed(folder), 10, "an empty control group")


def _removed(folder: Path) -> bool:
    with suppress(OSError):
        folder.rmdir()
        return True
    return False


def no_memory_group() -> str:
    """What this machine lacks for a limit of memory."""
    if os.geteuid() != 0:
        return "limiting a worker's memory needs root"
    if not (_CGROUPS / "memory.limit_in_bytes").exists():
        return f"limiting a worker's memory needs control groups of version 1 at {_CGROUPS}"
    try:
        with memory_group():
            return ""
    except OSError as error:
        return f"control groups cannot be made here: {error}"


def _fault(name: str, *, loading: bool) -> Fault:
    return Fault(
        f"poison-{name}" if loading else f"poison-predict-{name}",
        (lambda trial: at_load(name, trial)) if loading else (lambda trial: at_predict(name, trial)),
        quick=int(name in ("kills-parent", "oom") and (loading or name == "oom")),
        stores=(SQLITE,),
        missing=no_memory_group if name == "oom" else lambda: "",
        what=f"a registered model that turns to poison while it {'loads' if loading else 'answers'}: {name}",
    )


FAULTS = (
    *(_fault(name, loading=True) for name in POISONS),
    *(_fault(name, loading=False) for name in POISONS if name != "slow-crash"),
)

"""Every failpoint with kill, sleep and raise: the server is hit at one named place of its code, and must be right afterwards."""

from __future__ import annotations

import signal
import time
from contextlib import suppress

import httpx

from chaos.clients import Client
from chaos.history import Outcome, Verb
from chaos.story import Story
from chaos.trial import Fault, Trial
from chaos.violation import Violation
from mms.failpoints import TABLE, VARIABLE, Failpoint

SLEEP = 1.0
ACTIONS = ("kill", "sleep", "raise")
_LIFE_BEGINS = "Data directory:"  # the first line of a life in the log
_HIT_WITHIN = 25.0
BROKEN = "broken"
"""A model whose load fails."""


def run_place(place: Failpoint, action: str, trial: Trial) -> None:
    """A life that leaves something to replay, then one that is hit at the place, then the judgement."""
    with trial.story() as story:
        story.boot()
        for _ in trial.rounds():
            story.load().wait_for(4)
            story.kill()
            story.site.environment[VARIABLE] = f"{place.name}={_spec(place, action)}"
            _live_through(story, place, action)
            del story.site.environment[VARIABLE]
            story.boot()
            if place.kind == "failure" and action != "raise" and BROKEN in story.site.model_names():
                raise Violation("a model that cannot be loaded, and that nobody was told is registered, came back")


def _spec(place: Failpoint, action: str) -> str:
    """The first change of the attacked life is a boot's own claim for nobody; changes are hit at their second pass."""
    spec = f"sleep:{SLEEP:g}" if action == "sleep" else action
    return f"{spec}@1" if action != "kill" or place.kind in ("boot", "replay", "stop") else f"{spec}@2"


def _live_through(story: Story, place: Failpoint, action: str) -> None:
    """Run the attacked life to its end: by itself where it was hit, else by an orderly stop."""
    story.site.launch()
    if place.kind in ("boot", "replay"):
        if action == "sleep":
            story.booted(repeat=False)
            story.kill()
        else:
            _wait_for_end(story, what=f"{action} at {place.name}", or_ready=action == "raise")
        return
    try:
        story.booted(repeat=False)
    except Violation:
        if not _was_hit(story, place, action):
            raise
        story.died()  # the boot itself passes this place: it ends what an earlier life had begun
        return
    if place.kind == "stop":
        story.load().wait_for(2)
        story.note_belongings()
        story.site.term()
        story.site.gone()
        story.died(asked=True, hurried=action != "sleep")
        return
    _change_things(story, place, action)


def _was_hit(story: Story, place: Failpoint, action: str) -> bool:
    """Whether the server has ended because of the place: a boot that a defect ends is as dirty as one that is killed."""
    process = story.site.process
    code = None if process is None else process.poll()
    if action == "kill":
        return code == -signal.SIGKILL
    of_this_life = story.site.log().rpartition(_LIFE_BEGINS)[2]
    return action == "raise" and code == 1 and f"FailpointReached: {place.name}" in of_this_life


def _change_things(story: Story, place: Failpoint, action: str) -> None:
    """Load with every verb, until the place has had its chance; then the server is killed, unless the place did it."""
    story.load()
    deadline = time.monotonic() + (6.0 if action == "kill" else 1.5)
    process = story.site.process
    assert process is not None
    if place.kind == "failure":
        if story.rng.random() < 0.5:
            story.rest()  # the only load under way, when the server dies, is the one that fails
        _register_broken(story)
    while process.poll() is None and time.monotonic() < deadline:
        story.note_belongings()
        time.sleep(0.1)
    if process.poll() is None:
        if action == "kill" and place.kind != "failure":
            raise Violation(f"under load the place {place.name} was not passed within 6 s")
        story.kill()
    else:
        story.died()


def _register_broken(story: Story) -> None:
    """A model whose load fails: nobody is ever told that it is registered."""
    broken = story.site.models / BROKEN
    if not broken.exists():
        (broken / "MAR-INF").mkdir(parents=True)
        (broken / "MAR-INF" / "MANIFEST.json").write_text(
            '{"model": {"modelName": "broken", "handler": "service:handle"}}'
        )
        (broken / "service.py").write_text("raise RuntimeError('this model never loads')\n")
    client = Client("breaker", story.site, story.history, story.rng)
    try:
        for _ in range(2):
            if client.change(Verb.REGISTER, BROKEN, {"min_workers": 1}).outcome is Outcome.OK:
                raise Violation("a model that cannot be loaded was registered")
    finally:
        client.close()


def _wait_for_end(story: Story, *, what: str, or_ready: bool) -> None:
    process = story.site.process
    assert process is not None
    deadline = time.monotonic() + _HIT_WITHIN
    while process.poll() is None:
        story.note_belongings()
        if or_ready and _settled(story):
            story.kill()
            return
        if time.monotonic() > deadline:
            raise Violation(f"{what} did not end the server within {_HIT_WITHIN:g} s, nor did it become ready")
        time.sleep(0.05)
    story.died()


def _settled(story: Story) -> bool:
    with suppress(httpx.TransportError):
        return story.site.manage("GET", "/readyz").status_code == 200
    return False


def _fault(place: Failpoint, action: str, quick: int) -> Fault:
    return Fault(
        f"at-{place.name}-{action}",
        lambda trial: run_place(place, action, trial),
        quick=quick,
        rounds=2,
        what=f"{action} at {place.name}: {place.where}",
    )


_QUICK = {("begin.after_commit", "kill"), ("claim.after_commit", "kill"), ("unregister.withdrawn", "raise")}

FAULTS = tuple(_fault(place, action, int((place.name, action) in _QUICK)) for action in ACTIONS for place in TABLE)

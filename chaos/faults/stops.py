"""SIGTERM at any moment: under load, while booting, twice, and followed by SIGKILL."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from chaos.site import until
from chaos.story import Story
from chaos.trial import Fault, Trial
from chaos.violation import Violation
from mms.failpoints import VARIABLE


def stop_under_load(trial: Trial) -> None:
    """An orderly stop under load: exit 0 and the clean mark, and `--recover` brings back all that was acknowledged."""
    with trial.story() as story:
        story.boot()
        for rng in trial.rounds():
            story.load().wait_for(rng.randrange(2, 10))
            time.sleep(rng.uniform(0, 0.2))
            story.note_belongings()
            story.site.term()
            if (code := story.site.gone()) != 0:
                raise Violation(f"the server was asked to stop under load and ended with {code}")
            story.died(asked=True)
            story.boot()


def stop_while_booting(trial: Trial) -> None:
    """SIGTERM at a random moment of a replay: the boot is repeated, unless it had just finished."""
    with trial.story() as story:
        story.boot()
        for rng in trial.rounds():
            story.load().wait_for(rng.randrange(2, 8))
            story.kill()
            story.site.launch()
            time.sleep(rng.uniform(0, 1.2))
            story.note_belongings()
            story.site.term()
            code = story.site.gone()
            # Before the server has taken charge of its signals, SIGTERM ends it as it ends any process.
            if code not in (0, -signal.SIGTERM):
                raise Violation(f"the server was asked to stop while booting and ended with {code}")
            story.died(asked=True)
            story.boot()


def stop_in_boot(trial: Trial) -> None:
    """SIGTERM while the boot certainly has not finished: never marked clean, and the next boot replays."""
    with trial.story() as story:
        story.boot()
        for _ in trial.rounds():
            story.load().wait_for(4)
            story.kill()
            story.site.environment[VARIABLE] = "boot.planned=sleep:1"
            before = story.site.log().count("Boot decision")
            story.site.launch()
            until(lambda before=before: story.site.log().count("Boot decision") > before, 30, "the boot decision")  # type: ignore[misc]
            until(story.site.is_listening, 30, "open ports")
            story.note_belongings()
            story.site.term()
            if (code := story.site.gone()) != 0:
                raise Violation(f"the server was asked to stop while booting and ended with {code}")
            story.died(asked=True, booting=True)
            del story.site.environment[VARIABLE]
            story.boot()


def stop_twice(trial: Trial) -> None:
    """A second signal during the drain: a quick end, clean only where all was settled."""
    with trial.story() as story:
        story.boot()
        for rng in trial.rounds():
            story.load().wait_for(rng.randrange(2, 10))
            story.note_belongings()
            story.site.term()
            time.sleep(rng.uniform(0, 0.15))
            story.site.term()
            story.site.gone()
            story.died(asked=True, hurried=True)
            story.boot()


def stop_then_kill(trial: Trial) -> None:
    """SIGKILL during the drain: what the clean mark says decides, and nothing acknowledged is lost either way."""
    with trial.story() as story:
        story.boot()
        for rng in trial.rounds():
            story.load().wait_for(rng.randrange(2, 10))
            story.note_belongings()
            story.site.term()
            time.sleep(rng.uniform(0, 0.25))
            _kill(story)
            story.site.gone()
            story.died(asked=True, hurried=True)
            story.boot()


def _kill(story: Story) -> None:
    with suppress(ProcessLookupError):
        os.kill(story.site.pid, signal.SIGKILL)


FAULTS = (
    Fault("stop", stop_under_load, quick=1, rounds=6, what="SIGTERM at a random moment under load"),
    Fault("stop-booting", stop_while_booting, quick=1, rounds=6, what="SIGTERM at a random moment of a replay"),
    Fault("stop-in-boot", stop_in_boot, quick=1, rounds=2, what="SIGTERM before the models are loaded"),
    Fault("stop-twice", stop_twice, quick=0, rounds=3, what="SIGTERM twice"),
    Fault("stop-kill", stop_then_kill, quick=0, rounds=3, what="SIGTERM, then SIGKILL during the drain"),
)

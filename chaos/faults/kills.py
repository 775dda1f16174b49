"""SIGKILL of the server: under load, in chains, while it boots."""

from __future__ import annotations

import random
import time

from chaos.story import Story
from chaos.trial import Fault, Trial
from chaos.violation import Violation


def kill_under_load(trial: Trial) -> None:
    """Once changes flow, the server is killed at a random moment; everything acknowledged must come back."""
    with trial.story() as story:
        story.boot()
        for rng in trial.rounds():
            story.load().wait_for(rng.randrange(2, 12))
            time.sleep(rng.uniform(0, 0.3))
            story.kill()
            story.boot()


def crash_chain(trial: Trial) -> None:
    """Two to five crashes in a row, the later ones at random moments of the boot: the same result as after one."""
    with trial.story() as story:
        story.boot()
        for rng in trial.rounds():
            story.load().wait_for(rng.randrange(2, 8))
            story.kill()
            for _ in range(rng.randrange(1, 5)):
                crash_booting(story, rng)
            story.boot()


def crash_booting(story: Story, rng: random.Random, *, earliest: float = 0.2, latest: float = 1.2) -> None:
    """Start the server and kill it at a random moment of the boot, or soon after it; seconds after the start."""
    story.site.launch()
    time.sleep(rng.uniform(earliest, latest))
    story.note_belongings()
    if story.site.process is not None and story.site.process.poll() is not None:
        raise Violation(f"a boot ended by itself with {story.site.process.returncode}")
    story.site.kill()
    story.died()


FAULTS = (
    Fault("kill", kill_under_load, quick=4, rounds=10, what="SIGKILL of the server at a random moment under load"),
    Fault(
        "crash-chain", crash_chain, quick=2, rounds=5, what="2 to 5 SIGKILLs in a row, at random moments of the boot"
    ),
)

"""SIGKILL of the server: under load, in chains, while it boots."""

from __future__ import annotations

import time
from contextlib import suppress

from chaos.trial import Fault, Trial
from chaos.violation import Violation


def kill_under_load(trial: Trial) -> None:
    """Once changes flow, the server is killed at a random moment; everything acknowledged must come back."""
    rng = trial.rng
    with trial.story() as story:
        story.boot()
        load = story.load()
        load.wait_for(rng.randrange(2, 12))
        time.sleep(rng.uniform(0, 0.3))
        story.kill()
        story.boot()


def crash_chain(trial: Trial) -> None:
    """Two to five crashes in a row, the later ones at random moments of the boot: the same result as after one."""
    rng = trial.rng
    with trial.story() as story:
        story.boot()
        story.load().wait_for(rng.randrange(2, 8))
        story.kill()
        for _ in range(rng.randrange(1, 5)):
            story.site.launch()
            time.sleep(rng.uniform(0.2, 1.8))
            with suppress(ProcessLookupError):
                story.note_belongings()
            if story.site.process is not None and story.site.process.poll() is not None:
                raise Violation(f"a boot ended by itself with {story.site.process.returncode}")
            story.site.kill()
            story.died()
        story.boot()


FAULTS = (
    Fault("kill", kill_under_load, quick=2, full=60, what="SIGKILL of the server at a random moment under load"),
    Fault("crash-chain", crash_chain, quick=1, full=12, what="2 to 5 SIGKILLs in a row, at random moments of the boot"),
)

"""Files of the store under attack: bits flipped, cut, deleted, replaced by older copies; never a silently different state."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from chaos.checker import States
from chaos.column import SQLITE
from chaos.site import Site, until
from chaos.story import Story
from chaos.trial import Fault, Trial
from chaos.violation import Violation

DAMAGED = 78
_ENDS_WITHIN = 60.0
LIVES_EVERY = 5
"""Trials that damage the same store, before the server changes it again."""


def damage(kind: str, trial: Trial) -> None:
    """One file is damaged while the server is down. The next boot: the same state as ever, or exit 78 that says what is wrong.

    Before the next trial, the undamaged files are put back; now and then the server lives on with them for a while.
    """
    early, whole = trial.folder / "early", trial.folder / "whole"
    with trial.story(config={"boot_store_timeout": 10}) as story:
        story.boot()
        known: States = {}
        for number, rng in enumerate(trial.rounds()):
            if number % LIVES_EVERY == 0:
                if number:
                    story.boot()
                known = _live(story, rng, early)
                _copy(story.site.data, whole)
            told = _damage(kind, story.site.data, early, rng)
            (trial.folder / "damage.txt").write_text(told + "\n")
            _boot_or_refusal(story, known, told)
            _put_back(whole, story.site.data)


def _live(story: Story, rng: random.Random, early: Path) -> States:
    """A life with changes, and its end; leaves an older copy of the store, and returns the last state."""
    story.load().wait_for(3)
    if rng.random() < 0.4:  # a clean stop leaves no write-ahead log, so that the file itself carries everything
        story.rest()
        story.site.term()
        story.site.gone()
        story.died(asked=True)
        _copy(story.site.data, early)
        story.boot()
        story.load().wait_for(2)
    else:
        _copy(story.site.data, early)
    story.load_on(rng.randrange(2, 6))
    story.rest()
    known = story.site.states()
    story.kill()
    return known


def _boot_or_refusal(story: Story, known: States, told: str) -> None:
    story.site.launch()
    process = story.site.process
    assert process is not None
    until(lambda: process.poll() is not None or _complete(story.site), _ENDS_WITHIN, "an end or a complete boot")
    if process.poll() is None:
        found = story.site.states()
        if dict(found) != dict(known):
            raise Violation(f"{told}: the server came up with a silently different state: {found}, not {known}")
        story.site.kill()
        return
    log = story.site.log()
    if process.returncode != DAMAGED:
        raise Violation(f"{told}: the server ended with {process.returncode}, not {DAMAGED}")
    if "--accept-store-loss" not in log and "--clean-start" not in log and "backup" not in log:
        raise Violation(f"{told}: exit {DAMAGED} without a word of what to do")


def _complete(site: Site) -> bool:
    process = site.process
    return process is not None and process.poll() is None and site.is_complete()


def _put_back(whole: Path, data: Path) -> None:
    for path in [*data.glob("store.db*"), *_store_files(data)]:
        if path.suffix != ".lock":
            path.unlink(missing_ok=True)
    for path in whole.iterdir():
        shutil.copy2(path, data / path.name)


def _copy(data: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path in _store_files(data):
        shutil.copy2(path, target / path.name)


def _store_files(data: Path) -> list[Path]:
    return [path for path in data.iterdir() if path.name == "store.db" or path.suffix in (".db-wal", ".witness")]


def _damage(kind: str, data: Path, early: Path, rng: random.Random) -> str:
    """Damage one thing; returns what was done, in words."""
    files = sorted((path for path in _store_files(data) if path.stat().st_size), key=lambda path: path.name)
    if kind == "old-copy":
        for path in data.glob("store.db*"):
            if path.suffix in (".db", ".db-wal", ".db-shm"):
                path.unlink()
        old = [path for path in early.iterdir() if path.name.startswith("store.db")]
        for path in old:
            shutil.copy2(path, data / path.name)
        return f"the database was replaced by an older copy ({', '.join(sorted(path.name for path in old))})"
    path = rng.choice(files)
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    if kind == "delete":
        path.unlink()
        return f"{path.name} was deleted"
    if kind == "flip":
        content[at] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        return f"a bit of {path.name} at byte {at} of {len(content)} was flipped"
    if kind == "zero":
        start = at - at % 4096
        content[start : start + 4096] = bytes(len(content[start : start + 4096]))
        path.write_bytes(content)
        return f"the page of {path.name} at byte {start} of {len(content)} was filled with zeros"
    path.write_bytes(content[:at])
    return f"{path.name} was cut from {len(content)} to {at} bytes"


def _fault(kind: str, what: str, quick: int) -> Fault:
    return Fault(f"damage-{kind}", lambda trial: damage(kind, trial), quick, 10, (SQLITE,), what=what)


FAULTS = (
    _fault("flip", "one bit of database, write-ahead log or witness flipped", 5),
    _fault("zero", "one page of them filled with zeros", 1),
    _fault("cut", "one of them cut", 1),
    _fault("delete", "one of them deleted", 1),
    _fault("old-copy", "the database replaced by an older copy of itself", 2),
)

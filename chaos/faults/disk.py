"""A disk of a few MiB that fills up or runs out of inodes under load: no promise without durability, and back by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chaos.column import SQLITE
from chaos.faults.serving import must_come_back, must_serve, serving
from chaos.history import Outcome
from chaos.site import until
from chaos.story import Story
from chaos.trial import Fault, Trial

BACK_WITHIN = 25.0


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own, 12 MiB and 400 inodes, in memory."""
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m,nr_inodes=400", "tmpfs", str(folder)], check=True, capture_output=True
    )
    try:
        yield folder
    finally:
        keep = folder.parent / "disk-kept"
        shutil.copytree(folder, keep, ignore=shutil.ignore_patterns("filler*", "inode-*"))
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def full(trial: Trial) -> None:
    """Every block is taken while clients change things."""
    _attack(trial, _fill, _unfill)


def inodes(trial: Trial) -> None:
    """Every inode is taken while clients change things."""
    _attack(trial, _take_inodes, _give_inodes)


def _attack(trial: Trial, strike: Callable[[Path], None], heal: Callable[[Path], None]) -> None:
    with small_disk(trial.folder / "disk") as disk, trial.story(config={"data_dir": disk}) as story:
        story.boot()
        for rng in trial.rounds():
            story.load().wait_for(4)
            answering = serving(story)
            strike(disk)
            noted = len(story.history.calls())
            until(lambda noted=noted: _has_bitten(story, noted), 20, "a refusal, or 150 calls, on the full disk")  # type: ignore[misc]
            must_serve(story, answering, "on a full disk")
            if rng.random() < 0.5:  # the crash in the middle of it
                story.kill()
                heal(disk)
                story.boot()
                story.load()
            heal(disk)
            must_come_back(story, BACK_WITHIN)
            story.judge_living()
            story.kill()
            story.boot()


def _has_bitten(story: Story, noted: int) -> bool:
    """The write-ahead log goes on for a while in the space that it has."""
    since = story.history.calls()[noted:]
    return len(since) > 150 or (len(since) > 40 and any(call.outcome is Outcome.REFUSED for call in since))


def _fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def _unfill(disk: Path) -> None:
    (disk / "filler").unlink(missing_ok=True)


def _take_inodes(disk: Path) -> None:
    with suppress(OSError):
        for number in range(1000):
            (disk / f"inode-{number}").touch()


def _give_inodes(disk: Path) -> None:
    for path in disk.glob("inode-*"):
        path.unlink()


def _no_mount() -> str:
    if os.geteuid() != 0:
        return "mounting a small file system needs root"
    probe = Path("/run") / f"mms-chaos-probe-{os.getpid()}"
    probe.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(probe)], capture_output=True, check=False
        )
        if done.returncode == 0:
            subprocess.run(["umount", str(probe)], check=True, capture_output=True)
        return "" if done.returncode == 0 else "this machine lets nobody mount a file system"
    finally:
        probe.rmdir()


FAULTS = (
    Fault("disk-full", full, 1, 5, (SQLITE,), missing=_no_mount, what="every block of the disk taken under load"),
    Fault("disk-inodes", inodes, 1, 5, (SQLITE,), missing=_no_mount, what="every inode of the disk taken under load"),
)

"""Reads and writes of the store that fail under a whole server: read-only file systems, and I/O errors at writes, syncs and opens.

strace attaches to the living server and lets the chosen system calls on the store's own files fail, until it lets go.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from chaos.column import SQLITE
from chaos.faults.serving import must_come_back, must_serve, serving
from chaos.history import Outcome
from chaos.site import Site, until
from chaos.story import Story
from chaos.trial import Fault, Trial
from chaos.violation import Violation

BACK_WITHIN = 25.0
_ENDS_WITHIN = 60.0
_FREED_WITHIN = 10.0
_BITES_WITHIN = 30.0
WRITES = "pwrite64,pwritev,write,writev,ftruncate,fallocate"
SYNCS = "fsync,fdatasync"
OPENS = "openat,open"
_IMAGE_MIB = 24


@contextmanager
def failing(site: Site, calls: str, error: str) -> Iterator[None]:
    """Let these system calls on files of the store fail for as long as the block lasts."""
    strace = subprocess.Popen(
        ["strace", "-f", "-q", "-o", "/dev/null", *_inject(site, calls, error), "-p", str(site.pid)],
        stderr=subprocess.PIPE,
    )
    try:
        until(lambda: strace.poll() is not None or _traced(site.pid), 20, "strace on every thread of the server")
        if strace.poll() is not None:
            raise RuntimeError(f"strace did not attach: {strace.communicate()[1].decode()}")
        yield
    finally:
        strace.terminate()
        strace.communicate(timeout=30)


def _inject(site: Site, calls: str, error: str) -> list[str]:
    names = sorted(path for path in site.data.iterdir() if path.is_file() and path.suffix != ".lock")
    chosen = [option for path in names for option in ("-P", str(path))]
    return [*chosen, "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}"]


def _traced(pid: int) -> bool:
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    return all("TracerPid:\t0\n" not in (task / "status").read_text() for task in tasks)


def io_error(calls: str, trial: Trial) -> None:
    """These calls fail with EIO under load: nothing is acknowledged meanwhile, models answer, and the server comes back."""
    with trial.story() as story:
        story.boot()
        for rng in trial.rounds():
            crash = rng.random() < 0.4
            _strike(story, calls, "EIO", crash=crash)
            if crash:
                story.boot()
            else:
                story.judge_living()
                story.kill()
                story.boot()


def _strike(story: Story, calls: str, error: str, *, crash: bool = False) -> None:
    story.load().wait_for(3)
    answering = serving(story)
    with failing(story.site, calls, error):
        began = time.monotonic()
        until(lambda: _refused_since(story, began) >= 3, _BITES_WITHIN, f"changes that {error} keeps from being made")
        must_serve(story, answering, f"with {error} at {calls}")
        ended = time.monotonic()
        if crash:
            story.kill()
    _nothing_acknowledged(story, began, ended, error)
    if not crash:
        must_come_back(story, BACK_WITHIN)


def _refused_since(story: Story, began: float) -> int:
    lost = (Outcome.REFUSED, Outcome.UNKNOWN)
    return sum(bool(call.key) and call.outcome in lost and call.invoked > began for call in story.history.calls())


def _nothing_acknowledged(story: Story, began: float, ended: float, error: str) -> None:
    for call in story.history.calls():
        inside = call.key and call.invoked > began and call.returned is not None and call.returned < ended
        if inside and call.outcome is Outcome.OK:
            raise Violation(
                f"call {call.number} ({call.verb} {call.model}) was acknowledged while {error} made that impossible"
            )


def opening_fails(trial: Trial) -> None:
    """The store can neither be written nor opened again under load, nor at the next boot, which then decides nothing."""
    with trial.story(config={"boot_store_timeout": 2}) as story:
        story.boot()
        for _ in trial.rounds():
            _strike(story, f"{OPENS},{WRITES}", "EIO")
            story.judge_living()
            story.kill()
            story.site.wrapper = ("strace", "-f", "-q", "-o", "/dev/null", *_inject(story.site, OPENS, "EIO"))
            story.site.launch()
            story.site.wrapper = ()
            code = story.site.gone(_ENDS_WITHIN + 30)
            if code not in (69, 78):
                raise Violation(f"a server that cannot open its store ended with {code}, not with 69 or 78")
            story.boot()


@contextmanager
def own_file_system(folder: Path) -> Iterator[Path]:
    """A small ext4 in a file, which turns read-only at an error, as most do."""
    image = folder.parent / "disk.img"
    with image.open("wb") as file:
        file.truncate(_IMAGE_MIB << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True, capture_output=True)
    folder.mkdir()
    _mount(image, folder)
    try:
        yield folder
    finally:
        shutil.copytree(folder, folder.parent / "disk-kept", ignore=shutil.ignore_patterns("lost+found"))
        _unmount(folder)
        image.unlink()


def _mount(image: Path, folder: Path) -> None:
    command = ["mount", "-o", "loop,errors=remount-ro", str(image), str(folder)]
    subprocess.run(command, check=True, capture_output=True)


def _unmount(folder: Path) -> None:
    """Unmount, and wait until the loop device has let go of the file: it does so a moment later, and may still write to it."""
    subprocess.run(["umount", str(folder)], check=True, capture_output=True)
    image = str(folder.parent / "disk.img")
    used = partial(subprocess.run, ["losetup", "-j", image], check=True, capture_output=True)
    until(lambda: not used().stdout.strip(), _FREED_WITHIN, "loop device detached")


def _break(folder: Path) -> None:
    """Report an error to the file system, which turns it read-only under the server's open files."""
    found = subprocess.run(["findmnt", "-n", "-o", "SOURCE", str(folder)], check=True, capture_output=True, text=True)
    Path("/sys/fs/ext4", Path(found.stdout.strip()).name, "trigger_fs_error").write_text("chaos\n")


def _repair(folder: Path) -> None:
    image = folder.parent / "disk.img"
    _unmount(folder)
    done = subprocess.run(["e2fsck", "-p", str(image)], capture_output=True, text=True, check=False)
    if done.returncode > 1:  # 1: errors were corrected
        raise RuntimeError(f"the file system could not be repaired: {done.stdout}{done.stderr}")
    _mount(image, folder)
    (folder / "writable").touch()  # else the harness has failed, not the server


def read_only(trial: Trial) -> None:
    """Writes fail with EROFS for a while; then the file system really turns read-only, and is repaired after a crash.

    No change is under way at that moment: ext4 may answer a sync well that its own error undoes (seen with three plain
    writers and no server: 19 of 60 times), and nobody above it could know.
    """
    with own_file_system(trial.folder / "disk") as disk, trial.story(config={"data_dir": disk}) as story:
        story.boot()
        for _ in trial.rounds():
            _strike(story, f"{WRITES},{SYNCS}", "EROFS")
            story.judge_living()
            story.load().wait_for(2)
            story.rest()
            answering = serving(story)
            _break(disk)
            began = time.monotonic()
            story.load()
            until(partial(_some_refused, story, began), _BITES_WITHIN, "changes refused on a read-only file system")
            must_serve(story, answering, "on a read-only file system")
            _nothing_acknowledged(story, began, time.monotonic(), "a read-only file system")
            story.kill()
            _repair(disk)
            story.boot()


def _some_refused(story: Story, began: float) -> bool:
    return _refused_since(story, began) >= 3


def _no_strace() -> str:
    if shutil.which("strace") is None:
        return "strace is not installed (scripts/chaos --install-tools)"
    return ""


def _no_loop() -> str:
    if os.geteuid() != 0:
        return "mounting a small file system needs root"
    if shutil.which("mkfs.ext4") is None or not Path("/dev/loop-control").exists():
        return "mkfs.ext4 and loop devices are needed (scripts/chaos --install-tools)"
    if not Path("/sys/fs/ext4").exists():
        return "this kernel has no ext4"
    return _no_strace()


def _fault(name: str, calls: str) -> Fault:
    return Fault(
        f"disk-eio-{name}",
        lambda trial: io_error(calls, trial),
        quick=1,
        rounds=4,
        stores=(SQLITE,),
        missing=_no_strace,
        what=f"I/O errors at every {name} of the store under load",
    )


FAULTS = (
    _fault("write", WRITES),
    _fault("sync", SYNCS),
    Fault(
        "disk-eio-open",
        opening_fails,
        quick=1,
        rounds=4,
        stores=(SQLITE,),
        missing=_no_strace,
        what="I/O errors at every open and write of the store under load, then at the opens of a boot",
    ),
    Fault(
        "disk-readonly",
        read_only,
        quick=1,
        rounds=4,
        stores=(SQLITE,),
        missing=_no_loop,
        what="the store's file system turns read-only under load",
    ),
)

"""Process ids that lie: a server that is process 1 in every life, and a dead server's pid that comes again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from chaos.story import Story
from chaos.trial import Fault, Trial
from chaos.violation import Violation

_LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
_TRIES = 200
_KILLS = 5


def process_1(trial: Trial) -> None:
    """Each life is process 1 of a namespace of its own, as in a container, and is killed under load."""
    with trial.story() as story:
        story.site.wrapper = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
        story.boot()
        for rng in trial.rounds():
            story.load().wait_for(rng.randrange(2, 8))
            time.sleep(rng.uniform(0, 0.2))
            if rng.random() < 0.3:
                _stop_process_1(story)
            else:
                story.kill()
            recovery = story.boot()
            if recovery["decision"] == "REPLAY" and "pid 1 on" not in recovery["reason"]:
                raise Violation(f"the life before was process 1 and the reason does not say so: {recovery['reason']}")


def _stop_process_1(story: Story) -> None:
    """SIGTERM to process 1 itself, which must hear it although the kernel has no default action for it there."""
    story.note_belongings()
    story.site.term()
    if (code := story.site.gone()) != 0:
        raise Violation(f"process 1 was asked to stop and ended with {code}")
    story.died(asked=True)


def reused_pid(trial: Trial) -> None:
    """The pid of a killed server is the next server's own, or that of somebody else who lives on."""
    with trial.story() as story:
        story.boot()
        for rng in trial.rounds():
            for _ in range(_KILLS):
                story.load().wait_for(rng.randrange(2, 8))
                pid = story.site.pid
                story.kill()
                try:
                    _live_beside(story, pid, own=rng.random() < 0.5)
                    break
                except _Taken:
                    story.boot()  # and another server's pid is tried
            else:
                raise RuntimeError(f"the pids of {_KILLS} dead servers were all taken by other programs")


class _Taken(Exception):
    """Another program of this machine was given the pid first, and lives on."""


def _live_beside(story: Story, pid: int, *, own: bool) -> None:
    """The next life, with that pid as its `own`, or beside a stranger who has it. Raises _Taken."""
    if own:
        _launch_as(story, pid)
        story.booted()
        return
    stranger = _stranger(pid)
    try:
        story.boot()
        if stranger.poll() is not None:
            raise Violation(f"a stranger with the dead server's pid {pid} was ended with {stranger.returncode}")
    finally:
        stranger.kill()
        stranger.wait()


def _next_is(pid: int) -> None:
    """Let the next process of this machine have that pid. Raises _Taken."""
    if Path(f"/proc/{pid}").exists():
        raise _Taken
    _LAST_PID.write_text(str(pid - 1))


def _launch_as(story: Story, pid: int) -> None:
    """Start the server with that pid; one that got another is killed before it has loaded anything."""
    for _ in range(_TRIES):
        _next_is(pid)
        story.site.launch()
        if story.site.pid == pid:
            return
        story.site.kill()
    raise _Taken


def _stranger(pid: int) -> subprocess.Popen[bytes]:
    for _ in range(_TRIES):
        _next_is(pid)
        process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
        if process.pid == pid:
            return process
        process.kill()
        process.wait()
    raise _Taken


def _no_namespaces() -> str:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return "a namespace for process ids needs root and unshare"
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "true"], capture_output=True, check=False
    )
    return "" if done.returncode == 0 else "this machine allows no namespace for process ids"


def _no_last_pid() -> str:
    with suppress(OSError):
        _LAST_PID.write_text(_LAST_PID.read_text())
        return ""
    return f"choosing the next process id needs root and {_LAST_PID}"


FAULTS = (
    Fault("pid-one", process_1, 1, 5, missing=_no_namespaces, what="SIGKILL and SIGTERM of a server that is process 1"),
    Fault("pid-reused", reused_pid, 1, 5, missing=_no_last_pid, what="the pid of a killed server comes again"),
)

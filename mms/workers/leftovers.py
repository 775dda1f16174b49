"""Finds and ends processes that an older life of the same store left behind; called at boot, under the store's lock."""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mms.workers.forkserver import TAG_PREFIX

logger = logging.getLogger(__name__)

_LINK = f"/memfd:{TAG_PREFIX}"
_PATIENCE = 5.0  # seconds for the killed ones to be gone


def sweep_leftovers(store_uuid: str, epoch: int, proc: Path = Path("/proc")) -> list[int]:
    """Kill every process of this store's epochs before `epoch`, wait until they are gone, and return their pids.

    A process is known by the tag that it holds open, never by its pid alone: the tag is read again once the process is held by
    a pidfd, so a number that has been given to another process since is left in peace. Blocks for 5 s at most.
    """
    held: dict[int, int] = {}  # all of them before any is killed: workers end with their fork server
    for pid in _candidates(proc):
        if not _is_older(proc / str(pid), store_uuid, epoch):
            continue
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        if _is_older(proc / str(pid), store_uuid, epoch):
            held[pidfd] = pid
        else:
            os.close(pidfd)
    for pidfd in held:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    _wait(list(held))
    if held:
        pids = ", ".join(map(str, sorted(held.values())))
        logger.warning("Processes of an earlier life of this server were still running and have been ended: %s.", pids)
    return sorted(held.values())


def _candidates(proc: Path) -> Iterator[int]:
    own = os.getpid()
    for entry in proc.iterdir():
        if entry.name.isdigit() and int(entry.name) != own:
            yield int(entry.name)


def _is_older(process: Path, store_uuid: str, epoch: int) -> bool:
    for tag in _tags(process):
        uuid, _, number = tag.rpartition(":")
        if uuid == store_uuid and number.isdigit() and int(number) < epoch:
            return True
    return False


def _tags(process: Path) -> Iterator[str]:
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:  # gone, or another user's
        return
    for descriptor in descriptors:
        try:
            link = str(descriptor.readlink())
        except OSError:
            continue
        if link.startswith(_LINK):
            yield link.removeprefix(_LINK).removesuffix(" (deleted)")


def _wait(pidfds: list[int]) -> None:
    deadline = time.monotonic() + _PATIENCE
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    waiting = set(pidfds)
    while waiting and (left := deadline - time.monotonic()) > 0:
        for pidfd, _ in poll.poll(left * 1000):
            poll.unregister(pidfd)
            waiting.discard(pidfd)
    for pidfd in pidfds:
        os.close(pidfd)

"""What a dead server left behind: processes, zombies, ports, sockets, shared memory and temporary folders, one second later."""

from __future__ import annotations

import ctypes
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from chaos.site import Site

GRACE = 1.0
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Belongings:
    """What a living server has, noted just before its end."""

    processes: tuple[psutil.Process, ...] = ()
    shared: frozenset[str] = field(default_factory=frozenset)


def adopt_orphans() -> None:
    """Let orphans of dead servers become children of this process, since not every pid 1 reaps them."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans() -> None:
    """Collect what was adopted and has ended; the children that this process started itself are left to their owners."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.status() == psutil.STATUS_ZOMBIE and child.name().startswith("mms-"):
                _reap({child.pid})


def belongings(site: Site) -> Belongings:
    """All processes below the server, and the shared memory that they map (libfaketime's own is not theirs)."""
    try:
        processes = (psutil.Process(site.pid), *site.children())
    except psutil.NoSuchProcess:
        return Belongings()
    shared: set[str] = set()
    for process in processes:
        with suppress(OSError):
            for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
                if "/dev/shm/" in line and "(deleted)" not in line and "faketime_" not in line:
                    shared.add(line.split(None, 5)[-1])
    return Belongings(processes, frozenset(shared))


def left_behind(site: Site, had: Belongings) -> list[str]:
    """Wait for up to the grace, then name what is still there. The server process itself must have been waited for."""
    deadline = time.monotonic() + GRACE
    while (found := _look(site, had)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _look(site: Site, had: Belongings) -> list[str]:
    _reap({process.pid for process in had.processes})
    known = {process.pid: process for process in had.processes if process.is_running()}
    known |= {process.pid: process for process in _inside(site.folder)}
    found = [f"process {pid} ({_status(process)})" for pid, process in sorted(known.items())]
    found += [f"port {urlsplit(url).port} cannot be bound" for url in _urls(site) if not _bindable(url)]
    found += [f"temporary {path.name}" for path in site.temporary.iterdir()]
    found += [f"socket {path}" for path in site.folder.rglob("*") if path.is_socket()]
    found += [f"shared memory {name}" for name in sorted(had.shared) if Path(name).exists()]
    return found


def _reap(pids: set[int]) -> None:
    """Collect orphans that this process has adopted."""
    for pid in pids:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _inside(folder: Path) -> list[psutil.Process]:
    """Processes that work in the server's folder, however they came to be."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and Path(process.cwd()).is_relative_to(folder):
                found.append(process)
    return found


def _status(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return f"{process.status()}: {' '.join(process.cmdline())[:80]}"
    return "gone"


def _urls(site: Site) -> tuple[str, str]:
    return site.inference_url, site.management_url


def _bindable(url: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", urlsplit(url).port or 0))
        except OSError:
            return False
    return True

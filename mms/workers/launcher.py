"""Starts worker processes for the server and knows how each ended: through the fork server, or one fresh interpreter each.

Light on purpose: `launch_fork_server` is called before the heavy imports of the server.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from mms.errors import LoadFailed
from mms.workers.forkserver import TAG_PREFIX

logger = logging.getLogger(__name__)

_SECRET = re.compile(
    r"MMS_STORE_URL|(.*_)?(DATABASE|DB|POSTGRES|POSTGRESQL|PG|SQLALCHEMY)_?(DATABASE_)?(URL|URI|DSN)|PGPASS(WORD|FILE)"
    r"|PGSERVICEFILE|POSTGRES(QL)?_PASSWORD(_FILE)?|MMS_KEYSTORE_PASS",
    re.IGNORECASE,
)
_URL_WITH_PASSWORD = re.compile(r"postgres(ql)?(\+\w+)?://[^/@\s]*:[^/@\s]*@", re.IGNORECASE)
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Descriptors(NamedTuple):
    """The worker's ends: its socket, the pipes that become its stdout and stderr, and the file of its progress."""

    sock: int
    stdout: int
    stderr: int
    progress: int


class Exit(NamedTuple):
    """How a process ended: its wait status, None where nobody could tell; `environment` where the fork server went first."""

    status: int | None
    environment: bool = False


def worker_environment(environ: Mapping[str, str], blacklist: str | None = None) -> dict[str, str]:
    """What of `environ` workers may see: nothing that opens the store, nothing whose name `blacklist` matches in full."""
    hidden = re.compile(blacklist) if blacklist else None
    kept = {
        name: value
        for name, value in environ.items()
        if not _SECRET.fullmatch(name)
        and not _URL_WITH_PASSWORD.search(value)
        and not (hidden is not None and hidden.fullmatch(name))
    }
    for name in _THREAD_LIMITS:
        kept.setdefault(name, "1")
    kept.setdefault("MXNET_USE_OPERATOR_TUNING", "0")
    kept.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else onnxruntime's import leaves a session file in TMPDIR
    return kept


def _interpreter(statement: str) -> list[str]:
    """A fresh interpreter that finds this package, whatever the working directory holds, and runs one statement."""
    root = str(Path(__file__).parents[2])
    return [sys.executable, "-P", "-c", f"import sys; sys.path.append({root!r}); {statement}"]


class ForkServerProcess(NamedTuple):
    """A fork server that has been started; it may still be importing."""

    process: subprocess.Popen[bytes]
    sock: socket.socket


def launch_fork_server(blacklist: str | None = None) -> ForkServerProcess:
    """Start the fork server with a filtered environment and return at once.

    Call it in a thread that lives as long as the server (the main thread): the kernel ends the fork server, and with it every
    worker, when that thread ends.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        number = theirs.fileno()
        statement = f"from mms.workers.forkserver import serve; serve({number}, {os.getpid()})"
        process = subprocess.Popen(
            _interpreter(statement),
            env=worker_environment(os.environ, blacklist),
            pass_fds=(number,),
            stdin=subprocess.DEVNULL,
        )
    ours.setblocking(False)
    return ForkServerProcess(process, ours)


class ChildProcess:
    """A started worker process, held by its pidfd; `exited` gets its Exit once it is gone."""

    def __init__(self, pid: int, pidfd: int, ended: Callable[[ChildProcess], None]) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[Exit] = self._loop.create_future()
        self._loop.add_reader(pidfd, self._gone)

    def kill(self) -> None:
        """SIGKILL, to this very process; without effect once it is gone."""
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    @property
    def running(self) -> bool:
        """False once the kernel has reported its end."""
        return self._pidfd >= 0

    def _gone(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._ended(self)

    def finish(self, how: Exit) -> None:
        """Say how it ended; the first word counts."""
        if not self.exited.done():
            self.exited.set_result(how)


class Launcher(Protocol):
    """Starts worker processes."""

    async def open(self) -> None:
        """Make ready; idempotent."""

    async def start(self, descriptors: Descriptors) -> ChildProcess:
        """A new worker process on `descriptors`, which stay the caller's to close. Raises LoadFailed (environment)."""

    async def close(self) -> None:
        """End what the launcher itself runs; its workers have ended before."""


class SpawnLauncher:
    """Starts a fresh interpreter for each worker: slower and larger, and free of anything that a fork may carry over."""

    def __init__(self, blacklist: str | None, tag: str) -> None:
        self._blacklist = blacklist
        self._tag = tag
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._spawner = ThreadPoolExecutor(1, "spawner")

    async def open(self) -> None:
        """Nothing runs beforehand."""

    async def start(self, descriptors: Descriptors) -> ChildProcess:
        """Start one interpreter."""
        loop = asyncio.get_running_loop()
        spawning = loop.run_in_executor(self._spawner, self._spawn, descriptors)
        try:
            process = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            process = await spawning
            process.kill()
            await loop.run_in_executor(None, process.wait)
            raise
        except OSError as error:
            raise LoadFailed(f"A worker process could not be started: {error.strerror}", environment=True) from error
        self._processes[process.pid] = process
        return ChildProcess(process.pid, os.pidfd_open(process.pid), self._ended)

    def _spawn(self, descriptors: Descriptors) -> subprocess.Popen[bytes]:
        tag = os.memfd_create(TAG_PREFIX + self._tag)
        try:
            statement = f"from mms.workers.child import main; main({tuple(descriptors)}, {os.getpid()})"
            return subprocess.Popen(
                _interpreter(statement),
                env=worker_environment(os.environ, self._blacklist),
                pass_fds=(*descriptors, tag),
                stdin=subprocess.DEVNULL,
            )
        finally:
            os.close(tag)

    def _ended(self, child: ChildProcess) -> None:
        code = self._processes.pop(child.pid).wait()
        child.finish(Exit(-code if code < 0 else code << 8))

    async def close(self) -> None:
        """End the starting thread."""
        self._spawner.shutdown(wait=False)

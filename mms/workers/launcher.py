"""Starts worker processes for the server and knows how each ended: through the fork server, or one fresh interpreter each.

Light on purpose: `launch_fork_server` is called before the heavy imports of the server.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from mms.errors import LoadFailed
from mms.workers.forkserver import MESSAGE, TAG_PREFIX, receive

logger = logging.getLogger(__name__)

_STATUS_WAIT = 1.0  # seconds for the fork server to tell how a worker ended, once the kernel says that it has
_HELLO_WAIT = 60.0  # seconds for the fork server's imports
_SECRET = re.compile(
    r"MMS_STORE_URL|(.*_)?(DATABASE|DB|POSTGRES|POSTGRESQL|PG|SQLALCHEMY)_?(DATABASE_)?(URL|URI|DSN)|PGPASS(WORD|FILE)"
    r"|PGSERVICEFILE|POSTGRES(QL)?_PASSWORD(_FILE)?|MMS_KEYSTORE_PASS",
    re.IGNORECASE,
)
_URL_WITH_PASSWORD = re.compile(r"postgres(ql)?(\+\w+)?://[^/@\s]*:[^/@\s]*@", re.IGNORECASE)
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Descriptors(NamedTuple):
    """The worker's ends: its socket and the pipes that become its stdout and stderr."""

    sock: int
    stdout: int
    stderr: int


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


def _send(sock: socket.socket, packet: bytes, descriptors: Sequence[int]) -> None:
    """Send one packet from a thread that may wait for room."""
    while True:
        try:
            socket.send_fds(sock, [packet], list(descriptors))
        except BlockingIOError:
            select.select((), (sock,), ())
        else:
            return


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


class ForkServerLauncher:
    """Starts workers through the fork server, and starts a new fork server when it dies."""

    def __init__(self, blacklist: str | None, tag: str, running: ForkServerProcess | None = None) -> None:
        self._blacklist = blacklist
        self._tag = tag
        self._server = running
        self._ready = False
        self._opening = asyncio.Lock()
        self._hello: asyncio.Future[None] | None = None
        self._next = 0
        self._starting: dict[int, asyncio.Future[ChildProcess]] = {}
        self._tokens: dict[ChildProcess, int] = {}
        self._children: dict[int, ChildProcess] = {}
        self._statuses: dict[int, int] = {}
        # One thread that never ends starts every process: the kernel's parent-death signal follows the starting thread.
        self._spawner = ThreadPoolExecutor(1, "spawner")

    @property
    def pid(self) -> int | None:
        """Process id of the fork server, None while there is none."""
        return self._server.process.pid if self._server is not None else None

    async def open(self) -> None:
        """Wait until the fork server has imported its libraries, starting it first where need be."""
        async with self._opening:
            if self._ready:
                return
            loop = asyncio.get_running_loop()
            if self._server is None:
                self._server = await loop.run_in_executor(self._spawner, launch_fork_server, self._blacklist)
            self._hello = loop.create_future()
            loop.add_reader(self._server.sock.fileno(), self._read)
            try:
                await asyncio.wait_for(self._hello, _HELLO_WAIT)
            except TimeoutError:
                self._lost()
                raise LoadFailed("The fork server did not become ready.", environment=True) from None
            await loop.run_in_executor(self._spawner, _send, self._server.sock, b"t" + self._tag.encode(), ())
            self._ready = True

    async def start(self, descriptors: Descriptors) -> ChildProcess:
        """Ask the fork server for one worker."""
        await self.open()
        loop = asyncio.get_running_loop()
        token = self._next = self._next + 1
        server = self._server
        if server is None:
            raise LoadFailed("The fork server is gone.", environment=True)
        started = self._starting[token] = loop.create_future()
        packet = MESSAGE.pack(b"s", token, 0)
        sending = loop.run_in_executor(self._spawner, _send, server.sock, packet, descriptors)
        try:
            await asyncio.shield(sending)
            return await asyncio.shield(started)
        except asyncio.CancelledError:
            # The process may come up all the same: nobody waits for it any more, so it ends at once.
            started.add_done_callback(_kill_started)
            await asyncio.wait([sending])  # the caller closes the descriptors next
            raise
        except OSError as error:
            raise LoadFailed(f"The fork server does not answer: {error}", environment=True) from error

    def _read(self) -> None:
        server = self._server
        if server is None:
            return
        while True:
            try:
                packet, descriptors = receive(server.sock)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._lost()
                return
            kind, token, number = MESSAGE.unpack(packet)
            self._obey(kind, token, number, descriptors)

    def _obey(self, kind: bytes, token: int, number: int, descriptors: list[int]) -> None:
        if kind == b"s":
            child = ChildProcess(number, descriptors[0], self._ended)
            self._tokens[child] = token
            self._children[token] = child
            self._settle(token, child)
        elif kind == b"x":
            known = self._children.get(token)
            if known is not None and not known.running:
                self._forget(known, Exit(number))
            else:
                self._statuses[token] = number
        elif kind == b"f":
            reason = os.strerror(number)
            self._settle(token, LoadFailed(f"The fork server could not start a process: {reason}", environment=True))
        elif kind == b"h" and self._hello is not None and not self._hello.done():
            self._hello.set_result(None)

    def _settle(self, token: int, outcome: ChildProcess | LoadFailed) -> None:
        waiting = self._starting.pop(token, None)
        if waiting is None or waiting.done():
            if isinstance(outcome, ChildProcess):
                outcome.kill()
        elif isinstance(outcome, ChildProcess):
            waiting.set_result(outcome)
        else:
            waiting.set_exception(outcome)

    def _ended(self, child: ChildProcess) -> None:
        """The kernel says that the process is gone; the fork server says how, unless it is gone itself."""
        token = self._tokens[child]
        status = self._statuses.pop(token, None)
        if status is not None:
            self._forget(child, Exit(status))
        elif self._server is None:
            self._forget(child, Exit(None, environment=True))
        else:
            asyncio.get_running_loop().call_later(_STATUS_WAIT, self._forget, child, Exit(None))

    def _forget(self, child: ChildProcess, how: Exit) -> None:
        token = self._tokens.pop(child, None)
        if token is not None:
            del self._children[token]
        child.finish(how)

    def _lost(self) -> None:
        """The fork server is gone: its workers go too, and the next start brings up a new one."""
        server, self._server, self._ready = self._server, None, False
        if server is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(server.sock.fileno())
        server.sock.close()
        server.process.kill()
        loop.run_in_executor(None, server.process.wait)
        gone = LoadFailed("The fork server ended while the worker was being started.", environment=True)
        for token in list(self._starting):
            self._settle(token, gone)
        if self._hello is not None and not self._hello.done():
            self._hello.set_exception(LoadFailed("The fork server could not be started.", environment=True))
        if self._children:
            logger.error("The fork server (pid %d) ended; its workers are being replaced.", server.process.pid)
        for child in list(self._children.values()):
            if child.running:
                child.kill()
            else:
                self._forget(child, Exit(None, environment=True))

    async def close(self) -> None:
        """End the fork server."""
        server, self._server, self._ready = self._server, None, False
        if server is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(server.sock.fileno())
            server.sock.close()
            server.process.kill()
            await loop.run_in_executor(None, server.process.wait)
        self._spawner.shutdown(wait=False)


def _kill_started(started: asyncio.Future[ChildProcess]) -> None:
    if not started.cancelled() and started.exception() is None:
        started.result().kill()


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
            statement = (
                "import socket; from mms.workers.child import main; "
                f"main(socket.socket(fileno={descriptors.sock}), {descriptors.stdout}, {descriptors.stderr}, {os.getpid()})"
            )
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


def describe_exit(how: Exit) -> str:
    """One sentence part for people: how a worker process ended."""
    if how.environment:
        return "ended because the fork server ended"
    status = how.status
    if status is None:
        return "ended in an unknown way"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = "unknown"
        hint = ": most likely out of memory" if number == signal.SIGKILL else ""
        return f"was killed by signal {number} ({name}){hint}"
    return f"exited with status {os.WEXITSTATUS(status)}"

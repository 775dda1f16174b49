"""The server's side of the fork server: asks it for workers, learns from it how they ended, and starts a new one when it dies."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from mms.errors import LoadFailed
from mms.workers.forkserver import MESSAGE, receive
from mms.workers.launcher import ChildProcess, Descriptors, Exit, ForkServerProcess, launch_fork_server

logger = logging.getLogger(__name__)

_STATUS_WAIT = 1.0  # seconds for the fork server to tell how a worker ended, once the kernel says that it has
_HELLO_WAIT = 60.0  # seconds for the fork server's imports


def _send(sock: socket.socket, packet: bytes, descriptors: Sequence[int]) -> None:
    """Send one packet from a thread that may wait for room."""
    while True:
        try:
            socket.send_fds(sock, [packet], list(descriptors))
        except BlockingIOError:
            select.select((), (sock,), ())
        else:
            return


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

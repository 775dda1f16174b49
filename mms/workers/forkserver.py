"""The fork server's own process: imports the heavy libraries once, holds no session and no event loop, and forks workers.

Messages on its socket (SOCK_SEQPACKET, one message a packet): `s` token with three descriptors (socket, stdout, stderr) starts a
worker; `t` name tags this process and all its later workers. It answers `h` when it is ready, `s` token, pid with a
pidfd, `f` token, errno when it could not fork, and `x` token, wait status when a worker has ended.
"""

from __future__ import annotations

import array
import errno
import gc
import importlib
import os
import select
import signal
import socket
import struct
import traceback
from typing import NoReturn

from mms.workers import child

MESSAGE = struct.Struct("<cQq")
"""Kind, token, and a number that the kind gives a meaning."""

MAX_PACKET = 4096
MAX_DESCRIPTORS = 4
TAG_PREFIX = "mms-worker:"
PRELOAD = ("numpy", "onnxruntime", "mms.workers.onnx")


def serve(descriptor: int, parent: int) -> NoReturn:
    """Fork workers for the server at the other end of `descriptor` until it is gone; never returns."""
    try:
        child.set_name("mms-forkserver")
        child.die_with(parent)
        child.outlive_signals()
        sock = socket.socket(fileno=descriptor)
        _preload()
        sock.send(MESSAGE.pack(b"h", 0, os.getpid()))
        _Loop(sock).run()
    except (BrokenPipeError, ConnectionResetError):
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _preload() -> None:
    for name in PRELOAD:
        try:
            importlib.import_module(name)
        except ImportError:
            # Handlers without it still work; a model that needs it says so when it is loaded.
            traceback.print_exc()
    gc.collect()
    gc.freeze()  # shared pages stay shared: no collection in a child writes to them


def tag_process(name: str) -> int:
    """Make this process findable by `name` in /proc, for as long as the returned descriptor is open; children inherit it."""
    return os.memfd_create(TAG_PREFIX + name)


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """One packet and the descriptors that came with it, closed on exec; empty at end-of-file.

    Not socket.recv_fds, which ignores its flags in Python 3.11.
    """
    numbers = array.array("i")
    size = socket.CMSG_LEN(MAX_DESCRIPTORS * numbers.itemsize)
    packet, ancillary, _, _ = sock.recvmsg(MAX_PACKET, size, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return packet, list(numbers)


class _Loop:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)
        self._workers: dict[int, tuple[int, int]] = {}  # pidfd -> token, pid

    def run(self) -> None:
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._workers:
                    self._ended(descriptor)
                elif not self._obey():
                    self._kill_all()
                    return

    def _obey(self) -> bool:
        packet, descriptors = receive(self._sock)
        if not packet:
            return False
        kind = packet[:1]
        if kind == b"s":
            token = MESSAGE.unpack(packet)[1]
            self._start(token, descriptors)
        elif kind == b"t":
            tag_process(packet[1:].decode())
        return True

    def _start(self, token: int, descriptors: list[int]) -> None:
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._close(descriptors)
            self._sock.send(MESSAGE.pack(b"f", token, error.errno or errno.EAGAIN))
            return
        if pid == 0:
            self._become_worker(descriptors, server)
        self._close(descriptors)
        pidfd = os.pidfd_open(pid)  # not yet reaped, so the pid is still this child's
        self._workers[pidfd] = (token, pid)
        self._poll.register(pidfd, select.POLLIN)
        socket.send_fds(self._sock, [MESSAGE.pack(b"s", token, pid)], [pidfd])

    def _become_worker(self, descriptors: list[int], server: int) -> NoReturn:
        try:
            self._sock.close()
            self._close(list(self._workers))
            child.main(descriptors, server)
        finally:
            os._exit(1)

    def _ended(self, pidfd: int) -> None:
        token, pid = self._workers.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        self._sock.send(MESSAGE.pack(b"x", token, status))

    def _kill_all(self) -> None:
        for pidfd in self._workers:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    @staticmethod
    def _close(descriptors: list[int]) -> None:
        for descriptor in descriptors:
            os.close(descriptor)

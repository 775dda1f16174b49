"""A TCP proxy before PostgreSQL that cuts, swallows or holds back what a test tells it to."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from enum import StrEnum

COMMIT = b"COMMIT"


class Fault(StrEnum):
    NONE = "none"
    CUT_BEFORE_COMMIT = "the COMMIT never arrives, and the connection ends"
    CUT_AFTER_COMMIT = "the COMMIT arrives, its answer does not, and the connection ends"
    REFUSE = "no connection is accepted, and the ones that are open end"
    HOLD = "connections are accepted, and nothing passes"
    HALF_OPEN = "nothing passes on the connections that are open, and new ones are accepted and get no answer"
    SLOW = "everything takes half a second more"
    SILENT_FROM_COMMIT = "the COMMIT never arrives, and nothing passes from then on"


_PASSIVE = (Fault.NONE, Fault.HOLD, Fault.HALF_OPEN, Fault.SLOW)
DELAY = 0.5
"""Seconds that SLOW adds on the way to the database."""


class PostgresProxy:
    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._fault = Fault.NONE
        self._silent = threading.Event()
        self._swallow = threading.Event()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.struck = threading.Event()
        self._spawn(self._accept)

    def url(self, original: str) -> str:
        return original.replace(f":{self._to}/", f":{self.port}/")

    def lead_to(self, port: int) -> None:
        """New connections go to another server, as after a failover."""
        self._to = port

    def arm(self, fault: Fault) -> None:
        self.struck.clear()
        self._silent.clear()
        self._fault = fault
        if fault is Fault.REFUSE:
            self._end_all()

    def _spawn(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._fault is Fault.REFUSE:
                client.close()
                continue
            if self._fault in (Fault.HOLD, Fault.HALF_OPEN):
                self._open.append(client)
                self.struck.set()
                continue
            server = socket.create_connection(("127.0.0.1", self._to))
            self._open += [client, server]
            self._spawn(self._forward, client, server)
            self._spawn(self._back, server, client)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if COMMIT in data and self._fault not in _PASSIVE:
                    self._strike(data, client, server)
                if self._fault is Fault.SLOW:
                    self.struck.set()
                    time.sleep(DELAY)
                if not self._silent.is_set() and self._fault is not Fault.HALF_OPEN:
                    server.sendall(data)
        _end(client, server)

    def _strike(self, data: bytes, client: socket.socket, server: socket.socket) -> None:
        fault, self._fault = self._fault, Fault.NONE
        if fault is Fault.CUT_AFTER_COMMIT:
            self._swallow.set()
            return
        if fault is Fault.SILENT_FROM_COMMIT:
            self._silent.set()
        else:
            _end(client, server)
        self.struck.set()

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if self._swallow.is_set():  # the answer that nobody gets: it is committed now
                    self._swallow.clear()
                    self.struck.set()
                    break
                if not self._silent.is_set() and self._fault is not Fault.HALF_OPEN:
                    client.sendall(data)
        _end(client, server)

    def _end_all(self) -> None:
        _end(*self._open)

    def close(self) -> None:
        _end(self._listener)
        self._end_all()
        for thread in self._threads:
            thread.join(5)
        for each in (self._listener, *self._open):
            each.close()


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)

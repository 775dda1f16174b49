"""The sockets to Postgres, so that another thread can cut a call short that the server neither answers nor ends."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import Any


class Wire:
    """Our own handles of the open connections' sockets; `cut` makes whoever waits on one of them fail at once.

    Server-side time limits do not help against a server that hangs, nor TCP's against one whose kernel still answers.
    """

    def __init__(self) -> None:
        self.patient = False  # True while something long is under way on purpose: a migration
        self._guard = threading.Lock()
        self._handles: dict[str, socket.socket] = {}

    def attach(self, use: str, connection: Any) -> None:
        """Take note of a new psycopg connection, in the place of the last one of the same use."""
        handle = socket.socket(fileno=os.dup(connection.fileno()))
        with self._guard:
            former = self._handles.pop(use, None)
            self._handles[use] = handle
        if former is not None:
            former.close()

    def cut(self) -> None:
        """End every connection; may be called from any thread."""
        if self.patient:
            return
        with self._guard:
            for handle in self._handles.values():
                with suppress(OSError):  # ended already
                    handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the handles back."""
        with self._guard:
            for handle in self._handles.values():
                handle.close()
            self._handles.clear()

"""What lies between the server and one worker: a socket pair for frames, two pipes for what it prints, and its progress."""

from __future__ import annotations

import os
import socket

from mms.workers.launcher import Descriptors
from mms.workers.progress import Progress

_SOCKET_BUFFER = 1 << 20  # bytes; the kernel gives what it allows


class WorkerEnds:
    """Both ends of everything, until each side has closed the other's; all but `theirs` are the server's. Raises OSError."""

    def __init__(self) -> None:
        self.sock, self._theirs = socket.socketpair()
        for end in (self.sock, self._theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        self.sock.setblocking(False)
        self.stdout, stdout = os.pipe()
        self.stderr, stderr = os.pipe()
        progress = Progress.new_file()
        self.progress = Progress(progress)
        self.theirs = Descriptors(self._theirs.fileno(), stdout, stderr, progress)

    def close_theirs(self) -> None:
        """The worker has its own copies, or there is no worker."""
        self._theirs.close()
        os.close(self.theirs.stdout)
        os.close(self.theirs.stderr)
        os.close(self.theirs.progress)

    def close_ours(self) -> None:
        """There is no worker."""
        self.sock.close()
        os.close(self.stdout)
        os.close(self.stderr)
        self.progress.close()

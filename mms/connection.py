"""Opens the connection that the commands' client speaks over: TCP, TLS or a Unix socket; imported only when one is needed."""

from __future__ import annotations

import http.client
import socket
from urllib.parse import urlsplit

from mms.errors import UsageError

Failure = (OSError, http.client.HTTPException)
"""What a request over such a connection may raise."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket file."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def connection(server: str, timeout: float) -> http.client.HTTPConnection:
    """A connection that opens at its first request; `timeout` in seconds. Raises UsageError for another form of address."""
    if server.startswith("unix:/"):
        return _UnixConnection(server.removeprefix("unix:"), timeout)
    try:
        parts = urlsplit(server)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query:
        raise UsageError(f"--server must be http://host:port, https://host:port or unix:/path, not {server}.")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname, port, timeout=timeout)

"""Where a port listens: `http://host:port`, `https://host:port` or `unix:/path`, with MMS's default ports."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from mms.config.kinds import Kind, Unfit

HIGHEST_PORT = 65535
_TCP = re.compile(r"(https?)://(\[[0-9a-f:.%]+\]|[^:/\[\]\s]+)(?::([0-9]{1,9}))?/?", re.IGNORECASE)
_UNIX = re.compile(r"unix:(/.+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Address:
    """An address to listen on: `scheme` is http, https or unix; host and port are empty and 0 for unix, path for the others.

    Port 0 means any free one. A host in brackets (IPv6) is kept without them.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def tls(self) -> bool:
        """True where connections are encrypted."""
        return self.scheme == "https"

    def same_place(self, other: Address) -> bool:
        """True where both are one listener (scheme ignored, as in MMS): one port then serves all routes."""
        if (self.scheme == "unix") != (other.scheme == "unix"):
            return False
        return (self.host, self.port, self.path) == (other.host, other.port, other.path) and not self._any_free_port

    @property
    def _any_free_port(self) -> bool:
        return self.scheme != "unix" and self.port == 0

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class AddressKind(Kind):
    """An address; `port` and `tls_port` are taken where it names none."""

    port: int
    tls_port: int
    plain = "address"

    @property
    def expected(self) -> str:
        """The three forms."""
        return "http://host:port, https://host:port or unix:/path"

    def parse(self, given: object, *, strict: bool = False) -> Address:
        """The address; the texts of its errors begin as MMS's do."""
        text = given.strip() if isinstance(given, str) else ""
        if unix := _UNIX.fullmatch(text):
            return Address("unix", path=unix[1])
        tcp = _TCP.fullmatch(text)
        if tcp is None:
            raise Unfit(f"Invalid binding address: {given} (expected: {self.expected})")
        scheme = tcp[1].lower()
        port = int(tcp[3]) if tcp[3] is not None else self.tls_port if scheme == "https" else self.port
        if port > HIGHEST_PORT:
            raise Unfit(f"Invalid port number: {port} (expected: 0 to {HIGHEST_PORT})")
        return Address(scheme, tcp[2].strip("[]").lower(), port)

    def show(self, value: Any) -> str:
        """As it is written in a configuration."""
        return str(value)

"""Makes request ids: version 4 UUIDs as text, cut from a pool of random bytes so that one costs well under a microsecond."""

from __future__ import annotations

import os

_POOL = 256  # ids made at a time
_VARIANT = "89ab"


class RequestIds:
    """A source of ids; one a process, not shared between threads."""

    def __init__(self) -> None:
        self._ready: list[str] = []

    def next(self) -> str:
        """A new id, such as `2f1e0d3c-5b4a-4978-8a6b-0123456789ab`."""
        if not self._ready:
            self._refill()
        return self._ready.pop()

    def _refill(self) -> None:
        digits = os.urandom(16 * _POOL).hex()
        for start in range(0, len(digits), 32):
            d = digits[start : start + 32]
            variant = _VARIANT[int(d[16], 16) & 3]
            self._ready.append(f"{d[:8]}-{d[8:12]}-4{d[13:16]}-{variant}{d[17:20]}-{d[20:]}")

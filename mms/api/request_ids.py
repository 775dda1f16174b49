"""Makes request ids: version 4 UUIDs as text, many from one draw of random bytes so that one costs well under a microsecond."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
_TAILS = [f"{number:03x}" for number in range(4096)]


class RequestIds:
    """A source of ids; one a process, not shared between threads.

    `next()` gives a new id, such as `2f1e0d3c-5b4a-4978-8a6b-0123456789ab`. All but the last three digits are drawn anew for
    every 4096 ids, which count up in those three: ids never repeat, and are no secret.
    """

    def __init__(self) -> None:
        self.next: Callable[[], str] = _endless().__next__


def _endless() -> Iterator[str]:
    while True:
        d = os.urandom(16).hex()
        head = f"{d[:8]}-{d[8:12]}-4{d[13:16]}-{_VARIANT[d[16]]}{d[17:20]}-{d[20:29]}"
        for tail in _TAILS:
            yield head + tail

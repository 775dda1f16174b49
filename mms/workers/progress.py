"""How far a worker has come, in memory that it shares with the server: what it had begun is known even when it is killed."""

from __future__ import annotations

import mmap
import os
import struct
from typing import Final

_COUNT: Final = struct.Struct("Q")  # native, so that it is copied as one word and a kill cannot tear it
_NAME: Final = "mms-progress"


class Progress:
    """The number of requests that a worker has begun in its life; the worker writes it, the server reads it.

    Eight aligned bytes in an anonymous file. A handler may scribble over it, as over anything else in its process: the
    reader must not believe more than it has sent.
    """

    def __init__(self, descriptor: int) -> None:
        """Map the file behind `descriptor`, which stays the caller's to close."""
        self._memory = mmap.mmap(descriptor, _COUNT.size)
        self._begun = 0

    @staticmethod
    def new_file() -> int:
        """A descriptor of a new file, at zero. Raises OSError."""
        descriptor = os.memfd_create(_NAME)
        try:
            os.truncate(descriptor, _COUNT.size)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def begin(self, requests: int) -> None:
        """So many more are being worked on from now on."""
        self._begun += requests
        _COUNT.pack_into(self._memory, 0, self._begun)

    def read(self) -> int:
        """How many have been begun."""
        begun: int = _COUNT.unpack_from(self._memory)[0]
        return begun

    def close(self) -> None:
        """Unmap it."""
        self._memory.close()

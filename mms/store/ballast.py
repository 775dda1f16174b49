"""The ballast: a file that is given up when the disk is full, so that the clean mark and tombstones can still be written."""

from __future__ import annotations

import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)

SIZE = 1 << 20
SPARE = 4 * SIZE
"""Free bytes that must be left beside a new ballast, lest it fills the disk itself."""


class Ballast:
    """One file of SIZE bytes of really allocated space beside an SQLite store."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def release(self) -> bool:
        """Give the space back; False where there is none left to give."""
        try:
            self.path.unlink()
        except OSError:
            return False
        logger.warning(
            "The disk of the store is full: the ballast %s is given up so that it can stop in order.", self.path
        )
        return True

    def renew(self) -> None:
        """Allocate it where it is missing and there is room for more than it."""
        try:
            if self.path.exists():
                return
            room = os.statvfs(self.path.parent)
            if room.f_bavail * room.f_frsize < SIZE + SPARE:
                return
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.posix_fallocate(fd, 0, SIZE)
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            logger.warning("The ballast %s could not be made: %s", self.path, error.strerror)
            self.path.unlink(missing_ok=True)

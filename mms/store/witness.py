"""The witness: a tiny file outside the database that proves that the database has not gone back in time."""

from __future__ import annotations

import os
import struct
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"mmswit1\n"
SLOT_SIZE = 4096
"""The slots lie in sectors and pages of their own: a torn write of one leaves the other whole."""
_CONTENT = struct.Struct(">8s16sQQQ")
_CHECKSUM = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a store had come: its identity, newest epoch, newest journal number, and number of durable transactions."""

    store_uuid: str
    epoch: int
    last_seq: int
    commits: int

    def behind(self, other: Mark) -> bool:
        """True if this mark lacks anything that the other one has."""
        return self.epoch < other.epoch or self.last_seq < other.last_seq or self.commits < other.commits


@dataclass(frozen=True, slots=True)
class Reading:
    """What the file says. `mark` None with `present` True: the file is there, but neither slot can be read."""

    present: bool
    mark: Mark | None


class Witness:
    """Two alternating checksummed slots; a mark is written over the older one, then synced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._next = 0
        self._readable = False

    def read(self) -> Reading:
        """The newest readable mark. Raises OSError where the file is there and cannot be read."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return Reading(False, None)
        marks = [decode(content[at : at + SLOT_SIZE]) for at in (0, SLOT_SIZE)]
        newest = max((mark for mark in marks if mark), key=lambda mark: mark.commits, default=None)
        if newest is not None:
            self._next = 1 - marks.index(newest)
            self._readable = len(content) >= SLOT_SIZE + _CONTENT.size + _CHECKSUM.size
        return Reading(True, newest)

    def write(self, mark: Mark) -> None:
        """Make the mark durable; call it only after the store's own commit. Raises OSError."""
        if self._fd < 0 and not self._reopened():
            self._create(mark)
            return
        os.pwrite(self._fd, encode(mark), self._next * SLOT_SIZE)
        os.fdatasync(self._fd)
        self._next = 1 - self._next

    def _reopened(self) -> bool:
        """Go on with the file that `read` found good: that needs no new space, which a full disk would not give."""
        if not self._readable:
            return False
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            self._readable = False
        return self._readable

    def _create(self, mark: Mark) -> None:
        """A whole new file with both slots, renamed into place, so that it is never half there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(self.path.name + ".new")
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            slot = encode(mark).ljust(SLOT_SIZE, b"\0")
            os.pwrite(fd, slot + slot, 0)
            os.fsync(fd)
            fresh.rename(self.path)
            sync_folder(self.path.parent)
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._next, self._readable = fd, 1, True

    def close(self) -> None:
        """Give the file handle back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def encode(mark: Mark) -> bytes:
    """A slot's bytes."""
    content = _CONTENT.pack(MAGIC, uuid.UUID(mark.store_uuid).bytes, mark.epoch, mark.last_seq, mark.commits)
    return content + _CHECKSUM.pack(zlib.crc32(content))


def decode(slot: bytes) -> Mark | None:
    """The mark in a slot, None where it is torn, changed or was never written."""
    size = _CONTENT.size
    if len(slot) < size + _CHECKSUM.size:
        return None
    if _CHECKSUM.unpack_from(slot, size)[0] != zlib.crc32(slot[:size]):
        return None
    magic, identity, epoch, last_seq, commits = _CONTENT.unpack_from(slot)
    if magic != MAGIC:
        return None
    return Mark(str(uuid.UUID(bytes=identity)), epoch, last_seq, commits)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable: created, renamed or removed files."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

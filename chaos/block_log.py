"""A disk for nbdkit's Python plugin that keeps its content in memory and logs every write and flush; nbdkit runs it, nobody imports it.

The index is text, a line a record, so that the life under attack can add its acknowledgements between them; the data of
the writes are in a file beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import nbdkit  # type: ignore[import-not-found]  # made by nbdkit itself

API_VERSION = 2
SIZE = 16 << 20

_disk = bytearray(SIZE)
_files: dict[str, BinaryIO] = {}


def config(key: str, value: str) -> None:
    """`index` and `data`: the files to add to."""
    _files[key] = Path(value).open("ab", buffering=0)  # noqa: SIM115  # for as long as nbdkit lives


def open(_readonly: bool) -> int:
    """One disk for all who connect."""
    return 1


def thread_model() -> Any:
    """One request at a time: their order in the log is the order in which they happened."""
    return nbdkit.THREAD_MODEL_SERIALIZE_ALL_REQUESTS


def get_size(_handle: int) -> int:
    """Bytes."""
    return SIZE


def can_flush(_handle: int) -> bool:
    """It promises what it has flushed."""
    return True


def can_fua(_handle: int) -> Any:
    """Writes may ask to be durable at once."""
    return nbdkit.FUA_NATIVE


def pread(_handle: int, buffer: bytearray, offset: int, _flags: int) -> None:
    """What was written last, durable or not."""
    buffer[:] = _disk[offset : offset + len(buffer)]


def pwrite(_handle: int, buffer: bytes, offset: int, flags: int) -> None:
    """Take it and log it."""
    _disk[offset : offset + len(buffer)] = buffer
    at = _files["data"].tell()
    _files["data"].write(buffer)
    durable = int(bool(flags & nbdkit.FLAG_FUA))
    _files["index"].write(f"W {offset} {len(buffer)} {durable} {at}\n".encode())


def flush(_handle: int, _flags: int) -> None:
    """Everything so far is durable."""
    _files["index"].write(b"F\n")

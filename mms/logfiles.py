"""The server's log files in MMS's names: whole lines taken at once into memory, written by a thread, rolled by size."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

logger = logging.getLogger(__name__)

FLUSH_INTERVAL = 0.2  # seconds: how old a line may get before it is in its file
FLUSH_SOONEST = 0.01  # seconds: how soon the next flush may follow where lines come in masses
FLUSH_BYTES = 65_536  # so many at a time: a megabyte at once keeps a processor busy that answers wait for
MOST_BYTES = 64 * 1024 * 1024  # that wait for a disk that hangs; what comes on top of them is lost
ROLL_AT = 100 * 1024 * 1024  # bytes, as MMS
KEPT_ROLLS = 5
LOOKED_AT = 1.0  # seconds: how soon a file that somebody moved or removed is missed, and made again


class LineLog:
    """One file of lines. `write` appends to a list, which is atomic in CPython, so the hot path takes no lock.

    A file that cannot be written (disk full, folder gone) costs lines, never requests: it is said once and tried again.
    The file stays open: each call into the system lets the event loop have the interpreter, and has to get it back.
    """

    def __init__(self, file: Path) -> None:
        """Nothing is opened before there is something to write."""
        self._file = file
        self._lines: list[bytes] = []
        self._taken = (
            0  # bytes, counted by those who write; the flush counts its own, so that no two threads count as one
        )
        self._given = 0
        self._overrun = False
        self._broken = False
        self._descriptor = -1
        self._size = 0
        self._looked = 0.0

    def write(self, lines: bytes) -> None:
        """Take one or more whole lines."""
        if self._taken - self._given < MOST_BYTES:
            self._taken += len(lines)
            self._lines.append(lines)
        else:
            self._overrun = True

    def flush(self) -> int:
        """Put what was written into the file, and say how many bytes that were; called by one thread at a time."""
        count = len(self._lines)
        if not count:
            return 0
        content = b"".join(self._lines[:count])
        del self._lines[:count]
        try:
            self._append(content)
        except OSError as error:
            self.close()
            if not self._broken:
                logger.warning("Lines for %s are lost: %s", self._file, error)
            self._broken = True
        else:
            self._broken = False
        if self._overrun:
            self._overrun = False
            logger.warning("Lines for %s are lost: they came faster than the disk took them.", self._file)
        self._given += len(content)
        return len(content)

    def close(self) -> None:
        """Let go of the file; the next flush opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, content: bytes) -> None:
        if self._descriptor >= 0 and time.monotonic() - self._looked >= LOOKED_AT and not self._in_place():
            self.close()
        if self._descriptor < 0:
            self._descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._size = os.fstat(self._descriptor).st_size
            self._looked = time.monotonic()
        written = os.write(self._descriptor, content)
        while written < len(content):  # a disk that fills up takes a part, and says why at the next try
            written += os.write(self._descriptor, content[written:])
        self._size += len(content)
        if self._size >= ROLL_AT:
            self.close()
            self._roll()

    def _in_place(self) -> bool:
        """Whether the name still leads to the open file: others may rotate it as well."""
        self._looked = time.monotonic()
        opened = os.fstat(self._descriptor)
        try:
            named = self._file.stat()
        except FileNotFoundError:
            return False
        return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)

    def _roll(self) -> None:
        for number in range(KEPT_ROLLS - 1, 0, -1):
            older = self._file.with_name(f"{self._file.name}.{number}")
            if older.exists():
                older.replace(self._file.with_name(f"{self._file.name}.{number + 1}"))
        self._file.replace(self._file.with_name(f"{self._file.name}.1"))


class LogFiles:
    """The folder's files and the thread that writes them; `close` writes what is left."""

    def __init__(self) -> None:
        self._logs: list[LineLog] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mms-log", daemon=True)
        self._thread.start()

    def open(self, folder: Path, name: str) -> LineLog | None:
        """A log in that folder, which is made if need be; None, with a warning, where that cannot be."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()  # there from the start, as in MMS: somebody may be waiting to follow it
        except OSError as error:
            logger.warning("No %s: %s", name, error)
            return None
        log = LineLog(folder / name)
        self._logs.append(log)
        return log

    def _run(self) -> None:
        interval = FLUSH_INTERVAL
        while not self._closing.wait(interval):
            written = max(self._flush(), 1)
            interval = min(max(interval * FLUSH_BYTES / written, FLUSH_SOONEST), FLUSH_INTERVAL)
        self._flush()

    def _flush(self) -> int:
        """Flush every log; returns the bytes of the largest part."""
        return max((log.flush() for log in tuple(self._logs)), default=0)

    def close(self) -> None:
        """Write what is left and end the thread."""
        self._closing.set()
        self._thread.join()
        for log in self._logs:
            log.close()

"""The server's log files in MMS's names: whole lines taken at once into memory, written by a thread, rolled by size."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

logger = logging.getLogger(__name__)

FLUSH_INTERVAL = 0.2  # seconds: how old a line may get before it is in its file
FLUSH_SOONEST = 0.005  # seconds: how soon the next flush may follow where lines come in masses
FLUSH_BYTES = 32_768  # so many at a time: a megabyte at once keeps a processor busy that answers wait for
ROLL_AT = 100 * 1024 * 1024  # bytes, as MMS
KEPT_ROLLS = 5


class LineLog:
    """One file of lines. `write` appends to a list, which is atomic in CPython, so the hot path takes no lock.

    A file that cannot be written (disk full, folder gone) costs lines, never requests: it is said once and tried again.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lines: list[bytes] = []
        self.write = self._lines.append
        self._broken = False

    def flush(self) -> int:
        """Put what was written into the file, and say how many bytes that were; called by one thread at a time."""
        count = len(self._lines)
        if not count:
            return 0
        content = b"".join(self._lines[:count])
        del self._lines[:count]
        try:
            with self._file.open("ab") as out:
                out.write(content)
                size = out.tell()
            if size >= ROLL_AT:
                self._roll()
        except OSError as error:
            if not self._broken:
                logger.warning("Lines for %s are lost: %s", self._file, error)
            self._broken = True
        else:
            self._broken = False
        return len(content)

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

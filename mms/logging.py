"""Sets up the server's log: one line a record on stderr, and MMS's lines in a file; never used on the hot path."""

from __future__ import annotations

import logging
import logging.config
import logging.handlers
import sys
import time
from configparser import Error as ParserError
from pathlib import Path
from typing import TextIO

from mms.errors import UsageError
from mms.logfiles import KEPT_ROLLS, ROLL_AT

_MMS_NAMES = {"WARNING": "WARN", "CRITICAL": "FATAL"}


class LineFormatter(logging.Formatter):
    """The server's own lines, time first, in UTC: `2026-01-31T12:00:00.123Z [warning] message [logger]`."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s [%(level)s] %(message)s [%(name)s]", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """One record as a line, and a traceback below it where there is one."""
        record.level = record.levelname.lower()
        return super().format(record)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - its name there
        """UTC with milliseconds."""
        return f"{super().formatTime(record, datefmt)}.{int(record.msecs):03d}Z"


class MmsFormatter(logging.Formatter):
    """MMS's lines, so that what reads its log reads this one: `2026-01-31T12:00:00,123 [WARN ] thread logger - message`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s [%(short)-5s] %(threadName)s %(name)s - %(message)s", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """One record as a line, and a traceback below it where there is one."""
        record.short = _MMS_NAMES.get(record.levelname, record.levelname)
        return super().format(record)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - its name there
        """Local time with milliseconds."""
        return f"{super().formatTime(record, datefmt)},{int(record.msecs):03d}"


def configure(*, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send every log record of the process to `stream` (default stderr)."""
    out = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(out)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("alembic", "uvicorn.error", "uvicorn.access", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def add_file(folder: Path, name: str = "mms_log.log") -> None:
    """Keep the log in a file too, with MMS's line pattern; a folder that cannot be had costs the file, not the server."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(
            folder / name, maxBytes=ROLL_AT, backupCount=KEPT_ROLLS, encoding="utf-8", delay=True
        )
    except OSError as error:
        logging.getLogger(__name__).warning("No %s: %s", name, error)
        return
    handler.setFormatter(MmsFormatter())
    logging.getLogger().addHandler(handler)


def configure_from(file: Path) -> None:
    """Let a Python logging configuration file (`logging.config.fileConfig`) decide instead. Raises UsageError."""
    try:
        logging.config.fileConfig(file, disable_existing_loggers=False, encoding="utf-8")
    except (ParserError, KeyError, RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"--log-config {file} is not a Python logging configuration file (log4j files are not read): {reason}"
        ) from error

"""The PID file of `multi-model-server`: which process is the running server, with proof that it is that one and no other."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mms.identity import boot_id, start_ticks

NAME = ".model_server.pid"  # as MMS; in the folder for temporary files
_ORIGINAL = b"com.amazonaws.ml.mms.ModelServer"


@dataclass(frozen=True, slots=True)
class Process:
    """A process by number and start time: a number alone may meanwhile be another's.

    `original` is True for the Java server, whose PID file holds no more than the number; its command line is the proof.
    """

    pid: int
    ticks: int = -1
    boot: str = ""
    original: bool = False

    @property
    def alive(self) -> bool:
        """True where exactly this process still runs; one that has ended and was not collected does not."""
        try:
            ticks, state = start_ticks(self.pid), _state(self.pid)
        except (ProcessLookupError, OSError):
            return False
        return ticks == self.ticks and state not in "ZX" and self.boot in ("", boot_id())


class PidFile:
    """The one file; reading it never trusts a number that proves nothing."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file if file is not None else Path(tempfile.gettempdir()) / NAME

    def read(self) -> Process | None:
        """The process that the file names; None where there is no file. What proves nothing reads as one that has ended."""
        try:
            words = self.file.read_text(encoding="ascii", errors="replace").split()
            owner = self.file.stat().st_uid
        except FileNotFoundError:
            return None
        numbers = [int(word) for word in words[:2] if word.isdigit()]
        if not numbers or not _may_name(owner, numbers[0]):
            return Process(numbers[0] if numbers else 0)
        if len(words) == 1:
            return _original_server(numbers[0])
        return Process(numbers[0], numbers[1], words[2] if len(words) > 2 else "") if len(numbers) == 2 else Process(0)

    def write(self, pid: int) -> bool:
        """First line the number, as MMS writes it; then start time and boot. Raises OSError.

        False, and nothing written, where another process that runs was first: of two starts at once, one has the file.
        """
        try:
            ticks = start_ticks(pid)
        except ProcessLookupError:
            return True  # ended already: then there is nothing to point at
        handle, temporary = tempfile.mkstemp(prefix=f"{self.file.name}.", dir=self.file.parent)
        with os.fdopen(handle, "w", encoding="ascii") as out:
            out.write(f"{pid}\n{ticks}\n{boot_id()}\n")
        try:
            os.link(temporary, self.file)
        except FileExistsError:
            if (named := self.read()) is not None and named.pid != pid and named.alive:
                return False
            Path(temporary).replace(self.file)
        finally:
            Path(temporary).unlink(missing_ok=True)
        return True

    def remove(self, pid: int | None = None) -> None:
        """Remove the file; with `pid`, only where it names that process."""
        if pid is None or ((named := self.read()) is not None and named.pid == pid):
            self.file.unlink(missing_ok=True)


def _may_name(owner: int, pid: int) -> bool:
    """Anybody may write into the folder for temporary files: a stranger's file speaks of the stranger's processes only."""
    if owner in (os.geteuid(), 0):
        return True
    try:
        return Path(f"/proc/{pid}").stat().st_uid == owner
    except OSError:
        return False


def _original_server(pid: int) -> Process:
    try:
        if _ORIGINAL in Path(f"/proc/{pid}/cmdline").read_bytes():
            return Process(pid, start_ticks(pid), original=True)
    except OSError:  # no such process, or none that may be looked at
        pass
    return Process(pid)


def _state(pid: int) -> str:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return stat.rpartition(")")[2].split()[0]

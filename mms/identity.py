"""Who this process is, as an incarnation's row keeps it: for people and for finding leftovers, never for ownership."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from mms import __version__
from mms.records import ProcessIdentity

_STARTTIME_FIELD = 22  # of /proc/PID/stat, counted from 1 (proc(5)): start time after boot, in clock ticks


def process_identity(pid: int | None = None) -> ProcessIdentity:
    """Host, boot id, pid and start ticks of a process of this machine (default: this one)."""
    number = os.getpid() if pid is None else pid
    return ProcessIdentity(socket.gethostname(), boot_id(), number, start_ticks(number), __version__)


def boot_id() -> str:
    """The kernel's id of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since the machine's boot: a clock step does not move it.

    Raises ProcessLookupError where there is no such process.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    # The second field is the command in parentheses and may itself hold spaces and parentheses.
    after_command = stat.rpartition(")")[2].split()
    return int(after_command[_STARTTIME_FIELD - 3])

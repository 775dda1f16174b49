"""Model archives that harm who loads them: the server, their own worker, or everybody's patience."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.running import ECHO, make_model

KILL_SERVER = """
import os, signal
from pathlib import Path

def server():
    pid = os.getppid()
    while pid > 1:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\\0")
        if b"serve" in command:
            return pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    raise RuntimeError("no server above this worker")
"""

LOADING = "    if data is None:\n        "


def poison(store: Path, name: str, on_load: str, *, unless: Path | None = None) -> Path:
    """An echo model that runs `on_load` while it loads; `unless` names a file whose presence makes it harmless."""
    guard = f"if not os.path.exists({str(unless)!r}): " if unless is not None else ""
    source = "import os, signal, time, ctypes, sys\n" + KILL_SERVER
    source += ECHO.replace(LOADING, f"{LOADING}{guard}{on_load}\n        ")
    return make_model(store, name, source)


KILLS_SERVER = "os.kill(server(), signal.SIGKILL); time.sleep(30)"
SEGFAULT = "ctypes.string_at(0)"
ABORT = "os.abort()"
EXIT_0 = "os._exit(0)"
HANG = "time.sleep(600)"
RAISES = "raise RuntimeError('no weights today')"

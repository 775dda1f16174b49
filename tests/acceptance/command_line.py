"""The command line as an operator types it, against a running server or a store."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.acceptance.running import RunningServer


def mms(server: RunningServer, *words: str, asks: bool = True, answer: str = "") -> subprocess.CompletedProcess[str]:
    """Run `mms WORDS` with the server's address in the environment where it `asks` one."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MMS_")}
    if asks:
        environment["MMS_MANAGEMENT_URL"] = server.management_url
    return subprocess.run(
        [sys.executable, "-P", "-m", "mms", *words],
        capture_output=True,
        text=True,
        input=answer,
        env=environment,
        cwd=server.folder,
        timeout=60,
    )


def mms_ok(server: RunningServer, *words: str, asks: bool = True, answer: str = "") -> str:
    """The same; what it printed, where it succeeded."""
    done = mms(server, *words, asks=asks, answer=answer)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout

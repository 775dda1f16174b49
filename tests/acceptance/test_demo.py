"""The demonstration itself, both ways."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "scripts" / "demo"


@pytest.mark.slow
def test_the_unattended_story_keeps_every_promise() -> None:
    done = subprocess.run([DEMO, "--check"], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All promises kept." in done.stdout


@contextmanager
def by_hand(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The demonstration in the foreground of a terminal of its own, and what it told until it waits for Ctrl-C."""
    with subprocess.Popen(
        [DEMO, "--folder", str(folder)], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as demo:
        assert demo.stdout is not None
        told = ""
        for line in demo.stdout:
            told += line
            if line.startswith("Ctrl-C"):
                break
        try:
            yield demo, told
        finally:
            with suppress(ProcessLookupError):
                os.killpg(demo.pid, signal.SIGINT)
            demo.wait(30)


@pytest.mark.slow
def test_by_hand_it_predicts_says_what_to_try_next_and_comes_back_after_the_kill(tmp_path: Path) -> None:
    with by_hand(tmp_path) as (demo, told):
        assert "Registering the model" in told
        assert "examples/magika/handler.py is: Python source" in told
        assert demo.poll() is None
        (server,) = re.findall(r"kill -KILL (\d+)", told)
        os.kill(int(server), signal.SIGKILL)
        assert demo.wait(30) == 1, "a killed server is no clean end"
    with by_hand(tmp_path) as (demo, told):
        assert "magika is there already" in told
        assert "examples/magika/handler.py is: Python source" in told
        os.killpg(demo.pid, signal.SIGINT)
        assert demo.wait(30) == 0

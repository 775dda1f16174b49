"""The demonstration itself, both ways."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "scripts" / "demo"


@pytest.mark.slow
def test_the_unattended_story_keeps_every_promise() -> None:
    done = subprocess.run([DEMO, "--check"], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All promises kept." in done.stdout


@pytest.mark.slow
def test_by_hand_it_predicts_says_what_to_try_next_and_stays_until_ctrl_c(tmp_path: Path) -> None:
    command = [DEMO, "--folder", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as demo:
        assert demo.stdout is not None
        told = ""
        for line in demo.stdout:
            told += line
            if line.startswith("Ctrl-C"):
                break
        assert "examples/magika/handler.py is: Python source" in told
        assert "kill -KILL" in told
        assert demo.poll() is None
        os.killpg(demo.pid, signal.SIGINT)
        assert demo.wait(30) == 0

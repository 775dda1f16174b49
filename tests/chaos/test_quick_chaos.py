"""A slice of every fault against a real server: the whole of scripts/chaos, small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

WITHIN = 1200


@pytest.mark.slow
@pytest.mark.timeout(WITHIN + 30)
def test_the_promise_holds_through_a_slice_of_every_fault(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "chaos.main",
        "--quick",
        "--jobs",
        "2",
        "--out",
        str(tmp_path),
        "--evidence",
        str(tmp_path / "kept"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=WITHIN, cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "chaos.json").read_text())
    assert len({trial["fault"] for trial in report["trials"]}) >= 15
    assert sum(trial["counts"].get("ok", 0) for trial in report["trials"]) >= 100

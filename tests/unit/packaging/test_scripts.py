"""The scripts that people run."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file() and not path.suffix)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


def test_there_are_scripts() -> None:
    assert {"demo", "test", "check"} <= {path.name for path in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_each_script_can_be_run_and_explains_itself_from_any_folder(script: Path) -> None:
    assert os.access(script, os.X_OK)
    done = run(str(script), "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: scripts/{script.name}")


@pytest.mark.parametrize("script", ["check", "demo"])
def test_an_unknown_argument_is_a_usage_error(script: str) -> None:
    done = run(str(ROOT / "scripts" / script), "--no-such-thing")
    assert done.returncode == 2
    assert "--no-such-thing" in done.stderr


def test_ci_runs_the_checks_and_the_tests() -> None:
    ci = ROOT / ".ci" / "run"
    assert os.access(ci, os.X_OK)
    assert ci.read_text().split("\n\n")[-1].split() == ["scripts/check", "scripts/test"]

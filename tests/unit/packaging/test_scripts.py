"""The scripts that people run."""

import os
import shutil
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


def test_without_a_usable_python_one_line_says_what_is_needed(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "cat", "cmp", "dirname"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    (tools / "python3").write_text("#!/bin/bash\necho 'too old'\nexit 1\n")
    (tools / "python3").chmod(0o755)
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "scripts", checkout / "scripts")
    shutil.copy(ROOT / "pyproject.toml", checkout)
    done = subprocess.run(
        [checkout / "scripts" / "check"], capture_output=True, text=True, check=False, env={"PATH": str(tools)}
    )
    assert done.returncode == 1
    assert "No usable Python was found: 3.11 or newer is needed" in done.stderr.splitlines()[-1]
    assert not (checkout / ".venv").exists()

"""The original model-archiver of PyPI, in an environment of its own: both projects own the same names."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path


def install(folder: Path) -> Path:
    """Install it there; returns its command."""
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "model-archiver"], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "bin" / "model-archiver"

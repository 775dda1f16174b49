"""Virtual environments for the peers, one each, under the user's cache folder: they own script names that this project has too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

_PINS = {
    "mosec": ("mosec==0.9.8",),
    "multi-model-server": ("multi-model-server==1.1.11",),
    # Its workers import torch: the smallest that PyPI has for this Python, which is 2.4 GB with what it needs.
    "torchserve": ("torchserve==0.12.0", "torch-model-archiver==0.12.0", "torch==2.0.1", "pyyaml==6.0.3"),
}
"""The peer first, then what it needs beside it."""


def cache_folder() -> Path:
    """Where environments are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "mms-bench"


class Environment:
    """A peer's own Python with the peer and the numpy and onnxruntime of this project in it."""

    def __init__(self, peer: str) -> None:
        self._folder = cache_folder() / peer
        self.scripts = self._folder / "bin"
        self.python = self.scripts / "python"
        self._wanted = [*_PINS[peer], *(f"{name}=={metadata.version(name)}" for name in ("numpy", "onnxruntime"))]

    def ensure(self) -> None:
        """Install what is missing; said on stderr, since it takes a while. Raises SystemExit where it cannot be."""
        note = self._folder / "installed.txt"
        wanted = "\n".join(self._wanted)
        if note.is_file() and note.read_text() == wanted:
            return
        print(f"Installing {self._wanted[0]} into {self._folder} ...", file=sys.stderr)
        shutil.rmtree(self._folder, ignore_errors=True)
        for command in (
            [sys.executable, "-m", "venv", str(self._folder)],
            [str(self.python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *self._wanted],
        ):
            if subprocess.run(command).returncode:
                raise SystemExit(f"{self._wanted[0]} could not be installed; leave it out with --peers")
        note.write_text(wanted)

    @property
    def versions(self) -> str:
        """The peer, as it is pinned."""
        return self._wanted[0].replace("==", " ")

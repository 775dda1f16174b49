"""Console scripts: each replaces itself with `python -m mms ...`; imports nothing heavy.

Worker processes import their parent's `__main__` again. For `python -m mms` that is a small module; for a console script
it is the script's file, with everything that it imported, once more in every worker.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def mms() -> NoReturn:
    """`mms ...`."""
    _become()


def multi_model_server() -> NoReturn:
    """`multi-model-server ...`: the command line of AWS multi-model-server."""
    _become("multi-model-server")


def model_archiver() -> NoReturn:
    """`model-archiver ...`: packs a model archive."""
    _become("model-archiver")


def _become(*command: str) -> NoReturn:
    # -P keeps the current folder off sys.path: like a console script, and unlike a plain -m.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "mms", *command, *sys.argv[1:]])

"""Digests of what a model is made of: of an archive file, and of a directory that is served in place."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

NOT_CONTENT = frozenset({"__pycache__"})  # written by running the model, not by whoever made it
_MOUNT_INTERNALS = ".."  # Kubernetes' projected volumes hold dated folders `..2026_11_23...`, new at each mount


def file_digest(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digest(top: Path) -> str:
    """SHA-256 over names and contents of all files below `top`, in hexadecimal; modes, times and empty folders do not count.

    Links are followed: what they lead to is what the model would read.
    """
    digest = hashlib.sha256()
    for name, path in sorted(_files(top, top, set())):
        encoded = os.fsencode(name)
        digest.update(b"%d:%s:%s\n" % (len(encoded), encoded, file_digest(path).encode()))
    return digest.hexdigest()


def _files(top: Path, folder: Path, above: set[tuple[int, int]]) -> Iterator[tuple[str, Path]]:
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return  # a link back up
    for child in folder.iterdir():
        if child.name in NOT_CONTENT or child.suffix == ".pyc" or child.name.startswith(_MOUNT_INTERNALS):
            continue
        if child.is_dir():
            yield from _files(top, child, above | {identity})
        elif child.is_file():
            yield str(child.relative_to(top)), child

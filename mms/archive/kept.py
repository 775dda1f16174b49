"""The content of archives, kept on the local disk by digest: whole or not there at all, whenever the machine stops."""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from mms.archive.digest import file_digest
from mms.archive.unpack import sync_folder, unpack
from mms.errors import InvalidModel

logger = logging.getLogger(__name__)

_DIGEST = re.compile(r"[0-9a-f]{64}")


class KeptContent:
    """`data_dir/archives/SHA256/` for what is kept, `data_dir/tmp/TAG-*/` for what is being made; safe between threads."""

    def __init__(self, data_dir: Path, *, tag: str, max_size: int) -> None:
        self._archives = data_dir / "archives"
        self._temporary = data_dir / "tmp"
        self._own = f"{tag}-"
        self._max_size = max_size
        self._used: set[str] = set()  # digests asked for in this life

    def find(self, sha256: str) -> Path | None:
        """The folder with the content of that digest, or None; from now on no sweep of this life removes it."""
        if not _DIGEST.fullmatch(sha256):
            return None
        self._used.add(sha256)
        path = self._archives / sha256
        return path if path.is_dir() else None

    def add(self, archive: Path, sha256: str) -> Path:
        """Unpack, sync, then rename into place; whoever comes second to the same digest takes what is there.

        Raises InvalidModel for what cannot be unpacked, OSError for trouble of the machine.
        """
        self._used.add(sha256)
        place = self._archives / sha256
        with self.workspace() as workspace:
            content = unpack(archive, workspace / "content", max_size=self._max_size)
            if file_digest(archive) != sha256:
                raise InvalidModel(f"Model archive {archive.name} changed while it was being read.")
            if not self._archives.is_dir():
                self._archives.mkdir(parents=True, exist_ok=True)
                sync_folder(self._archives.parent)
            try:
                content.rename(place)
            except OSError:
                if not place.is_dir():
                    raise
            sync_folder(self._archives)
        return place

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A new temporary folder that bears this life's tag, gone afterwards."""
        self._temporary.mkdir(parents=True, exist_ok=True)
        workspace = Path(tempfile.mkdtemp(dir=self._temporary, prefix=self._own))
        try:
            yield workspace
        finally:
            shutil.rmtree(workspace, ignore_errors=True)  # the next life sweeps what could not be removed

    def sweep(self, keep: Set[str]) -> list[str]:
        """Remove what no digest in `keep` names and other lives' temporary folders; returns the names of what went.

        What was asked for in this life stays: it may be about to be registered, or still be served. What cannot be
        removed is logged and left for the next sweep.
        """
        unwanted = [
            child
            for child in _children(self._archives)
            # caches beside the content carry its digest at the beginning of their names
            if child.name[:64] not in keep and child.name[:64] not in self._used
        ]
        leftovers = [child for child in _children(self._temporary) if not child.name.startswith(self._own)]
        return [child.name for child in (*unwanted, *leftovers) if self._discard(child)]

    def _discard(self, path: Path) -> bool:
        """Out of its place in one step, then removed: a crash half-way leaves nothing that looks whole."""
        try:
            with self.workspace() as workspace:
                path.rename(workspace / "discarded")
        except OSError as e:
            logger.warning("%s could not be removed: %s", path, e)
            return False
        return True


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []

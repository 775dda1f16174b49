"""Reads a model's name off an archive where it lies, without unpacking it: for a look at the configuration before a start."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from mms.archive.manifest import MANIFEST_FOLDER, MANIFEST_NAME, read_manifest
from mms.archive.names import default_name
from mms.errors import InvalidModel

_LARGEST = 1 << 20  # bytes of a manifest that is looked at


def named_by(path: Path) -> str:
    """The manifest's name, else the one that is made from the file's; also for what is no archive: opening it says so."""
    return _in_manifest(path) or default_name(path.name)


def _in_manifest(path: Path) -> str | None:
    try:
        if path.is_dir():
            return read_manifest(path)[0].model_name
        with zipfile.ZipFile(path) as opened, opened.open(f"{MANIFEST_FOLDER}/{MANIFEST_NAME}") as manifest:
            document = json.loads(manifest.read(_LARGEST))
        name = document["model"]["modelName"]
    except (OSError, InvalidModel, zipfile.BadZipFile, NotImplementedError, LookupError, TypeError, ValueError):
        return None
    return name if isinstance(name, str) else None

"""Builds model archives from a folder: MMS's three formats and names, byte for byte the same from the same files."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mms.archive.manifest import MANIFEST_FOLDER, MANIFEST_NAME, RUNTIMES
from mms.config.values import check_manifest
from mms.errors import BadInput

logger = logging.getLogger(__name__)

FORMATS: Mapping[str, str] = {"default": ".mar", "tgz": ".tar.gz", "no-archive": ""}
"""Archive format to what is put after the model's name."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-.]*")
_NOT_PACKED_FOLDERS = frozenset({"__MACOSX", "__pycache__"})
_NOT_PACKED_ENDINGS = (".pyc", ".DS_Store", ".mar")
_OLDEST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_ZIP64_FROM = 1 << 31  # bytes


def build(
    model_name: str,
    model_path: Path,
    *,
    handler: str | None = None,
    runtime: str = "python",
    export_path: Path | None = None,
    archive_format: str = "default",
    force: bool = False,
    model_version: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Pack the folder `model_path` into `export_path` (default: the current folder); returns what was written.

    `handler` may be left out where the folder holds exactly one .onnx file. `settings` are option keys of the manifest's
    `model` section to their values. Raises BadInput and InvalidModel, with MMS's words where it has some; then nothing
    has been written.
    """
    export_path = Path.cwd() if export_path is None else export_path
    _check(model_name, model_path, export_path, runtime, archive_format)
    check_manifest(settings or {})
    target = export_path / f"{model_name}{FORMATS[archive_format]}"
    files = list(_files(model_path, leave_out=target))
    if not handler and sum(name.endswith(".onnx") for name, _ in files) != 1:
        raise BadInput("--handler is required: only a model path with exactly one .onnx file can do without.")
    if target.exists():
        if not force:
            raise BadInput(
                f"{target} already exists.\n"
                "Please specify --force/-f option to overwrite the model archive output file.\n"
                "See -h/--help for more details."
            )
        logger.warning("Overwriting %s ...", target)
    manifest = manifest_text(model_name, handler, runtime, model_version, settings or {})
    _WRITERS[archive_format](target, model_name, files, manifest.encode())
    return target


def manifest_text(
    model_name: str, handler: str | None, runtime: str, model_version: str | None, settings: Mapping[str, Any]
) -> str:
    """The manifest, as MMS's archiver writes it, with what that does not know after what it does."""
    model: dict[str, Any] = {"modelName": model_name}
    if handler:
        model["handler"] = handler
    if model_version is not None:
        model["modelVersion"] = model_version
    model.update(settings)
    versions = dict.fromkeys(("modelServerVersion", "implementationVersion", "specificationVersion"), "1.0")
    return json.dumps({"runtime": runtime, "model": model, **versions}, indent=2)


def _check(model_name: str, model_path: Path, export_path: Path, runtime: str, archive_format: str) -> None:
    if not _NAME.fullmatch(model_name):
        raise BadInput(
            "Model name contains special characters.\n"
            f"The allowed regular expression filter for model name is: ^{_NAME.pattern}$"
        )
    if not export_path.is_dir():
        raise BadInput(f"Given export-path {export_path} is not a directory. Point to a valid export-path directory.")
    if not model_path.is_dir():
        raise BadInput(
            f"Given model-path {model_path} is not a valid directory. Point to a valid model-path directory."
        )
    if runtime not in RUNTIMES:
        raise BadInput(f"--runtime must be one of {', '.join(RUNTIMES)}, not {runtime}.")
    if archive_format not in FORMATS:
        raise BadInput(f"--archive-format must be one of {', '.join(FORMATS)}, not {archive_format}.")


def _files(top: Path, *, leave_out: Path) -> Iterator[tuple[str, Path]]:
    """Name in the archive and place of each file to pack, sorted; hidden folders and leftovers of tools are left out."""
    found = []
    for folder, folders, names in os.walk(top):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name not in _NOT_PACKED_FOLDERS
            and Path(folder, name).resolve() != leave_out.resolve()
        ]
        for name in names:
            path = Path(folder, name)
            if (
                name != MANIFEST_NAME
                and not name.endswith(_NOT_PACKED_ENDINGS)
                and path.resolve() != leave_out.resolve()
            ):
                found.append((path.relative_to(top).as_posix(), path))
    yield from sorted(found)


def _mode(path: Path) -> int:
    """All that is kept of a file's mode is whether it can be run."""
    return 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644


@contextmanager
def _whole(target: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name when it is complete and on the disk, or not at all."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _write_mar(target: Path, model_name: str, files: list[tuple[str, Path]], manifest: bytes) -> None:
    with _whole(target) as file, zipfile.ZipFile(file, "w") as archive:
        for name, path in files:
            info = _zip_entry(name, _mode(path))
            with path.open("rb") as source:
                big = path.stat().st_size >= _ZIP64_FROM
                with archive.open(info, "w", force_zip64=big) as packed:
                    shutil.copyfileobj(source, packed, 1 << 20)
        archive.writestr(_zip_entry(f"{MANIFEST_FOLDER}/{MANIFEST_NAME}", 0o644), manifest)


def _zip_entry(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _OLDEST_ZIP_TIME)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3  # Unix, so that the mode counts, on whatever system this runs
    info.external_attr = (stat.S_IFREG | mode) << 16
    return info


def _write_tgz(target: Path, model_name: str, files: list[tuple[str, Path]], manifest: bytes) -> None:
    with (
        _whole(target) as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, path in files:
            with path.open("rb") as source:
                archive.addfile(_tar_entry(f"{model_name}/{name}", path.stat().st_size, _mode(path)), source)
        entry = _tar_entry(f"{model_name}/{MANIFEST_FOLDER}/{MANIFEST_NAME}", len(manifest), 0o644)
        archive.addfile(entry, io.BytesIO(manifest))


def _tar_entry(name: str, size: int, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)  # owner, group and time stay 0
    info.size = size
    info.mode = mode
    return info


def _write_folder(target: Path, model_name: str, files: list[tuple[str, Path]], manifest: bytes) -> None:
    """Copies over what is there, as MMS does; the manifest comes last."""
    for name, path in files:
        copy = target / name
        if copy.resolve() != path.resolve():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    folder = target / MANIFEST_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with _whole(folder / MANIFEST_NAME) as file:
        file.write(manifest)


_WRITERS = {"default": _write_mar, "tgz": _write_tgz, "no-archive": _write_folder}

"""Opens model archives: find or fetch, digest, extract safely, keep by digest; blocking calls, made off the event loop."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mms.archive.digest import NOT_CONTENT, file_digest, tree_digest
from mms.archive.download import DownloadLimits, download, is_url
from mms.archive.kept import KeptContent
from mms.archive.manifest import Manifest, no_manifest, read_manifest
from mms.archive.names import default_name
from mms.archive.unpack import is_archive
from mms.errors import (
    BadInput,
    ChangedArchive,
    DownloadFailed,
    InvalidModel,
    LoadFailed,
    MissingArchive,
    ModelNotFound,
)

logger = logging.getLogger(__name__)

MAX_UNPACKED_SIZE = 64 << 30  # bytes

_GONE = (BadInput, ModelNotFound, DownloadFailed)
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})
_STARTUP_SUFFIXES = (".mar", ".model")


@dataclass(frozen=True, slots=True)
class ModelArchive:
    """An opened archive: ready to be loaded from `model_dir`.

    `sha256` is the digest of the archive file, or of the tree for a directory served in place. `kept` is True where the
    content lives under `data_dir/archives/SHA256/`, False for a directory of the model store. `default_name` is MMS's name
    for an archive whose manifest has none. `onnx_file` is the single .onnx file of an archive without a handler. `error`
    is not empty where the file is no archive at all: MMS takes it for an empty one and complains about the missing name
    and handler first, so this is for whoever has checked these to raise (InvalidModel).
    """

    url: str
    sha256: str
    model_dir: Path
    manifest: Manifest
    default_name: str
    kept: bool
    onnx_file: Path | None = None
    error: str = ""


class ArchiveStore:
    """Where archives are read from (the model store, HTTP) and where their content is kept (by digest).

    Safe to be called from several threads at once. Content appears under its digest whole or not at all, whenever the
    process or the machine stops.
    """

    def __init__(
        self,
        model_store: Path | None,
        data_dir: Path,
        *,
        tag: str,
        max_unpacked_size: int = MAX_UNPACKED_SIZE,
        limits: DownloadLimits | None = None,
    ) -> None:
        """`tag` names this life's temporary folder under `data_dir/tmp/` (store uuid and epoch), for the next boot's sweep."""
        self._model_store = model_store
        self._kept = KeptContent(data_dir, tag=tag, max_size=max_unpacked_size)
        self._limits = limits or DownloadLimits()

    def open(self, url: str) -> ModelArchive:
        """Open what the URL names today.

        Raises BadInput, ModelNotFound, DownloadFailed, InvalidModel with MMS's texts, and LoadFailed with
        `environment=True` for trouble of this machine (disk full, no right to read, too many open files).
        """
        if not url:
            raise BadInput("Parameter url is required.")
        with _machine_trouble(url):
            if is_url(url):
                return self._open_remote(url)
            path = self._find(url)
            if path.is_dir():
                return self._in_place(url, path)
            return self._open_file(url, path, file_digest(path))

    def reopen(self, url: str, sha256: str, *, changed: str = "registered") -> ModelArchive:
        """Open what was registered: the kept content of that digest, else the URL if its digest is still the same.

        `changed` is the `replay_changed_archive` setting and decides where today's archive is another one: `registered`
        takes the kept content (and raises ChangedArchive where none is kept), `new` takes today's, `fail` raises. An
        archive that is gone today is taken from what is kept under all three. Raises MissingArchive, ChangedArchive, and
        as `open` does.
        """
        kept = self._kept.find(sha256)
        if kept is None:
            return self._reopen_unkept(url, sha256, changed)
        if changed == "new":
            try:
                return self._say_if_changed(self.open(url), sha256)
            except _GONE as e:
                logger.warning("%s is gone or away (%s): the registered content is used", url, e.message)
        elif changed == "fail" or not is_url(url):
            today = self._today(url)
            if today is not None and today != sha256 and changed == "fail":
                raise ChangedArchive(f"{url} has changed since it was registered.")
            if today != sha256:
                how = "is gone or away" if today is None else "has changed since it was registered"
                logger.warning("%s %s: the registered content (sha256 %s) is used", url, how, sha256)
        with _machine_trouble(url):
            return self._from_kept(url, sha256, kept)

    def startup_urls(self) -> list[str]:
        """The archives of the model store that `load_models=ALL` means, by name."""
        if self._model_store is None:
            return []
        with _machine_trouble(str(self._model_store)):
            return sorted(
                child.name
                for child in self._model_store.iterdir()
                if not child.name.startswith(".") and (child.is_dir() or child.suffix in _STARTUP_SUFFIXES)
            )

    def sweep(self, keep: Set[str]) -> list[str]:
        """Remove kept content that no digest in `keep` names, and temporary folders of other lives; returns what went.

        What was opened in this life stays: it may be about to be registered, or still be served.
        """
        return self._kept.sweep(keep)

    # --- finding ------------------------------------------------------------------------------------------------------

    def _find(self, url: str) -> Path:
        """The file or directory of the model store that a local name means; a name with `..` is MMS's own refusal."""
        if ".." in url:
            raise ModelNotFound(f"Relative path is not allowed in url: {url}")
        if self._model_store is None:
            raise ModelNotFound("Model store has not been configured.")
        store = self._model_store.resolve()
        try:
            path = self._model_store / url.lstrip("/")
            real = path.resolve(strict=True)
        except (RuntimeError, ValueError):  # a loop of links; a name that no file can have
            real = store
        except OSError as e:
            if e.errno not in _NOT_THERE:
                raise
            real = store
        if not real.is_relative_to(store):
            raise ModelNotFound(f"Model leads outside of the model store: {url}")
        if real == store or not (real.is_dir() or real.is_file()):
            raise ModelNotFound(f"Model not found in model store: {url}")
        return path

    def _open_remote(self, url: str) -> ModelArchive:
        with self._kept.workspace() as workspace:
            fetched = workspace / "download"
            return self._open_file(url, fetched, download(url, fetched, self._limits))

    def _in_place(self, url: str, path: Path) -> ModelArchive:
        manifest, model_dir = read_manifest(path)
        return ModelArchive(
            url=url,
            sha256=tree_digest(path),
            model_dir=model_dir,
            manifest=manifest,
            default_name=default_name(url),
            kept=False,
            onnx_file=None if manifest.handler else _only_onnx_file(model_dir),
        )

    def _open_file(self, url: str, path: Path, sha256: str) -> ModelArchive:
        kept = self._kept.find(sha256)
        if kept is not None:
            return self._from_kept(url, sha256, kept)
        if not is_archive(path):
            error = f"Model archive {url} is neither a zip nor a gzipped tar."
            return ModelArchive(url, sha256, path.parent, no_manifest(), default_name(url), kept=False, error=error)
        return self._from_kept(url, sha256, self._kept.add(path, sha256))

    def _from_kept(self, url: str, sha256: str, kept: Path) -> ModelArchive:
        manifest, model_dir = read_manifest(kept)
        onnx_file = None if manifest.handler else _only_onnx_file(model_dir)
        return ModelArchive(url, sha256, model_dir, manifest, default_name(url), kept=True, onnx_file=onnx_file)

    # --- replay -------------------------------------------------------------------------------------------------------

    def _reopen_unkept(self, url: str, sha256: str, changed: str) -> ModelArchive:
        try:
            archive = self.open(url)
        except _GONE as e:
            raise MissingArchive(f"The archive of {url} is gone and its content is not kept: {e.message}") from e
        if sha256 and archive.sha256 != sha256 and changed != "new":
            raise ChangedArchive(f"{url} has changed since it was registered, and what it was then is not kept.")
        return self._say_if_changed(archive, sha256)

    def _say_if_changed(self, archive: ModelArchive, sha256: str) -> ModelArchive:
        if sha256 and archive.sha256 != sha256:
            logger.warning("%s has changed since it was registered: the new one is used", archive.url)
        return archive

    def _today(self, url: str) -> str | None:
        """The digest of what the URL names today; None where it is gone or away."""
        try:
            if is_url(url):
                return self.open(url).sha256
            with _machine_trouble(url):
                path = self._find(url)
                return tree_digest(path) if path.is_dir() else file_digest(path)
        except InvalidModel:
            return ""  # there, and surely another one
        except _GONE:
            return None


@contextmanager
def _machine_trouble(url: str) -> Iterator[None]:
    """What the machine cannot do is never the model's fault."""
    try:
        yield
    except FileNotFoundError as e:
        raise ModelNotFound(f"Model not found in model store: {url}") from e
    except OSError as e:
        raise LoadFailed(f"Failed to save model: {url}: {e.strerror}", detail=str(e), environment=True) from e


def _only_onnx_file(folder: Path) -> Path | None:
    """The one .onnx file below a folder, hidden folders left out; None where there is none or more than one."""
    found: list[Path] = []
    for below, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in NOT_CONTENT]
        found += [Path(below, name) for name in files if name.endswith(".onnx") and not name.startswith(".")]
    return found[0] if len(found) == 1 else None

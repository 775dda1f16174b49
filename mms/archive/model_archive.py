"""Opens model archives: find or fetch, digest, extract safely, keep by digest; blocking calls, made off the event loop."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from mms.archive.manifest import Manifest


@dataclass(frozen=True, slots=True)
class ModelArchive:
    """An opened archive: ready to be loaded from `model_dir`.

    `sha256` is the digest of the archive file, or of the tree for a directory served in place. `kept` is True where the
    content lives under `data_dir/archives/SHA256/`, False for a directory of the model store. `default_name` is MMS's name
    for an archive whose manifest has none. `onnx_file` is the single .onnx file of an archive without a handler.
    """

    url: str
    sha256: str
    model_dir: Path
    manifest: Manifest
    default_name: str
    kept: bool
    onnx_file: Path | None = None


class ArchiveStore:
    """Where archives are read from (the model store, HTTP) and where their content is kept (by digest)."""

    def __init__(self, model_store: Path | None, data_dir: Path, *, tag: str) -> None:
        """`tag` names this life's temporary folder under `data_dir/tmp/` (store uuid and epoch), for the next boot's sweep."""
        raise NotImplementedError

    def open(self, url: str) -> ModelArchive:
        """Open what the URL names today. Raises BadInput, ModelNotFound, DownloadFailed, InvalidModel with MMS's texts."""
        raise NotImplementedError

    def reopen(self, url: str, sha256: str, *, changed: str = "registered") -> ModelArchive:
        """Open what was registered: the kept content of that digest, else the URL if its digest is still the same.

        `changed` is the `replay_changed_archive` setting: registered | new | fail. Raises MissingArchive, ChangedArchive.
        """
        raise NotImplementedError

    def startup_urls(self) -> list[str]:
        """The archives of the model store that `load_models=ALL` means, by name."""
        raise NotImplementedError

    def sweep(self, keep: Set[str]) -> list[str]:
        """Remove kept content that no digest in `keep` names, and temporary folders of other lives; returns what went."""
        raise NotImplementedError

"""The archive's MANIFEST.json, read and checked: MMS's 1.0 form, its legacy 0.x form, or none at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mms.archive import lenient_json
from mms.errors import InvalidModel

MANIFEST_NAME = "MANIFEST.json"
MANIFEST_FOLDER = "MAR-INF"
RUNTIMES = ("python", "python2", "python3")
DEFAULT_RUNTIME = "python"

_MAX_SIZE = 1 << 20  # bytes; a manifest is read whole, and by a reader that is not made for bulk
_UNREADABLE = "Failed to parse signature.json."  # MMS's words, for manifests of both forms
_NOT_SETTINGS = frozenset({"modelName", "modelVersion", "description", "extensions", "handler"})


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the manifest says; None where it says nothing.

    `settings` are the keys of its `model` section beside name, version, description, extensions and handler: the option
    keys, as written and unchecked, and whatever else stands there. `runtime` is "python" where the manifest does not
    speak of it, and None where it names one that does not exist. `engine_name` is None where there is no engine section.
    `legacy` is True for a 0.x archive.
    """

    model_name: str | None
    model_version: str | None
    handler: str | None
    runtime: str | None
    engine_name: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    legacy: bool = False


def read_manifest(folder: Path) -> tuple[Manifest, Path]:
    """The manifest of an unpacked archive and the folder that its files are in (one down for some 0.x archives).

    Raises InvalidModel, with MMS's words, for a manifest that cannot be read or is plainly wrong, and OSError.
    """
    modern = folder / MANIFEST_FOLDER / MANIFEST_NAME
    if modern.is_file():
        return _modern(_read(modern)), folder
    nested = sorted(child / MANIFEST_NAME for child in folder.iterdir() if child.is_dir())
    for legacy in (folder / MANIFEST_NAME, *nested):
        if legacy.is_file():
            return _legacy(_read(legacy)), legacy.parent
    return no_manifest(), folder


def no_manifest() -> Manifest:
    """What an archive without a manifest amounts to."""
    return Manifest(model_name=None, model_version=None, handler=None, runtime=DEFAULT_RUNTIME)


def _read(path: Path) -> Mapping[str, Any]:
    if path.stat().st_size > _MAX_SIZE:
        raise InvalidModel(f"{_UNREADABLE} (The manifest is larger than {_MAX_SIZE} bytes.)")
    try:
        document = lenient_json.loads(path.read_bytes().decode("utf-8-sig", errors="replace"))
    except ValueError:
        raise InvalidModel(_UNREADABLE) from None
    return _section(document)


def _section(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidModel(_UNREADABLE)
    return value


def _text(section: Mapping[str, Any], key: str) -> str | None:
    """A string, or what MMS's reader takes for one; an empty one says nothing."""
    value = section.get(key)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value) or None
    if value is None:
        return None
    raise InvalidModel(_UNREADABLE)


def _modern(document: Mapping[str, Any]) -> Manifest:
    if "model" in document and document["model"] is None:
        raise InvalidModel("Missing Model entry in manifest file.")
    model = _section(document.get("model", {}))
    runtime = _text(document, "runtime") if "runtime" in document else DEFAULT_RUNTIME
    engine_name = None
    if document.get("engine") is not None:
        engine_name = _text(_section(document["engine"]), "engineName")
        if engine_name is None:
            raise InvalidModel("engineName is required in <engine>.")
    return Manifest(
        model_name=_text(model, "modelName"),
        model_version=_text(model, "modelVersion"),
        handler=_text(model, "handler"),
        runtime=runtime if runtime in RUNTIMES else None,
        engine_name=engine_name,
        settings={key: value for key, value in model.items() if key not in _NOT_SETTINGS and value is not None},
    )


def _legacy(document: Mapping[str, Any]) -> Manifest:
    model = document.get("Model")
    if model is None:
        raise InvalidModel("Missing Model entry in manifest file.")
    handler = _text(_section(model), "Service")
    if handler is None:
        raise InvalidModel("Missing Service entry in MANIFEST.json")
    engine = document.get("Engine")
    return Manifest(
        model_name=_text(model, "Model-Name"),
        model_version="snapshot",  # what MMS calls the version of every migrated archive
        handler=handler,
        runtime=DEFAULT_RUNTIME,
        engine_name="MXNet" if isinstance(engine, dict) and "MXNet" in engine else None,
        legacy=True,
    )

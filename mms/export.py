"""Writes down what is wanted now, as a configuration that a fresh machine can boot from, or as a document; reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mms.config.options import BY_NAME
from mms.config.resolve import Source
from mms.inference.registry import ServedModel
from mms.records import Origin, Registration, RegistrationState

_MACHINE_MADE = ("min_workers", "max_workers")
"""Their defaults differ between a registration and a start-up model, and between machines: they are always written."""


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """One model that is wanted. `settings` are the values that no archive and no built-in default gives by itself."""

    name: str
    version: str
    url: str
    sha256: str
    handler: str | None
    runtime: str | None
    origin: Origin
    state: RegistrationState
    last_error: str
    overrides: Mapping[str, Any]
    settings: Mapping[str, Any]
    sources: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Export:
    """The current generation at a journal number."""

    generation: int
    seq: int
    version: str
    models: tuple[ExportedModel, ...]


def exported_model(served: ServedModel | None, row: Registration | None, startup_url: str | None) -> ExportedModel:
    """One model from its stored row and what serves it; at least one of the two is there."""
    handler = row.handler if row is not None else None
    runtime = row.runtime if row is not None else None
    if served is None:
        assert row is not None
        said = dict(row.overrides)
        return ExportedModel(
            row.key.name,
            row.key.version,
            row.url or startup_url or "",
            row.sha256,
            handler,
            runtime,
            row.origin,
            row.state,
            row.last_error,
            said,
            said,
            dict.fromkeys(said, "api"),
        )
    written = {
        option: one
        for option, one in served.settings.explained.items()
        if option in _MACHINE_MADE or one.chosen.source not in (Source.MANIFEST, Source.DEFAULT)
    }
    return ExportedModel(
        name=served.key.name,
        version=served.key.version,
        url=served.archive.url,
        sha256=served.archive.sha256,
        handler=handler,
        runtime=runtime,
        origin=row.origin if row is not None else Origin.MANIFEST,
        state=row.state if row is not None else RegistrationState.ACTIVE,
        last_error=row.last_error if row is not None else "",
        overrides=dict(row.overrides) if row is not None else {},
        settings={option: one.value for option, one in written.items()},
        sources={option: f"{one.chosen.source.value}, {one.chosen.where}" for option, one in written.items()},
    )


def as_document(export: Export) -> dict[str, Any]:
    """For programs."""
    return {
        "generation": export.generation,
        "seq": export.seq,
        "version": export.version,
        "models": [
            {
                "modelName": model.name,
                "modelVersion": model.version,
                "modelUrl": model.url,
                "sha256": model.sha256,
                "handler": model.handler,
                "runtime": model.runtime,
                "origin": model.origin.value,
                "state": model.state.value,
                "overrides": dict(model.overrides),
                "settings": {
                    option: {"value": value, "source": model.sources[option]}
                    for option, value in model.settings.items()
                },
            }
            for model in export.models
        ],
    }


def as_properties(export: Export, at: datetime) -> str:
    """A config.properties with comments: start-up models, and each one's settings below its name."""
    from javaproperties import join_key_value

    loaded = [model for model in export.models if _problem(model) is None]
    lines = [
        f"# What mms {export.version} served, written {at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}:",
        f"# generation {export.generation} at journal number {export.seq}.",
        "# Start-up models and the settings of each. Values that come from an archive's manifest or are built in are left out.",
        "# Addresses, model_store and the store are this machine's own: add them.",
        "",
        join_key_value("load_models", ",".join(f"{model.name}={model.url}" for model in loaded), separator="="),
    ]
    for model in export.models:
        lines += ["", *_model_lines(model, join_key_value)]
    return "\n".join(lines) + "\n"


def _model_lines(model: ExportedModel, join: Any) -> Iterable[str]:
    how = "registered through the API" if model.origin is Origin.API else "a start-up model"
    digest = f", sha256 {model.sha256}" if model.sha256 else ""
    yield _comment(f"{model.name} {model.version}".strip() + f": {how}, from {model.url}{digest}")
    problem = _problem(model)
    if problem is not None:
        yield _comment(f"Not in load_models: {problem}")
    given = [f"{name} {value}" for name, value in (("handler", model.handler), ("runtime", model.runtime)) if value]
    if given:
        yield _comment(
            f"Registered with {' and '.join(given)}: a start-up model takes this from its archive's manifest."
        )
    for option, value in model.settings.items():
        yield _comment(f"{option}: {model.sources[option]}")
        line = join(f"{model.name}.{option}", BY_NAME[option].kind.show(value), separator="=")
        yield line if problem is None else f"# {line}"


def _problem(model: ExportedModel) -> str | None:
    """Why a start-up list cannot or should not name this model."""
    if model.state is RegistrationState.QUARANTINED:
        return f"it is quarantined ({_one_line(model.last_error)})"
    if "," in model.url or "," in model.name or "=" in model.name or ":" in model.name:
        return "its name or URL cannot be written into a list"
    return None if model.url else "its archive is not known: it was removed from the configuration"


def _comment(text: str) -> str:
    return f"# {_one_line(text)}"


def _one_line(text: str) -> str:
    lines: Sequence[str] = text.strip().splitlines()
    return lines[-1] if lines else ""

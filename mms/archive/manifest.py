"""The archive's MANIFEST.json, read and checked: MMS's 1.0 form, its legacy 0.x form, or none at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the manifest says; None where it says nothing. `settings` are the option keys of its `model` section, unchecked.

    `engine_name` is None where there is no engine section. `legacy` is True for a 0.x archive.
    """

    model_name: str | None
    model_version: str | None
    handler: str | None
    runtime: str | None
    engine_name: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    legacy: bool = False

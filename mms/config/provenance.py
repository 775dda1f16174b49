"""Where a value came from: the words for sources and scopes, and the records that carry them to logs and API."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Source(StrEnum):
    """Where a value came from; COMMAND_LINE sets options of the server only."""

    API = "api"
    ENVIRONMENT = "environment"
    CONFIG = "config"
    MANIFEST = "manifest"
    DEFAULT = "default"
    COMMAND_LINE = "command-line"


class Scope(StrEnum):
    """How widely the value was meant."""

    MODEL = "model"
    SERVER = "server"
    ARCHIVE = "archive"
    BUILT_IN = "built-in"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One source's word on an option; `where` is file and line, variable, manifest key or journal number."""

    value: Any
    source: Source
    scope: Scope
    where: str


@dataclass(frozen=True, slots=True)
class Explained:
    """An option's resolved value with its provenance and the sources that it beat, strongest first."""

    option: str
    unit: str
    live: bool
    chosen: Candidate
    beaten: tuple[Candidate, ...]

    @property
    def value(self) -> Any:
        """The value in force."""
        return self.chosen.value

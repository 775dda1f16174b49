"""Turns layers into settings: per option the first source that speaks wins, and what it beat is kept beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from mms.records import RecoveryMode, StartupModel


class Source(StrEnum):
    """Where a value came from."""

    API = "api"
    ENVIRONMENT = "environment"
    CONFIG = "config"
    MANIFEST = "manifest"
    DEFAULT = "default"


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


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One model's settings in force: what the hot path reads. Seconds for timeouts, milliseconds for `max_batch_delay`, bytes for sizes."""

    batch_size: int
    max_batch_delay: int
    response_timeout: float
    startup_timeout: float
    min_workers: int
    max_workers: int
    job_queue_size: int
    max_request_size: int
    max_response_size: int
    preload_model: bool
    explained: Mapping[str, Explained]


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The server's own settings in force. Fields are added by adding a row to the option table."""

    config_file: Path | None
    inference_address: str
    management_address: str
    model_store: Path | None
    load_models: tuple[StartupModel, ...]
    load_all: bool
    data_dir: Path
    store_url: str  # SQLAlchemy URL: sqlite:///ABSOLUTE or postgresql+psycopg://...
    server_id: str
    recovery_mode: RecoveryMode

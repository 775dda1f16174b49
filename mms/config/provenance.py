"""Where a value came from: the words for sources and scopes, and the records that carry them to logs and API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

UNNUMBERED = "management API"
"""Where an API value came from while its journal number is not known."""


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


def journal_place(seq: int) -> str:
    """Where an API value came from: the journal entry that gave the option this value."""
    return f"journal entry {seq}"


def numbered(explained: Mapping[str, Explained], seqs: Mapping[str, int]) -> Mapping[str, Explained]:
    """The same with the journal numbers, by option, of API values whose number was not known when they were resolved."""
    return {option: _numbered(one, seqs) for option, one in explained.items()}


def _numbered(one: Explained, seqs: Mapping[str, int]) -> Explained:
    if not any(candidate.where.startswith(UNNUMBERED) for candidate in (one.chosen, *one.beaten)):
        return one
    beaten = tuple(_placed(candidate, one.option, seqs) for candidate in one.beaten)
    return replace(one, chosen=_placed(one.chosen, one.option, seqs), beaten=beaten)


def _placed(candidate: Candidate, option: str, seqs: Mapping[str, int]) -> Candidate:
    if not candidate.where.startswith(UNNUMBERED):
        return candidate
    # A worker count that the other one moved names the other one behind its place: `management API (max_workers)`.
    rest = candidate.where.removeprefix(UNNUMBERED)
    seq = seqs.get(rest.strip(" ()") or option)
    return candidate if seq is None else replace(candidate, where=f"{journal_place(seq)}{rest}")

"""Reads one `.properties` file: keys, values and the line of each, with `$$VARIABLE$$` replaced from the environment."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mms.errors import UsageError

_VARIABLE = re.compile(r"\$\$([^$]+)\$\$")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line's key and value; `where` is FILE:LINE, the line on which it begins."""

    key: str
    value: str
    where: str


def read_properties(file: Path, environ: Mapping[str, str]) -> list[Entry]:
    """All entries in order, repeated keys included. UTF-8, else Latin-1. Raises UsageError naming file, line and variable."""
    # Imported here: the package pulls in XML and HTTP parts (30 ms) that a start without any file need not wait for.
    import javaproperties

    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"Invalid configuration: {file} cannot be read: {error.strerror}.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    entries: list[Entry] = []
    line = 1
    try:
        for element in javaproperties.parse(io.StringIO(text, newline=None)):
            if isinstance(element, javaproperties.KeyValue):
                where = f"{file}:{line}"
                entries.append(Entry(element.key, expand(element.value.strip(), environ, where), where))
            line += element.source.count("\n")
    except javaproperties.InvalidUEscapeError as error:
        raise UsageError(f"Invalid configuration: {error} ({file}:{line}).") from error
    return entries


def expand(value: str, environ: Mapping[str, str], where: str) -> str:
    """Replace each `$$VARIABLE$$`; one that is not set raises UsageError, in MMS's words."""

    def replacement(match: re.Match[str]) -> str:
        found = environ.get(match[1])
        if found is None:
            raise UsageError(f"Invalid configuration: Invalid Environment Variable {match[1]} ({where}).")
        return found

    return _VARIABLE.sub(replacement, value)

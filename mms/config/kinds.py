"""Kinds of values that an option can have: each turns text or JSON into a checked value and says in words what it expects."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST_SHOWN = 80
_TRUE = frozenset(("true", "t", "yes", "y", "on", "1"))
_FALSE = frozenset(("false", "f", "no", "n", "off", "0"))
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")


class Unfit(ValueError):
    """A value that its kind does not take; `text`, where given, is the whole message (the kind knows better words)."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        self.text = text


class Kind(ABC):
    """A kind of values. `expected` reads on after "must be"; `plain` is the word for the type in tables."""

    plain: str = "text"

    @property
    @abstractmethod
    def expected(self) -> str:
        """What is expected, as it reads on after "must be"."""

    @abstractmethod
    def parse(self, given: object, *, strict: bool = False) -> Any:
        """The value of a text or of a JSON value; `strict` takes a JSON value of the right type only. Raises Unfit."""

    def schema(self) -> Mapping[str, Any]:
        """The kind as a JSON schema, for descriptions of the API."""
        return {"type": "string"}

    def show(self, value: Any) -> str:
        """The value as an operator would write it."""
        return str(value)


def shown(given: object) -> str:
    """What was given, short enough for one line of a message."""
    text = f'"{given}"' if isinstance(given, str) else repr(given)
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 4] + '..."'


@dataclass(frozen=True, slots=True)
class Whole(Kind):
    """A whole number in a range, both ends included."""

    low: int
    high: int
    plain = "whole number"

    @property
    def expected(self) -> str:
        """Names the range."""
        return f"a whole number from {self.low} to {self.high}"

    def parse(self, given: object, *, strict: bool = False) -> int:
        """Whole numbers, and floats without a fraction; outside `strict`, digits in a text too."""
        if isinstance(given, str) and not strict and _WHOLE.fullmatch(given.strip()):
            number = int(given)
        elif isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given):
            number = int(given)
            if number != given:
                raise Unfit
        else:
            raise Unfit
        if not self.low <= number <= self.high:
            raise Unfit
        return number

    def schema(self) -> Mapping[str, Any]:
        """An integer with its bounds."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Number(Kind):
    """A number in a range, with or without a fraction; whole ones stay whole, so that they read as they were written."""

    low: float
    high: float
    plain = "number"

    @property
    def expected(self) -> str:
        """Names the range."""
        return f"a number from {self.low:g} to {self.high:.0f}"

    def parse(self, given: object, *, strict: bool = False) -> int | float:
        """Numbers; outside `strict`, their text too."""
        if isinstance(given, str) and not strict:
            try:
                number = float(given)
            except ValueError:
                raise Unfit from None
        elif isinstance(given, int | float) and not isinstance(given, bool):
            number = given
        else:
            raise Unfit
        if not (math.isfinite(number) and self.low <= number <= self.high):
            raise Unfit
        return int(number) if number == int(number) else number

    def schema(self) -> Mapping[str, Any]:
        """A number with its bounds."""
        return {"type": "number", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Truth(Kind):
    """True or false, in any case; the usual other words are taken as well."""

    plain = "true or false"

    @property
    def expected(self) -> str:
        """Names the two words."""
        return "true or false"

    def parse(self, given: object, *, strict: bool = False) -> bool:
        """Booleans; outside `strict`, the words for them."""
        if isinstance(given, bool):
            return given
        if strict or not isinstance(given, str | int):
            raise Unfit
        word = str(given).strip().lower()
        if word not in _TRUE | _FALSE:
            raise Unfit
        return word in _TRUE

    def schema(self) -> Mapping[str, Any]:
        """A boolean."""
        return {"type": "boolean"}

    def show(self, value: Any) -> str:
        """Lower case, as it is written in a properties file."""
        return str(value).lower()


@dataclass(frozen=True, slots=True)
class Choice(Kind):
    """One word of a few, in any case; the value is the word as the table spells it."""

    words: tuple[str, ...]
    plain = "one of"

    @property
    def expected(self) -> str:
        """Names the words."""
        return " or ".join((", ".join(self.words[:-1]), self.words[-1])) if len(self.words) > 1 else self.words[0]

    def parse(self, given: object, *, strict: bool = False) -> str:
        """The word as the table spells it."""
        for word in self.words:
            if isinstance(given, str) and given.strip().lower() == word.lower():
                return word
        raise Unfit

    def schema(self) -> Mapping[str, Any]:
        """A string with its choices."""
        return {"type": "string", "enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Text(Kind):
    """Any text, or one that a pattern matches whole; `says` is then what it must be."""

    pattern: str = ""
    says: str = "a text"

    @property
    def expected(self) -> str:
        """The pattern in words."""
        return self.says

    def parse(self, given: object, *, strict: bool = False) -> str:
        """The text as it is."""
        if not isinstance(given, str) or (self.pattern and not re.fullmatch(self.pattern, given)):
            raise Unfit
        return given


@dataclass(frozen=True, slots=True)
class Regex(Kind):
    """A regular expression."""

    plain = "regular expression"

    @property
    def expected(self) -> str:
        """A regular expression."""
        return "a regular expression"

    def parse(self, given: object, *, strict: bool = False) -> str:
        """The expression as it is, once it is known to be one."""
        if not isinstance(given, str):
            raise Unfit
        try:
            re.compile(given)
        except re.error:
            raise Unfit from None
        return given


@dataclass(frozen=True, slots=True)
class Place(Kind):
    """A file or folder; a relative one counts from the current folder."""

    plain = "path"

    @property
    def expected(self) -> str:
        """A path."""
        return "a path"

    def parse(self, given: object, *, strict: bool = False) -> Path:
        """The absolute path; whether it exists is not looked at."""
        if not isinstance(given, str) or not given or "\0" in given:
            raise Unfit
        return Path(given).expanduser().absolute()

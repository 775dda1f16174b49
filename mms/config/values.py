"""Gives texts and JSON values the kind of their option, or says in one line what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mms.config.kinds import Number, Unfit, shown
from mms.config.option import Option
from mms.config.options import API_OPTIONS, MODEL_OPTIONS
from mms.config.sources import Word
from mms.errors import BadInput, InvalidModel, UsageError


def word_value(option: Option, word: Word) -> Any:
    """The value of what a layer says. Raises UsageError naming the option, what was given, what is expected, and where."""
    kind = option.kind
    if word.divisor != 1 and isinstance(kind, Number):
        kind = Number(kind.low * word.divisor, kind.high * word.divisor)
    try:
        value = kind.parse(word.text)
    except Unfit as unfit:
        place = "" if word.where == word.key else f" ({word.where})"
        given = "" if option.secret else f", not {shown(word.text)}"
        said = f"{unfit.text}{place}" if unfit.text else f"{word.key} must be {kind.expected}{given}{place}."
        raise UsageError(f"Invalid configuration: {said}") from None
    return value if word.divisor == 1 else option.kind.parse(value / word.divisor)


def parse_api(option: Option | str, given: object) -> Any:
    """The value of a parameter of the management API, from a query's text or a JSON value; None where it says nothing.

    `option` is a row or the parameter's own name. Raises BadInput naming the parameter and what is expected.
    """
    name = option if isinstance(option, str) else option.api_names[0]
    row = API_OPTIONS[option] if isinstance(option, str) else option
    if given is None or (isinstance(given, str) and not given.strip()):
        return None
    try:
        return row.kind.parse(given)
    except Unfit:
        raise BadInput(f"Parameter {name} must be {row.kind.expected}, not {shown(given)}.") from None


def manifest_value(option: Option, settings: Mapping[str, Any]) -> Any:
    """The manifest's value of an option, None where it says nothing. Raises InvalidModel naming the manifest's key."""
    given = settings.get(option.manifest_key)
    if given is None:
        return None
    try:
        return option.kind.parse(given, strict=True)
    except Unfit:
        raise InvalidModel(
            f"{option.manifest_name} in the manifest must be {option.kind.expected}, not {shown(given)}."
        ) from None


def check_manifest(settings: Mapping[str, Any]) -> None:
    """Raise InvalidModel for the first option of the manifest's `model` section that is of the wrong type or out of range."""
    values = {option.name: manifest_value(option, settings) for option in MODEL_OPTIONS}
    low, high = values["min_workers"], values["max_workers"]
    if low is not None and high is not None and high < low:
        raise InvalidModel(
            f"model.maxWorkers in the manifest must not be less than model.minWorkers ({low}), not {high}."
        )

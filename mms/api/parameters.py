"""Reads the parameters of management requests: query or JSON, as MMS takes them, into wishes; bad values are refused by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mms.api.bodies import mime_type, pairs
from mms.api.json_text import MIME
from mms.archive import lenient_json
from mms.archive.manifest import RUNTIMES
from mms.config.kinds import shown
from mms.config.option import Option
from mms.config.options import API_OPTIONS, MODEL_OPTIONS, model_option
from mms.config.values import parse_api
from mms.errors import BadInput
from mms.wishes import RegisterModel, UpdateModel

_WHOLE = re.compile(r"[+-]?[0-9]+")
_INT32 = 2**31

Given = Mapping[str, Any]
"""Parameters as they came: texts of a query, or values of a JSON object; what is empty or null is left out."""


def from_query(query: bytes) -> Given:
    """The parameters of a query string; of equal names the first one counts.

    A whole number that no 32-bit integer holds counts as not given: the original reads it so.
    """
    given: dict[str, str] = {}
    for name, value in pairs(query):
        given.setdefault(name, value.decode("utf-8", "replace"))
    return {
        name: text
        for name, text in given.items()
        if text and not (_WHOLE.fullmatch(text) and not -_INT32 <= int(text[:24]) < _INT32)
    }


def from_json(body: bytes) -> Given:
    """The members of a JSON object. Raises BadInput where the body is none."""
    try:
        document = lenient_json.loads(body.decode("utf-8")) if body.strip() else {}
    except ValueError as error:
        raise BadInput(f"The body is not valid JSON: {error}.") from error
    if not isinstance(document, dict):
        raise BadInput("The body must be a JSON object with the parameters as its members.")
    return {name: value for name, value in document.items() if value not in (None, "")}


def registration(content_type: bytes, query: bytes, body: bytes) -> RegisterModel:
    """The wish of POST /models: from the body alone where it is JSON, else from the query alone. Raises BadInput."""
    is_json = mime_type(content_type).lower() == MIME
    given = from_json(body) if is_json else from_query(query)
    if "url" not in given:
        raise BadInput("Parameter url is required.")
    runtime = _text(given, "runtime")
    if runtime is not None and runtime not in RUNTIMES:
        raise BadInput(f"Invalid RuntimeType value: {runtime}")
    return RegisterModel(
        url=str(_text(given, "url")),
        model_name=_text(given, "model_name"),
        handler=_text(given, "handler"),
        runtime=runtime,
        overrides=_overrides(given),
        synchronous=_truth(given, "synchronous", default=True),
    )


def update(model: str, query: bytes) -> UpdateModel:
    """The wish of PUT /models/{model}: without any parameter, the model goes back to one worker, as in MMS. Raises BadInput."""
    given = from_query(query)
    overrides = _overrides({name: value for name, value in given.items() if name != "initial_workers"})
    names = {name for name, _ in pairs(query)}
    scale = bool(names & {"min_worker", "max_worker"}) or not overrides
    if scale and overrides.get("max_workers", overrides.get("min_workers", 1)) < overrides.get("min_workers", 1):
        raise BadInput("max_worker cannot be less than min_worker.")
    for option in MODEL_OPTIONS:
        if option.name in overrides:
            _refuse_unless_live(option)
    return UpdateModel(model, overrides, scale, _truth(given, "synchronous", default=False))


def page(query: bytes) -> tuple[int, int]:
    """Limit and offset of GET /models; whatever is no number or out of range takes the default, as in MMS."""
    given = from_query(query)
    limit = _whole(given.get("limit"), 100)
    offset = _whole(given.get("next_page_token"), 0)
    return limit if 0 <= limit <= 100 else 100, max(offset, 0)


def number(given: Given, name: str, default: int) -> int:
    """A whole number of the server's own routes, 0 or more. Raises BadInput."""
    if name not in given:
        return default
    text = str(given[name])
    if not _WHOLE.fullmatch(text) or int(text) < 0:
        raise BadInput(f"Parameter {name} must be a whole number of 0 or more, not {shown(given[name])}.")
    return int(text)


def truth(given: Given, name: str, *, default: bool) -> bool:
    """A parameter that is true or false. Raises BadInput."""
    return _truth(given, name, default=default)


def live_option(name: str) -> str:
    """The option behind a name of the table or of the API, to be changed on a running model. Raises BadInput."""
    option = model_option(name)
    if option is None:
        known = ", ".join(option.name for option in MODEL_OPTIONS)
        raise BadInput(f"There is no option {shown(name)}; a model has: {known}.")
    _refuse_unless_live(option)
    return option.name


def restore_target(given: Given) -> dict[str, Any]:
    """Which point a restore goes back to: just one of seq, generation and before (a time in ISO 8601). Raises BadInput."""
    named = [name for name in ("seq", "generation", "before") if name in given]
    if len(named) != 1:
        raise BadInput("Just one of the parameters seq, generation and before must be given.")
    if named[0] != "before":
        return {named[0]: number(given, named[0], 0)}
    try:
        moment = datetime.fromisoformat(str(given["before"]))
    except ValueError as error:
        raise BadInput(
            f"Parameter before must be a time such as 2026-01-31T12:00:00Z, not {shown(given['before'])}."
        ) from error
    return {"before": moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)}


def _refuse_unless_live(option: Option) -> None:
    if not option.live:
        raise BadInput(f"Parameter {option.name} cannot be changed on a running model; register the model with it.")


def _whole(text: Any, default: int) -> int:
    return int(text) if isinstance(text, str) and _WHOLE.fullmatch(text) else default


def _text(given: Given, name: str) -> str | None:
    value = given.get(name)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    raise BadInput(f"Parameter {name} must be a text, not {shown(value)}.")


def _truth(given: Given, name: str, *, default: bool) -> bool:
    value = given.get(name, default)
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    raise BadInput(f"Parameter {name} must be true or false, not {shown(value)}.")


def _overrides(given: Given) -> dict[str, Any]:
    """The options among the parameters, by the options' own names; initial_workers beats min_worker."""
    named = [name for name in API_OPTIONS if name in given]
    named.sort(key=lambda name: name == "initial_workers")
    return {API_OPTIONS[name].name: parse_api(name, given[name]) for name in named}

"""`mms settings MODEL`: every setting of a model with its source, as a table or, for one option, as a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from mms.client import ManagementClient, model_path
from mms.commands.asking import AsJson, Server, print_json, print_table, value_text
from mms.config.check import nearest
from mms.config.options import model_option
from mms.errors import UsageError

Shown = Mapping[str, Any]
"""One source's word as the API shows it: value, source, scope, where."""

_FROM = {
    ("api", "model"): "from the management API",
    ("environment", "model"): "from the environment, for this model",
    ("config", "model"): "from the configuration, for this model",
    ("manifest", "archive"): "from the archive's manifest",
    ("environment", "server"): "from the environment, for all models",
    ("config", "server"): "from the configuration, for all models",
    ("default", "built-in"): "the built-in default",
}


def settings(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.")],
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="OPTION", help="Say in a sentence where this one comes from.")
    ] = None,
    as_json: AsJson = False,
    server: Server = None,
) -> None:
    """Show each setting of a model: its value, which source set it, and which values that one beat."""
    with ManagementClient(server) as client:
        document = client.get(model_path(model, "settings"))
    shown: Mapping[str, Shown] = document["settings"]
    if explain is not None:
        typer.echo(sentence(model, known_option(explain, shown), shown))
    elif as_json:
        print_json(document)
    else:
        print_table(("setting", "value", "unit", "source", "where", "live", "beats"), _rows(shown))


def known_option(name: str, shown: Mapping[str, Shown]) -> str:
    """The option of that name, own or the API's. Raises UsageError with the nearest one."""
    row = model_option(name)
    if row is None or row.name not in shown:
        raise UsageError(f"There is no setting {name}.{nearest(name, shown)}")
    return row.name


def sentence(model: str, option: str, shown: Mapping[str, Shown]) -> str:
    """Value, unit, source and what it beat, in one sentence."""
    one = shown[option]
    said = f"{option} of {model} is {_amount(one)}, {_origin(one)}"
    beaten = [f"{value_text(other['value'])}, {_origin(other)}" for other in one["beaten"]]
    return f"{said}; it beats {_listed(beaten)}." if beaten else f"{said}; no other source names it."


def _amount(one: Shown) -> str:
    unit = str(one["unit"])
    if one["value"] == 1:
        unit = {"requests": "request", "processes": "process", "bytes": "byte"}.get(unit, unit)
    return f"{value_text(one['value'])} {unit}".strip()


def _origin(one: Shown) -> str:
    said = _FROM.get((one["source"], one["scope"]), f"from {one['source']}")
    where = str(one["where"]).removeprefix("built-in").removeprefix(": ")
    return f"{said} ({where})" if where else said


def _listed(parts: Sequence[str]) -> str:
    return "; ".join(parts[:-1]) + "; and " + parts[-1] if len(parts) > 1 else parts[0]


def _rows(shown: Mapping[str, Shown]) -> list[tuple[object, ...]]:
    return [
        (
            option,
            value_text(one["value"]),
            one["unit"],
            _source(one),
            one["where"],
            "yes" if one["live"] else "no",
            ", ".join(f"{value_text(other['value'])} ({_source(other)}: {other['where']})" for other in one["beaten"]),
        )
        for option, one in shown.items()
    ]


def _source(one: Shown) -> str:
    """Source and scope in a word or two; the scope is said where the source does not tell it."""
    return f"{one['source']} {one['scope']}" if one["source"] in ("environment", "config") else str(one["source"])

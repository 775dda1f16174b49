"""Writes the settings page, docs/settings.md, from the option table: `python -m mms.config.reference > docs/settings.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from mms.config.option import Layer, Option, Spelling
from mms.config.options import MODEL_OPTIONS, SERVER_OPTIONS

INTRODUCTION = """\
# Settings

<!-- Written by `python -m mms.config.reference`; change mms/config/options.py instead. -->

A model's setting is resolved option by option, and the first of these that speaks wins:

1. the management API: an override, stored with the registration
2. the operator, of this model: the variable `MMS_MODEL__<NAME>__<OPTION>` (with `enable_envvars_config=true`), then
   `<model_name>.<option>=` in config.properties, then `<option>=` in a file `<model_name>.properties` in the model store
3. the archive's manifest, section `model`
4. the operator, of all models: the variable `MMS_<OPTION>` (with `enable_envvars_config=true`), then `<option>=` in
   config.properties
5. the built-in default

`GET /models/{name}/settings` and `mms settings MODEL` show each value with its source and the values that it beat:
[where a value comes from](configuring.md) goes through an example and says when each source is read. There is
no cap: a value from the API counts even where the manifest names another one, and the log then names both.

In a variable, a model's name is written in upper case, and every character that is not a letter or a digit as `_`:
`resnet-18.v2` is `RESNET_18_V2`. Two names that become one that way are refused by `mms config check`.

`max_workers` is never below `min_workers`. Where both are said and contradict each other, the one from the stronger source
stays and moves the other; a source that contradicts itself is refused.

The file is the one that `MMS_CONFIG_FILE` names, else `--mms-config` (or `--config`), else `config.properties` in the current
folder. `$$VARIABLE$$` in a value is replaced from the environment; one that is not set stops the start. An empty value says
nothing. Unknown keys are warned about, bad values stop the start; `mms config check` shows both without starting.
Timeouts are in seconds everywhere, unless the name says otherwise."""

SERVER_INTRODUCTION = """\
## Options of the server

The order is: command line, then the variable `MMS_<OPTION>` (with `enable_envvars_config=true`), then config.properties. For
the options marked *env first* (multi-model-server's own keys) the variable beats the command line, as it does there."""

NO_EFFECT_INTRODUCTION = """\
## Accepted, without effect

These are settings of the Java server. They may stay in a file; the start mentions each once."""


def pages() -> str:
    """The whole page."""
    effective = [option for option in SERVER_OPTIONS if option.effective]
    parts = [
        INTRODUCTION,
        "## Options of each model",
        _table(("option", "unit", "takes", "default", "API", "manifest", "live"), map(_model_row, MODEL_OPTIONS)),
        "*Live* options change on a running model, without a restart of its workers.",
        "\n\n".join(_model_details(option) for option in MODEL_OPTIONS),
        SERVER_INTRODUCTION,
        _table(("option", "takes", "default", "set by", "what it does"), map(_server_row, effective)),
        NO_EFFECT_INTRODUCTION,
        ", ".join(f"`{option.name}`" for option in SERVER_OPTIONS if not option.effective) + ".",
    ]
    return "\n\n".join(parts) + "\n"


def _table(heads: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    heads = tuple(heads)
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _model_row(option: Option) -> tuple[str, ...]:
    api = ", ".join(f"`{name}`" for name in option.api_names)
    live = "yes" if option.live else "no"
    takes = option.kind.expected
    return (f"`{option.name}`", option.unit, takes, option.shown_default, api, f"`{option.manifest_key}`", live)


def _model_details(option: Option) -> str:
    also = [_spelling(spelling) for spelling in option.spellings]
    spelled = f" Also spelled {' and '.join(also)}." if also else ""
    return f"**`{option.name}`**: {option.help}{spelled}"


def _spelling(spelling: Spelling) -> str:
    remarks = [
        *(["in milliseconds"] if spelling.divisor != 1 else []),
        *([] if spelling.per_model else ["for all models"]),
        *([f"{spelling.silent} says nothing"] if spelling.silent else []),
    ]
    return f"`{spelling.name}`" + (f" ({', '.join(remarks)})" if remarks else "")


def _server_row(option: Option) -> tuple[str, ...]:
    unit = f" ({option.unit})" if option.unit else ""
    return (f"`{option.name}`", f"{option.kind.expected}{unit}", option.shown_default, _setters(option), option.help)


def _setters(option: Option) -> str:
    words = []
    if Layer.COMMAND_LINE in option.layers and option.flag:
        words.append(f"`{option.flag}`")
    if Layer.SERVER_ENVIRONMENT in option.layers:
        words.append("environment")
    if option.variable:
        words.append(f"`{option.variable}` (always read)")
    if Layer.SERVER_CONFIG in option.layers:
        words.append("file")
    first = Layer.COMMAND_LINE in option.layers and option.layers[0] is Layer.SERVER_ENVIRONMENT and option.flag
    return ", ".join(words) + (" (*env first*)" if first else "")


def main() -> None:
    """Write the page to the standard output."""
    sys.stdout.write(pages())


if __name__ == "__main__":
    main()

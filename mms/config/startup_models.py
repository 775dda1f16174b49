"""The start-up models that a configuration names, and the rule for names of models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mms.config.kinds import Kind, Unfit
from mms.errors import BadInput
from mms.records import StartupModel

LONGEST_NAME = 256
NAME_RULE = f"a name of 1 to {LONGEST_NAME} characters, without / and control characters"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
WEB_SCHEMES = ("http://", "https://")


def is_model_name(name: str) -> bool:
    """True for a name that a model may have."""
    return 0 < len(name) <= LONGEST_NAME and "/" not in name and not _CONTROL.search(name)


def check_model_name(name: str) -> None:
    """Raise BadInput for a name that no model may have."""
    if not is_model_name(name):
        short = _CONTROL.sub("?", name if len(name) <= 80 else name[:80] + "...")
        raise BadInput(f'Parameter model_name must be {NAME_RULE}, not "{short}".')


def environment_name(model_name: str) -> str:
    """The model's name as variables of the environment spell it: upper case, any character but A-Z and 0-9 as `_`."""
    return "".join(c.upper() if c.isascii() and c.isalnum() else "_" for c in model_name)


@dataclass(frozen=True, slots=True)
class StartupModels:
    """What `load_models` says: every archive of the model store (`everything`), or a list."""

    models: tuple[StartupModel, ...] = ()
    everything: bool = False

    def local(self) -> Sequence[str]:
        """The archives that are looked for in the model store."""
        return [m.url for m in self.models if not m.url.lower().startswith(WEB_SCHEMES)]


@dataclass(frozen=True, slots=True)
class StartupModelsKind(Kind):
    """`ALL`, or a comma-separated list of `url` and `name=url`."""

    plain = "list of models"

    @property
    def expected(self) -> str:
        """The two forms."""
        return "ALL, or a comma-separated list of URL and NAME=URL"

    def parse(self, given: object, *, strict: bool = False) -> StartupModels:
        """The list. The names must differ; text up to a `=` that cannot be a name (as in a signed URL) belongs to the URL."""
        if not isinstance(given, str):
            raise Unfit
        if given.strip().upper() == "ALL":
            return StartupModels(everything=True)
        models = tuple(_startup_model(entry.strip()) for entry in given.split(",") if entry.strip())
        names = [m.name for m in models if m.name is not None]
        for name in names:
            if names.count(name) > 1:
                raise Unfit(f"Model {name} is already registered.")
        return StartupModels(models)

    def show(self, value: Any) -> str:
        """As it is written in a configuration."""
        if value.everything:
            return "ALL"
        return ",".join(m.url if m.name is None else f"{m.name}={m.url}" for m in value.models)


def _startup_model(entry: str) -> StartupModel:
    name, sign, url = entry.partition("=")
    name = name.strip()
    if not sign or ":" in name or "/" in name:
        return StartupModel(url=entry)
    if not is_model_name(name):
        raise Unfit(f'The model name in "{entry}" must be {NAME_RULE}.')
    if not url.strip():
        raise Unfit(f'The entry "{entry}" names no archive (expected: NAME=URL).')
    return StartupModel(url=url.strip(), name=name)

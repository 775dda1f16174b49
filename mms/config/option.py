"""One row of the option table: what an option is called in each place, what it takes, and which layers may set it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from mms.config.kinds import Kind
from mms.config.provenance import Scope, Source


class Layer(Enum):
    """A layer of the configuration: its source, its scope, and the words for it. Listed strongest first for a model's option."""

    API = (Source.API, Scope.MODEL, "management API")
    MODEL_ENVIRONMENT = (Source.ENVIRONMENT, Scope.MODEL, "environment, of one model")
    MODEL_CONFIG = (Source.CONFIG, Scope.MODEL, "config.properties, of one model")
    MODEL_FILE = (Source.CONFIG, Scope.MODEL, "file beside the archive")
    MANIFEST = (Source.MANIFEST, Scope.ARCHIVE, "the archive's manifest")
    COMMAND_LINE = (Source.COMMAND_LINE, Scope.SERVER, "command line")
    SERVER_ENVIRONMENT = (Source.ENVIRONMENT, Scope.SERVER, "environment")
    SERVER_CONFIG = (Source.CONFIG, Scope.SERVER, "config.properties")
    BUILT_IN = (Source.DEFAULT, Scope.BUILT_IN, "built-in")

    @property
    def source(self) -> Source:
        """The layer's source, as shown with a value."""
        return self.value[0]

    @property
    def scope(self) -> Scope:
        """The layer's scope, as shown with a value."""
        return self.value[1]

    @property
    def words(self) -> str:
        """The layer's name in the reference."""
        return self.value[2]


MODEL_LAYERS = (
    Layer.API,
    Layer.MODEL_ENVIRONMENT,
    Layer.MODEL_CONFIG,
    Layer.MODEL_FILE,
    Layer.MANIFEST,
    Layer.SERVER_ENVIRONMENT,
    Layer.SERVER_CONFIG,
)
"""Who may set an option of a model, strongest first."""

SERVER_LAYERS = (Layer.COMMAND_LINE, Layer.SERVER_ENVIRONMENT, Layer.SERVER_CONFIG)
"""Who may set an option of the server, strongest first."""

MMS_SERVER_LAYERS = (Layer.SERVER_ENVIRONMENT, Layer.COMMAND_LINE, Layer.SERVER_CONFIG)
"""The same for MMS's own keys: there the environment beats the command line."""

ONE_MODEL = frozenset((Layer.MODEL_ENVIRONMENT, Layer.MODEL_CONFIG, Layer.MODEL_FILE))
"""The layers in which an operator speaks of one model."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """Another name of an option in configurations.

    `per_model` is True where the name may also follow a model's name. `silent` is the value that says nothing (MMS writes
    -1 or 0 for "not set"). `divisor` brings its unit to the option's (1000 for milliseconds of an option in seconds).
    """

    name: str
    per_model: bool = False
    silent: str = ""
    divisor: int = 1


@dataclass(frozen=True, slots=True)
class Option:
    """A row of the table; `default` None means none, and `default_text` then says what happens.

    `layers` are those that may set it, strongest first. `api_names` are its parameters of the management API, the
    first one is shown. `variable` is a fixed environment variable that is read without `enable_envvars_config`.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    unit: str = ""
    layers: tuple[Layer, ...] = SERVER_LAYERS
    manifest_key: str = ""
    api_names: tuple[str, ...] = ()
    spellings: tuple[Spelling, ...] = ()
    live: bool = False
    flag: str = ""
    variable: str = ""
    effective: bool = True
    secret: bool = False
    default_text: str = ""

    @property
    def per_model(self) -> bool:
        """True for an option of each model, False for one of the server."""
        return Layer.API in self.layers

    @property
    def manifest_name(self) -> str:
        """Its place in an archive's manifest, as messages name it."""
        return f"model.{self.manifest_key}"

    @property
    def names(self) -> tuple[Spelling, ...]:
        """All its spellings, strongest first where one layer uses several: its own name, then the others."""
        return (Spelling(self.name, per_model=self.per_model), *self.spellings)

    @property
    def names_after_model(self) -> tuple[Spelling, ...]:
        """The spellings that may follow a model's name."""
        return tuple(spelling for spelling in self.names if spelling.per_model)

    @property
    def shown_default(self) -> str:
        """The built-in value in words."""
        shown = "" if self.default is None else self.kind.show(self.default)
        return self.default_text or shown or "none"

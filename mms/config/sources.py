"""Reads every layer of the configuration once into one immutable record, and says what each layer says about an option.

Light on purpose: it runs before the fork server starts. Values stay texts here; `mms/config/resolve.py` gives them their kind.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mms.config.kinds import Truth, Unfit, shown
from mms.config.option import ONE_MODEL, Layer, Option
from mms.config.options import BY_NAME, SERVER_OPTIONS
from mms.config.properties import Entry, read_properties
from mms.config.startup_models import environment_name
from mms.errors import InvalidModel, UsageError

CONFIG_FILE_VARIABLE = "MMS_CONFIG_FILE"
DEFAULT_CONFIG_FILE = "config.properties"
SAGEMAKER = "sagemaker"
SAGEMAKER_FILE = Path(__file__).with_name("sagemaker.properties")
SERVER_PREFIX = "MMS_"
MODEL_PREFIX = "MMS_MODEL__"
MODEL_FILE_SUFFIX = ".properties"

Entries = Mapping[str, Entry]


@dataclass(frozen=True, slots=True)
class Word:
    """What one layer says about an option, as text; `key` is the name it used, `divisor` the spelling's own."""

    text: str
    layer: Layer
    key: str
    where: str
    divisor: int = 1


@dataclass(frozen=True, slots=True)
class ConfigSources:
    """Every layer as it was read; the store's overrides and an archive's manifest are handed to `resolve_model` beside it.

    `environ` is the whole environment; `environment` is what of it counts: the `MMS_...` variables where
    `environment_enabled` (by `enable_envvars_config`), else nothing.
    `flags` are the command line's values by option name. `repeated` are entries of the file that a later line replaced.
    `model_files` are the `<model_name>.properties` of the model store, by model name.
    """

    config_file: Path | None = None
    file: Entries = field(default_factory=dict)
    repeated: tuple[Entry, ...] = ()
    flags: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    environment_enabled: bool = False
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    model_store: Path | None = None
    model_files: Mapping[str, Entries] = field(default_factory=dict)

    def words(self, option: Option, model_name: str | None = None) -> list[Word]:
        """What the layers say, strongest first; those that speak of one model only where `model_name` is given."""
        return [
            word
            for layer in option.layers
            if model_name is not None or layer not in ONE_MODEL
            for word in self._layer(layer, option, model_name or "")
        ]

    def with_model_file(self, model_name: str) -> ConfigSources:
        """The sources of that model alone, its own file read anew. Raises InvalidModel."""
        if self.model_store is None:
            return self
        files: dict[str, Entries] = {}
        file = self.model_store / f"{model_name}{MODEL_FILE_SUFFIX}"
        if _is_model_file(file, self.config_file):
            try:
                files[model_name] = _last_of_each(read_properties(file, self.environ))
            except UsageError as error:
                raise InvalidModel(error.message) from error
        return replace(self, model_files=files)

    def _layer(self, layer: Layer, option: Option, model_name: str) -> Iterator[Word]:
        if layer is Layer.COMMAND_LINE:
            if option.name in self.flags:
                flag = option.flag or f"--{option.name.replace('_', '-')}"
                yield Word(self.flags[option.name], layer, flag, flag)
            return
        spellings = option.names_after_model if layer in ONE_MODEL else option.names
        for spelling in spellings:
            found = self._find(layer, spelling.name, model_name)
            if found is not None and found.value.strip() not in ("", spelling.silent):
                yield Word(found.value, layer, found.key, found.where, spelling.divisor)
        if layer is Layer.SERVER_ENVIRONMENT and self.environ.get(option.variable):
            yield Word(self.environ[option.variable], layer, option.variable, option.variable)

    def _find(self, layer: Layer, name: str, model_name: str) -> Entry | None:
        if layer is Layer.MODEL_ENVIRONMENT:
            return self._variable(f"{MODEL_PREFIX}{environment_name(model_name)}__{name.upper()}")
        if layer is Layer.SERVER_ENVIRONMENT:
            return self._variable(f"{SERVER_PREFIX}{name.upper()}")
        if layer is Layer.MODEL_CONFIG:
            return self.file.get(f"{model_name}.{name}")
        if layer is Layer.MODEL_FILE:
            return self.model_files.get(model_name, {}).get(name)
        return self.file.get(name) if layer is Layer.SERVER_CONFIG else None

    def _variable(self, name: str) -> Entry | None:
        return Entry(name, self.environment[name], name) if name in self.environment else None


def read_sources(
    *,
    config: str | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    config_flag: str = "--mms-config",
) -> ConfigSources:
    """Read every layer. `config` is the flag's file (or `sagemaker`), `flags` the other flags' values by option name.

    A flag's None and False say nothing; `config_flag` is what messages call the first one. Raises UsageError, one line
    with file and line.
    """
    environ = dict(os.environ if environ is None else environ)
    if unknown := set(flags or {}) - {option.name for option in SERVER_OPTIONS}:
        raise ValueError(f"no row of the option table: {sorted(unknown)}")
    config_file = choose_config_file(config, environ, config_flag)
    entries = read_properties(config_file, environ) if config_file else []
    file = _last_of_each(entries)
    enabled = _environment_enabled(file)
    sources = ConfigSources(
        config_file=config_file,
        file=file,
        repeated=tuple(entry for entry in entries if file[entry.key] is not entry),
        flags={name: text for name, value in (flags or {}).items() if (text := _flag_text(value)) is not None},
        environ=environ,
        environment_enabled=enabled,
        environment={name: text for name, text in environ.items() if name.startswith(SERVER_PREFIX)} if enabled else {},
    )
    return _with_model_files(sources)


def choose_config_file(flag: str | None, environ: Mapping[str, str], flag_name: str = "--mms-config") -> Path | None:
    """The file to read: `MMS_CONFIG_FILE`, else the flag, else `config.properties` of the current folder if it is there."""
    named = environ.get(CONFIG_FILE_VARIABLE) or flag
    if named is None:
        file = Path(DEFAULT_CONFIG_FILE).absolute()
        return file if file.is_file() else None
    file = Path(named).expanduser().absolute()
    if file.is_file():
        return file
    if named == SAGEMAKER:
        return SAGEMAKER_FILE
    by = CONFIG_FILE_VARIABLE if environ.get(CONFIG_FILE_VARIABLE) else flag_name
    raise UsageError(f"{by} file not found: {named}")


def _environment_enabled(file: Entries) -> bool:
    switch = file.get("enable_envvars_config")
    if switch is None or not switch.value:
        return False
    try:
        return Truth().parse(switch.value)
    except Unfit:
        raise UsageError(
            f"Invalid configuration: {switch.key} must be true or false, not {shown(switch.value)} ({switch.where})."
        ) from None


def _with_model_files(sources: ConfigSources) -> ConfigSources:
    words = sources.words(BY_NAME["model_store"])
    if not words or not (folder := Path(words[0].text).expanduser().absolute()).is_dir():
        return sources
    files = {
        file.name.removesuffix(MODEL_FILE_SUFFIX): _last_of_each(read_properties(file, sources.environ))
        for file in sorted(folder.glob(f"*{MODEL_FILE_SUFFIX}"))
        if _is_model_file(file, sources.config_file)
    }
    return replace(sources, model_store=folder, model_files=files)


def _is_model_file(file: Path, config_file: Path | None) -> bool:
    # The server's own configuration may lie in the model store; it is no model's file.
    named = file.name != MODEL_FILE_SUFFIX and file.is_file()
    return named and not (config_file is not None and config_file.exists() and file.samefile(config_file))


def _last_of_each(entries: Sequence[Entry]) -> Entries:
    return {entry.key: entry for entry in entries}


def _flag_text(value: Any) -> str | None:
    if value is None or value is False:
        return None
    if value is True:
        return "true"
    return ",".join(str(part) for part in value) if isinstance(value, list | tuple) else str(value)

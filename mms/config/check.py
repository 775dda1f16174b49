"""Looks a configuration over without starting: unknown keys, bad values, names that collide, models that name no archive."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mms.config.option import ONE_MODEL, Layer, Option
from mms.config.options import BY_NAME, MODEL_OPTIONS, OPTIONS
from mms.config.properties import Entry
from mms.config.resolve import resolve_model, resolve_server
from mms.config.sources import (
    CONFIG_FILE_VARIABLE,
    MODEL_PREFIX,
    SAGEMAKER_FILE,
    SERVER_PREFIX,
    ConfigSources,
    Word,
)
from mms.config.startup_models import StartupModels, environment_name
from mms.config.values import word_value
from mms.errors import InvalidModel, UsageError
from mms.records import StartupModel

# Variables that begin like options and are read elsewhere: by the command line, by tests.
OTHER_VARIABLES = frozenset((CONFIG_FILE_VARIABLE, "MMS_MANAGEMENT_URL", "MMS_FAILPOINTS"))
ARCHIVE_SUFFIXES = (".mar", ".model")

_SERVER_KEYS = {spelling.name: option for option in OPTIONS for spelling in option.names}
_MODEL_KEYS = {spelling.name: option for option in MODEL_OPTIONS for spelling in option.names_after_model}


class Severity(StrEnum):
    """ERROR stops the boot, WARNING is said and lived with, NOTE is for information."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about the configuration that its operator should know; `where` is file and line, variable or flag."""

    severity: Severity
    message: str
    where: str = ""

    @property
    def fatal(self) -> bool:
        """True where the server must not start with it."""
        return self.severity is Severity.ERROR

    def __str__(self) -> str:
        return self.message if self.where in self.message else f"{self.message} ({self.where})"


def check(
    sources: ConfigSources, model_names: Iterable[str] = (), *, archive_name: Callable[[Path], str] | None = None
) -> list[Finding]:
    """Everything there is to say, the fatal first. `model_names` are models known from elsewhere (registrations, say).

    `archive_name` tells how the model of an archive in the model store is called: with it, start-up models to which the
    configuration gives no name are looked at as well.
    """
    others = tuple(model_names)
    startup = _startup_models(sources)
    startup_names = _startup_names(sources, startup, archive_name)
    names = _named_models(sources, startup_names)
    for name in others:
        names.setdefault(name, "")
    findings = [
        *_values(sources, names),
        *_collisions(sources, names),
        *_keys(sources),
        *_model_file_keys(sources),
        *_variables(sources),
        *_values_of_strangers(sources, names),
        *_archives(sources, startup),
        *_strangers(sources, startup, {*others, *startup_names}),
    ]
    if not any(finding.fatal for finding in findings):
        findings += _combinations(sources, names)
    return sorted(findings, key=lambda finding: not finding.fatal)


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """` Did you mean X?` for the known word that is most like it, empty where none is."""
    import difflib  # only where something is unknown: each start imports this module

    folded = {name.lower(): name for name in sorted(known)}
    found = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=cutoff)
    return f" Did you mean {folded[found[0]]}?" if found else ""


def _values(sources: ConfigSources, names: Iterable[str]) -> Iterator[Finding]:
    for option in OPTIONS:
        if option.effective:
            for word in sources.words(option):
                yield from _value(option, word)
    for option in MODEL_OPTIONS:
        for name in names:
            for word in sources.words(option, name):
                if word.layer in ONE_MODEL:
                    yield from _value(option, word)


def _value(option: Option, word: Word) -> Iterator[Finding]:
    try:
        word_value(option, word)
    except UsageError as error:
        yield Finding(Severity.ERROR, error.message, word.where)


def _combinations(sources: ConfigSources, names: Iterable[str]) -> Iterator[Finding]:
    try:
        resolve_server(sources)
    except UsageError as error:
        yield Finding(Severity.ERROR, error.message)
    for name in names:
        try:
            resolve_model(sources, name, overrides={}, manifest_settings={}, startup=False)
        except InvalidModel as error:
            yield Finding(Severity.ERROR, error.message)


def _keys(sources: ConfigSources) -> Iterator[Finding]:
    for entry in sources.repeated:
        again = sources.file[entry.key].where
        yield Finding(Severity.WARNING, f"{entry.key} is set again at {again}, which counts.", entry.where)
    for key, entry in sources.file.items():
        option = _SERVER_KEYS.get(key)
        model, _, last = key.rpartition(".")
        if option is None and model and last in _MODEL_KEYS:
            continue
        if option is None:
            prefix = f"{model}." if model else ""
            known = {*_SERVER_KEYS, *(f"{prefix}{name}" for name in _MODEL_KEYS)}
            yield Finding(Severity.WARNING, f"Unknown key {key}.{nearest(key, known)}", entry.where)
        elif not option.effective:
            text = f"{key} has no effect: it is a setting of the Java server."
            yield Finding(Severity.NOTE, text, entry.where)
        elif key == "default_response_timeout" and sources.config_file != SAGEMAKER_FILE:
            text = f"{key} counts seconds here, minutes in the Java server; {key}_seconds means the same to both."
            yield Finding(Severity.NOTE, text, entry.where)
        elif Layer.SERVER_CONFIG not in option.layers:
            yield Finding(Severity.WARNING, f"{key} has no effect here: it is read {_readers(option)}.", entry.where)


def _model_file_keys(sources: ConfigSources) -> Iterator[Finding]:
    for entries in sources.model_files.values():
        for key, entry in entries.items():
            if key not in _MODEL_KEYS:
                yield Finding(Severity.WARNING, f"Unknown key {key}.{nearest(key, _MODEL_KEYS)}", entry.where)


def _variables(sources: ConfigSources) -> Iterator[Finding]:
    for name in sources.environment:
        if name in OTHER_VARIABLES:
            continue
        if name.startswith(MODEL_PREFIX):
            model, _, last = name.removeprefix(MODEL_PREFIX).rpartition("__")
            if not model or last.lower() not in _MODEL_KEYS or last != last.upper():
                known = {f"{MODEL_PREFIX}{model}__{key.upper()}" for key in _MODEL_KEYS}
                yield Finding(Severity.WARNING, f"Unknown variable {name}.{nearest(name, known)}", name)
            continue
        option = _SERVER_KEYS.get(name.removeprefix(SERVER_PREFIX).lower()) if name == name.upper() else None
        if option is None:
            known = {f"{SERVER_PREFIX}{key.upper()}" for key in _SERVER_KEYS}
            yield Finding(Severity.WARNING, f"Unknown variable {name}.{nearest(name, known)}", name)
        elif not option.effective:
            yield Finding(Severity.NOTE, f"{name} has no effect: it is a setting of the Java server.", name)
        elif Layer.SERVER_ENVIRONMENT not in option.layers:
            yield Finding(Severity.WARNING, f"{name} has no effect: it is read {_readers(option)}.", name)


def _values_of_strangers(sources: ConfigSources, names: Iterable[str]) -> Iterator[Finding]:
    """Bad values for models that may still be registered: a variable says nothing of how their names are spelled."""
    checked = {environment_name(name) for name in names}
    for name, text in sources.environment.items():
        model, _, last = name.removeprefix(MODEL_PREFIX).rpartition("__")
        option = _MODEL_KEYS.get(last.lower())
        if not name.startswith(MODEL_PREFIX) or model in checked or option is None:
            continue
        spelling = next(spelling for spelling in option.names_after_model if spelling.name == last.lower())
        if text.strip() not in ("", spelling.silent):
            yield from _value(option, Word(text, Layer.MODEL_ENVIRONMENT, name, name, spelling.divisor))


def _readers(option: Option) -> str:
    if Layer.COMMAND_LINE in option.layers:
        return f"from the command line ({option.flag})"
    return " and ".join(f"from {layer.words}" for layer in option.layers)


def _collisions(sources: ConfigSources, names: Mapping[str, str]) -> Iterator[Finding]:
    groups = defaultdict(list)
    for name in names:
        groups[environment_name(name)].append(name)
    # Without variables nothing is lost: the names may stay as MMS takes them.
    severity = Severity.ERROR if sources.environment_enabled else Severity.WARNING
    for variable, group in groups.items():
        if len(group) > 1:
            listed = " and ".join(sorted(group))
            where = ", ".join(dict.fromkeys(names[name] for name in sorted(group) if names[name]))
            text = f"Invalid configuration: the models {listed} share the variables {MODEL_PREFIX}{variable}__..."
            yield Finding(severity, f"{text}; rename one of them.", where)


def _startup_models(sources: ConfigSources) -> StartupModels:
    option = BY_NAME["load_models"]
    for word in sources.words(option)[:1]:
        try:
            found: StartupModels = word_value(option, word)
        except UsageError:
            break  # said by _values
        return found
    return StartupModels()


def _startup_names(
    sources: ConfigSources, startup: StartupModels, archive_name: Callable[[Path], str] | None
) -> list[str]:
    """The names of the start-up models, as far as they can be known without opening what is not in the model store."""
    names = [model.name for model in startup.models if model.name is not None]
    store = sources.model_store
    if archive_name is not None and store is not None:
        unnamed = [StartupModel(url) for url in sorted(_archive_names(store))] if startup.everything else startup.models
        local = StartupModels(tuple(model for model in unnamed if model.name is None)).local()
        names += [archive_name(store / url) for url in local if ".." not in url and (store / url).exists()]
    return names


def _named_models(sources: ConfigSources, startup_names: Iterable[str]) -> dict[str, str]:
    """Every model that a layer speaks of by name, with the place of its first mention."""
    words = sources.words(BY_NAME["load_models"])
    names = dict.fromkeys(startup_names, words[0].where if words else "")
    for key, entry in sources.file.items():
        model, _, last = key.rpartition(".")
        if model and last in _MODEL_KEYS:
            names.setdefault(model, entry.where)
    for model, entries in sources.model_files.items():
        names.setdefault(model, _file_of(entries) or f"{sources.model_store}/{model}.properties")
    return names


def _file_of(entries: Mapping[str, Entry]) -> str:
    return next((entry.where.rpartition(":")[0] for entry in entries.values()), "")


def _archives(sources: ConfigSources, startup: StartupModels) -> Iterator[Finding]:
    wanted = startup.local()
    if not wanted and not startup.everything:
        return
    where = sources.words(BY_NAME["load_models"])[0].where
    if sources.model_store is None:
        words = sources.words(BY_NAME["model_store"])
        problem = f"there is no folder {words[0].text}" if words else "model_store is not set"
        yield Finding(Severity.WARNING, f"load_models names archives of the model store, but {problem}.", where)
        return
    for url in wanted:
        if ".." in url or not (sources.model_store / url).exists():
            there = _archive_names(sources.model_store)
            text = f"load_models names {url}, which is not in the model store {sources.model_store}."
            yield Finding(Severity.WARNING, f"{text}{nearest(url, there)}", where)


def _archive_names(folder: Path) -> list[str]:
    return [
        entry.name
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and (entry.is_dir() or entry.suffix in ARCHIVE_SUFFIXES)
    ]


def _strangers(sources: ConfigSources, startup: StartupModels, others: Iterable[str]) -> Iterator[Finding]:
    """Settings of a model that is no start-up model, but is spelled much like one."""
    known = {model.name or _bare(model.url) for model in startup.models} | set(others)
    if startup.everything and sources.model_store is not None:
        known |= {_bare(name) for name in _archive_names(sources.model_store)}
    for key, entry in sources.file.items():
        model, _, last = key.rpartition(".")
        if model and last in _MODEL_KEYS and model not in known and (better := nearest(model, known, 0.8)):
            yield Finding(Severity.WARNING, f"{key} is for {model}, which is no start-up model.{better}", entry.where)


def _bare(url: str) -> str:
    name = url.partition("?")[0].rpartition("/")[2]
    return next((name.removesuffix(suffix) for suffix in ARCHIVE_SUFFIXES if name.endswith(suffix)), name)

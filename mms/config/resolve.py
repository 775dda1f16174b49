"""Turns layers into settings: per option the first source that speaks wins, and what it beat is kept beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mms.config.address import Address
from mms.config.machine import available_cores, available_gpus
from mms.config.option import ONE_MODEL, Layer, Option
from mms.config.options import BY_NAME, MODEL_OPTIONS, SERVER_OPTIONS
from mms.config.provenance import UNNUMBERED, Candidate, Explained, Scope, Source, journal_place
from mms.config.sources import SAGEMAKER_FILE, ConfigSources, Word
from mms.config.startup_models import StartupModels
from mms.config.values import check_manifest, manifest_value, word_value
from mms.errors import InvalidModel, UsageError
from mms.records import Overrides, RecoveryMode, StartupModel

__all__ = [
    "Candidate",
    "Explained",
    "ModelSettings",
    "Scope",
    "ServerSettings",
    "Source",
    "resolve_model",
    "resolve_server",
]

BUILT_IN = "built-in"
HIDDEN = "(hidden)"
# Options whose built-in value depends on the machine or on other options; they are explained with what became of it.
DERIVED_DEFAULTS = ("data_dir", "store_url", "number_of_gpu", "log_location", "metrics_location")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One model's settings in force: what the hot path reads. Seconds for timeouts, milliseconds for `max_batch_delay`, bytes for sizes."""

    batch_size: int
    max_batch_delay: int
    response_timeout: float
    startup_timeout: float
    min_workers: int
    max_workers: int
    job_queue_size: int
    max_request_size: int
    max_response_size: int
    preload_model: bool
    explained: Mapping[str, Explained]


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The server's own settings in force: one field a row of the option table, in the unit of the row.

    `model_defaults` are the settings of a model of which no source speaks by name. Secrets are hidden in `explained`.
    """

    config_file: Path | None
    explained: Mapping[str, Explained]
    model_defaults: ModelSettings
    # MMS's own keys
    inference_address: Address
    management_address: Address
    model_store: Path | None
    load_models: tuple[StartupModel, ...]
    load_all: bool
    blacklist_env_vars: str
    unregister_model_timeout: float
    number_of_gpu: int
    cors_allowed_origin: str
    cors_allowed_methods: str
    cors_allowed_headers: str
    decode_input_request: bool
    keystore: Path | None
    keystore_pass: str = field(repr=False)
    keystore_type: str
    certificate_file: Path | None
    private_key_file: Path | None
    default_service_handler: str
    metric_time_interval: float
    enable_envvars_config: bool
    log_config: Path | None
    log_location: Path
    metrics_location: Path
    # this server's own
    data_dir: Path
    store_url: str = field(repr=False)  # SQLAlchemy URL: sqlite:///ABSOLUTE or postgresql+psycopg://...
    server_id: str
    recovery_mode: RecoveryMode
    recover: bool
    clean_start: bool
    accept_store_loss: int | None
    boot_store_timeout: float
    store_lock_wait: float
    store_auto_upgrade: bool
    on_store_failure: str  # exit | manifest
    witness_path: Path | None
    heartbeat_interval: float
    journal_keep_days: float
    journal_keep_entries: int
    replay_changed_archive: str  # registered | new | fail
    replay_wait: float
    quarantine_after: int
    drain_timeout: float
    worker_start_method: str  # forkserver | spawn
    batching: str  # adaptive | strict
    download_timeout: float
    max_archive_size: int
    access_log: bool
    log_level: str

    @property
    def single_port(self) -> bool:
        """True where one listener serves the routes of both APIs."""
        return self.inference_address.same_place(self.management_address)


def resolve_server(sources: ConfigSources) -> ServerSettings:
    """The server's settings. Raises UsageError for the first bad value or combination, in one line that says where."""
    explained = {option.name: _explain_server(option, sources) for option in SERVER_OPTIONS if option.effective}
    values: dict[str, Any] = {name: found.value for name, found in explained.items()}
    _check_combinations(explained)
    values.update(_derived(sources, explained))
    for name in DERIVED_DEFAULTS:
        if explained[name].chosen.source is Source.DEFAULT:
            chosen = dataclasses.replace(explained[name].chosen, value=values[name])
            explained[name] = dataclasses.replace(explained[name], chosen=chosen)
    return ServerSettings(
        config_file=sources.config_file,
        explained={name: _hide(found) if BY_NAME[name].secret else found for name, found in explained.items()},
        model_defaults=_model_defaults(sources),
        **values,
    )


def _derived(sources: ConfigSources, explained: Mapping[str, Explained]) -> dict[str, Any]:
    """The fields that are not just the option's value: split, made absolute, or taken from the machine."""
    models: StartupModels = explained["load_models"].value
    data_dir = explained["data_dir"].value
    if data_dir is None:
        beside = sources.config_file if sources.config_file != SAGEMAKER_FILE else None
        data_dir = (beside.parent if beside is not None else Path.cwd()) / "mms-data"
    gpus, wanted = available_gpus(), explained["number_of_gpu"].value
    # As in MMS, a number from the environment is believed even where no such GPU is seen.
    believed = explained["number_of_gpu"].chosen.source is Source.ENVIRONMENT
    return {
        "load_models": models.models,
        "load_all": models.everything,
        "recovery_mode": RecoveryMode(explained["recovery_mode"].value),
        "log_location": explained["log_location"].value.absolute(),
        "metrics_location": explained["metrics_location"].value.absolute(),
        "data_dir": data_dir,
        "store_url": _store_url(explained["store_url"].value, data_dir),
        "number_of_gpu": gpus if wanted is None else wanted if believed else min(gpus, wanted),
    }


def resolve_model(
    sources: ConfigSources,
    model_name: str,
    *,
    overrides: Overrides,
    override_seq: Mapping[str, int] | None = None,
    manifest_settings: Mapping[str, Any],
    startup: bool,
    cores: int | None = None,
) -> ModelSettings:
    """One model's settings, each with its provenance.

    `overrides` are values that `parse_api` gave, `override_seq` the journal numbers that set them. `startup` is True for
    a configured start-up model: without any other word it gets one worker for each of the `cores` (default: this
    machine's). Raises InvalidModel naming the manifest's key, or the place in the configuration, of a bad value.
    """
    check_manifest(manifest_settings)
    candidates: dict[str, list[tuple[Layer, Candidate]]] = {}
    for option in MODEL_OPTIONS:
        built_in = Candidate(option.default, Source.DEFAULT, Scope.BUILT_IN, BUILT_IN)
        if option.name == "min_workers" and startup:
            workers = available_cores() if cores is None else cores
            built_in = Candidate(workers, Source.DEFAULT, Scope.BUILT_IN, f"{BUILT_IN}: cores")
        candidates[option.name] = [
            *_override(option, overrides, override_seq or {}),
            *_configured(option, sources, model_name, manifest_settings),
            *([(Layer.BUILT_IN, built_in)] if built_in.value is not None else []),
        ]
    _settle_workers(candidates["min_workers"], candidates["max_workers"])
    explained = {
        option.name: Explained(option.name, option.unit, option.live, found[0][1], tuple(c for _, c in found[1:]))
        for option in MODEL_OPTIONS
        for found in [candidates[option.name]]
    }
    return ModelSettings(**{name: found.value for name, found in explained.items()}, explained=explained)


def _override(option: Option, overrides: Overrides, seqs: Mapping[str, int]) -> Iterator[tuple[Layer, Candidate]]:
    if (value := overrides.get(option.name)) is not None:
        where = journal_place(seqs[option.name]) if option.name in seqs else UNNUMBERED
        yield Layer.API, Candidate(value, Source.API, Scope.MODEL, where)


def _configured(
    option: Option, sources: ConfigSources, model_name: str, manifest: Mapping[str, Any]
) -> Iterator[tuple[Layer, Candidate]]:
    """What the operator says of this model, then the archive, then what the operator says of all models."""
    try:
        said = [(word.layer, _candidate(option, word)) for word in sources.words(option, model_name)]
    except UsageError as error:
        raise InvalidModel(error.message) from error
    yield from (pair for pair in said if pair[0] in ONE_MODEL)
    if (value := manifest_value(option, manifest)) is not None:
        yield Layer.MANIFEST, Candidate(value, Source.MANIFEST, Scope.ARCHIVE, option.manifest_name)
    yield from (pair for pair in said if pair[0] not in ONE_MODEL)


def _settle_workers(low: list[tuple[Layer, Candidate]], high: list[tuple[Layer, Candidate]]) -> None:
    """Make max_workers at least min_workers: the one that the stronger layer set moves the other, which shows whose word it is."""
    (low_layer, least), (high_layer, most) = low[0], high[0] if high else (Layer.BUILT_IN, None)
    built_in = Candidate(least.value, Source.DEFAULT, Scope.BUILT_IN, f"{BUILT_IN}: as min_workers")
    order = list(Layer)
    if most is not None and most.value < least.value:
        if low_layer is high_layer and low_layer is not Layer.API:
            raise InvalidModel(
                f"Invalid configuration: max_workers must not be less than min_workers ({least.value}),"
                f" not {most.value} ({most.where})."
            )
        if order.index(high_layer) < order.index(low_layer):
            low.insert(0, (high_layer, dataclasses.replace(most, where=f"{most.where} (max_workers)")))
            built_in = dataclasses.replace(built_in, value=most.value)
        else:
            high.insert(0, (low_layer, dataclasses.replace(least, where=f"{least.where} (min_workers)")))
    high.append((Layer.BUILT_IN, built_in))


def _model_defaults(sources: ConfigSources) -> ModelSettings:
    # An empty name is no model's: only the layers that speak of all models answer to it.
    try:
        return resolve_model(sources, "", overrides={}, manifest_settings={}, startup=False)
    except InvalidModel as error:
        raise UsageError(error.message) from error


def _explain_server(option: Option, sources: ConfigSources) -> Explained:
    found = [_candidate(option, word) for word in sources.words(option)]
    found.append(Candidate(option.default, Source.DEFAULT, Scope.BUILT_IN, BUILT_IN))
    return Explained(option.name, option.unit, option.live, found[0], tuple(found[1:]))


def _candidate(option: Option, word: Word) -> Candidate:
    return Candidate(word_value(option, word), word.layer.source, word.layer.scope, word.where)


def _check_combinations(explained: Mapping[str, Explained]) -> None:
    if explained["recover"].value and explained["clean_start"].value:
        raise UsageError(
            "--recover and --clean-start cannot be given together: one brings back what the other leaves out."
        )
    models: StartupModels = explained["load_models"].value
    store, config = explained["model_store"], explained["log_config"]
    by_flag = store.chosen.source is Source.COMMAND_LINE
    if by_flag and not store.value.is_dir():
        raise UsageError(f"--model-store directory not found: {store.value}")
    if config.value is not None and not config.value.is_file():
        raise UsageError(f"--log-config file not found: {config.value}")
    named_by_flag = explained["load_models"].chosen.source is Source.COMMAND_LINE
    if store.value is None and named_by_flag and (models.everything or models.local()):
        raise UsageError("--model-store is required to load model locally.")
    given = [explained[name] for name in ("certificate_file", "private_key_file") if explained[name].value is not None]
    if len(given) == 1:
        raise UsageError(
            "Invalid configuration: certificate_file and private_key_file must be given together, not"
            f" {given[0].option} alone ({given[0].chosen.where})."
        )


def _store_url(url: str | None, data_dir: Path) -> str:
    """An absolute SQLite URL, or one that names the Postgres driver."""
    if url is None:
        return f"sqlite:///{data_dir / 'store.db'}"
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        return f"sqlite:///{Path(rest.removeprefix('/')).absolute()}"
    return f"postgresql+psycopg://{rest}"


def _hide(found: Explained) -> Explained:
    hidden = [
        candidate if candidate.source is Source.DEFAULT else dataclasses.replace(candidate, value=HIDDEN)
        for candidate in (found.chosen, *found.beaten)
    ]
    return dataclasses.replace(found, chosen=hidden[0], beaten=tuple(hidden[1:]))

"""The one table of options: every setting of a model and of the server; adding an option is adding a row here.

Reading a layer, checking a value, the command line's help, the API's descriptions and the reference page follow from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mms.config.address import Address, AddressKind
from mms.config.kinds import Choice, Kind, Number, Place, Regex, Text, Truth, Whole
from mms.config.option import MMS_SERVER_LAYERS, MODEL_LAYERS, Layer, Option, Spelling
from mms.config.startup_models import StartupModels, StartupModelsKind

INT32 = 2_147_483_647
_DAY = 86_400.0
_PORTS = AddressKind(80, 443)
_MANAGEMENT_PORTS = AddressKind(8081, 8444)
_FLAG_ONLY = (Layer.COMMAND_LINE,)
_NO_EFFECT = "Accepted and without effect: a setting of the Java server."


def _model(name: str, kind: Kind, default: Any, unit: str, key: str, help_text: str, **more: Any) -> Option:
    more = {"api_names": (name,), "live": True, **more}
    return Option(name, kind, default, help_text, unit, MODEL_LAYERS, key, **more)


def _mms(name: str, kind: Kind, default: Any, help_text: str, **more: Any) -> Option:
    return Option(name, kind, default, help_text, **{"layers": MMS_SERVER_LAYERS, **more})


def _java(name: str) -> Option:
    return Option(name, Text(), "", _NO_EFFECT, layers=MMS_SERVER_LAYERS, effective=False)


MODEL_OPTIONS: tuple[Option, ...] = (
    _model("batch_size", Whole(1, 65_536), 1, "requests", "batchSize",
           "Most requests that the handler gets in one call.", spellings=(Spelling("max_batch_size", True),)),
    _model("max_batch_delay", Whole(0, 3_600_000), 100, "ms", "maxBatchDelay",
           "Longest time that the first request of a batch waits for others.",
           spellings=(Spelling("batch_delay_millis", True),)),
    _model("response_timeout", Number(0.001, INT32), 120, "s", "responseTimeout",
           "Longest time that a worker may take for one batch; after it, the worker is replaced.",
           spellings=(Spelling("timeout_millis", True, divisor=1000),
                      Spelling("default_response_timeout_seconds", silent="-1"), Spelling("default_response_timeout"))),
    _model("startup_timeout", Number(0.001, INT32), 120, "s", "startupTimeout",
           "Longest time that a worker may take to load the model."),
    _model("min_workers", Whole(0, 4096), 0, "processes", "minWorkers",
           "Workers that are kept running. Without initial_workers, a registration starts that many.",
           api_names=("min_worker", "initial_workers"), spellings=(Spelling("default_workers_per_model", silent="0"),),
           default_text="0; the number of cores for a start-up model"),
    _model("max_workers", Whole(0, 4096), None, "processes", "maxWorkers",
           "Most workers; never fewer than min_workers: of the two, the one that a stronger source set moves the other.",
           api_names=("max_worker",), default_text="as min_workers"),
    _model("job_queue_size", Whole(1, 10_000_000), 100, "requests", "jobQueueSize",
           "Most requests that wait for a worker; one more is answered 503 at once."),
    _model("max_request_size", Whole(1, INT32), 6_553_500, "bytes", "maxRequestSize",
           "Largest body of a request; a larger one is answered 413."),
    _model("max_response_size", Whole(1, INT32), 6_553_500, "bytes", "maxResponseSize",
           "Largest answer of the handler to one request."),
    _model("preload_model", Truth(), False, "", "preloadModel",
           "Accepted and without effect: each worker loads the model itself, once its process has begun.", live=False),
)  # fmt: skip
"""The options of each model, in the order in which they are shown."""

_MMS_OPTIONS: tuple[Option, ...] = (
    _mms("inference_address", _PORTS, Address("http", "127.0.0.1", 8080),
         "Where predictions are answered. The same address as management_address serves all routes on one port.",
         flag="--inference-address"),
    _mms("management_address", _MANAGEMENT_PORTS, Address("http", "127.0.0.1", 8081), "Where models are managed.",
         flag="--management-address"),
    _mms("model_store", Place(), None, "Folder that archives are read from.", flag="--model-store"),
    _mms("load_models", StartupModelsKind(), StartupModels(), "Start-up models: ALL (of the model store), or a list.",
         flag="--models"),
    _mms("blacklist_env_vars", Regex(), "", "Environment variables whose whole name matches are kept from workers."),
    _mms("unregister_model_timeout", Number(0, INT32), 120, "Longest time that an unregistration may take.", unit="s"),
    _mms("number_of_gpu", Whole(0, 1024), None, "GPUs that workers get in turn, at most.",
         default_text="all that are there"),
    _mms("cors_allowed_origin", Text(), "", "Access-Control-Allow-Origin of every answer."),
    _mms("cors_allowed_methods", Text(), "", "Access-Control-Allow-Methods of every answer."),
    _mms("cors_allowed_headers", Text(), "", "Access-Control-Allow-Headers of every answer."),
    _mms("decode_input_request", Truth(), True, "Give handlers JSON and text decoded; otherwise bytes."),
    _mms("keystore", Place(), None, "Keystore with certificate and key, for https."),
    _mms("keystore_pass", Text(), "changeit", "Password of the keystore.", secret=True),
    _mms("keystore_type", Choice(("PKCS12",)), "PKCS12", "Type of the keystore."),
    _mms("certificate_file", Place(), None, "Certificate chain (PEM), for https."),
    _mms("private_key_file", Place(), None, "Private key (PEM), for https."),
    _mms("default_service_handler", Text(), "", "Handler of archives that name none."),
    _mms("metric_time_interval", Number(1, INT32), 60, "How often the machine's load is written to mms_metrics.log.", unit="s",
         layers=(Layer.SERVER_CONFIG,)),
    _mms("enable_envvars_config", Truth(), False, "Read options from variables MMS_OPTION and MMS_MODEL__NAME__OPTION.",
         layers=(Layer.SERVER_CONFIG,)),
    Option("log_config", Place(), None, "File that configures Python's logging.", flag="--log-config",
           layers=_FLAG_ONLY),
    Option("log_location", Place(), Path("logs"), "Folder of the access log and the server's log.",
           variable="LOG_LOCATION"),
    Option("metrics_location", Place(), Path("logs"), "Folder of the metrics logs.", variable="METRICS_LOCATION"),
    *(_java(name) for name in (
        "vmargs", "plugins_path", "model_server_home", "debug", "async_logging", "number_of_netty_threads",
        "netty_client_threads", "prefer_direct_buffer", "use_native_io", "io_ratio")),
)  # fmt: skip

_OWN_OPTIONS: tuple[Option, ...] = (
    Option("data_dir", Place(), None, "Folder of the store and of the archives that it keeps.", flag="--data-dir",
           default_text="mms-data beside the configuration file, else in the current folder"),
    Option("store_url", Text(r"(sqlite|postgres(ql)?(\+psycopg)?)://.*", "sqlite:///FILE or postgresql://USER@HOST/DATABASE"),
           None, "The store of registrations.", secret=True, flag="--store",
           default_text="sqlite, store.db in data_dir"),
    Option("server_id", Text(r"[A-Za-z0-9._-]{1,64}", "1 to 64 letters, digits, dots, dashes or underscores"), "default",
           "This server's name in a store that several share.", flag="--server-id"),
    Option("recovery_mode", Choice(("auto", "always", "never")), "auto",
           "What a boot does with stored registrations: bring them back after a crash, always, or never."),
    Option("recover", Truth(), False, "Bring the stored registrations back at this boot, also after a clean stop.",
           flag="--recover", layers=_FLAG_ONLY),
    Option("clean_start", Truth(), False, "Begin with the configured start-up models only.", flag="--clean-start",
           layers=_FLAG_ONLY),
    Option("accept_store_loss", Whole(0, 2**63 - 1), None,
           "Accept that the store lost the changes after this journal number, and no later loss.", "journal number",
           flag="--accept-store-loss", layers=_FLAG_ONLY),
    Option("boot_store_timeout", Number(0, INT32), 60, "Longest wait for the store at boot; then exit 69.", "s"),
    Option("store_lock_wait", Number(0, INT32), 0, "Longest wait for another server to release the store; then exit 75.", "s"),
    Option("store_auto_upgrade", Truth(), False, "Upgrade a Postgres store's schema at boot (SQLite always is)."),
    Option("on_store_failure", Choice(("exit", "manifest")), "exit",
           "Without a usable store: exit, or serve the start-up models with management read-only."),
    Option("witness_path", Place(), None, "File that shows whether the store has gone back in time.",
           default_text="in data_dir"),
    Option("heartbeat_interval", Number(0.1, 3600), 5, "How often the server marks in the store that it lives.", "s"),
    Option("journal_keep_days", Number(0, 36_500), 90, "Journal entries younger than this are kept.", "days"),
    Option("journal_keep_entries", Whole(0, INT32), 100_000, "The newest entries are kept, whatever their age.", "entries"),
    Option("replay_changed_archive", Choice(("registered", "new", "fail")), "registered",
           "At replay, an archive that has changed since: serve what was registered, serve the new one, or fail."),
    Option("replay_wait", Number(0, INT32), 30,
           "Longest time that a request waits at boot: a prediction for its model, a management change for all of them.", "s"),
    Option("quarantine_after", Whole(1, 1000), 3, "Failed loads after which replay leaves a registration out.", "loads"),
    Option("drain_timeout", Number(0, INT32), 8, "Longest time, at a stop, to answer what was accepted.", "s"),
    Option("worker_start_method", Choice(("forkserver", "spawn")), "forkserver", "How worker processes are started."),
    Option("batching", Choice(("adaptive", "strict")), "adaptive",
           "adaptive: a batch that more waiting would not fill leaves at once; strict: it always waits max_batch_delay."),
    Option("download_timeout", Number(0.1, INT32), 600, "Longest time that the download of one archive may take.", "s"),
    Option("max_archive_size", Whole(1, 2**63 - 1), 10_737_418_240, "Largest archive that is downloaded.", "bytes"),
    Option("access_log", Truth(), True, "Write a line for each request to the access log."),
    Option("log_level", Choice(("DEBUG", "INFO", "WARNING", "ERROR")), "INFO", "Least severe lines of the server's log.",
           flag="--log-level"),
)  # fmt: skip

SERVER_OPTIONS: tuple[Option, ...] = _MMS_OPTIONS + _OWN_OPTIONS
"""The options of the server: MMS's own keys first, then those that only this server has."""

OPTIONS: tuple[Option, ...] = MODEL_OPTIONS + SERVER_OPTIONS

BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS}
"""Every row by the option's own name."""

API_OPTIONS: Mapping[str, Option] = {name: option for option in MODEL_OPTIONS for name in option.api_names}
"""Rows by the names of the management API's parameters."""


def model_option(name: str) -> Option | None:
    """The model's option of that name, own or the API's; None where there is no such."""
    found = BY_NAME.get(name) or API_OPTIONS.get(name)
    return found if found is not None and found.per_model else None

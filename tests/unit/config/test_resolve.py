"""The server's settings as a whole, and the corners of a model's."""

import subprocess
import sys
from pathlib import Path

import pytest

from mms.config import resolve
from mms.config.resolve import Source, resolve_model, resolve_server
from mms.config.sources import ConfigSources, read_sources
from mms.errors import InvalidModel, UsageError
from mms.records import RecoveryMode


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def server(folder: Path, text: str = "", environ=None, name="config.properties", **flags):
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return resolve_server(read_sources(config=str(file), flags=flags, environ=environ or {}))


def test_the_defaults(folder):
    settings = resolve_server(read_sources(environ={}))
    assert settings.config_file is None
    assert (str(settings.inference_address), str(settings.management_address)) == (
        "http://127.0.0.1:8080",
        "http://127.0.0.1:8081",
    )
    assert not settings.single_port
    assert settings.recovery_mode is RecoveryMode.AUTO
    assert settings.data_dir == folder / "mms-data"
    assert settings.store_url == f"sqlite:///{folder}/mms-data/store.db"
    assert (settings.boot_store_timeout, settings.store_lock_wait, settings.drain_timeout) == (60, 0, 8)
    assert settings.quarantine_after == 3
    assert (settings.load_models, settings.load_all) == ((), False)
    assert settings.model_defaults.job_queue_size == 100


def test_the_data_lies_beside_the_configuration_file(folder):
    assert server(folder, name="etc/mms.properties").data_dir == folder / "etc" / "mms-data"
    assert server(folder, "data_dir=elsewhere", name="etc/mms.properties").data_dir == folder / "elsewhere"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("postgresql://u:p@h/d?x=1", "postgresql+psycopg://u:p@h/d?x=1"),
        ("postgres://h/d", "postgresql+psycopg://h/d"),
        ("postgresql+psycopg://h/d", "postgresql+psycopg://h/d"),
        ("sqlite:////var/lib/x.db", "sqlite:////var/lib/x.db"),
    ],
)
def test_the_store_url_names_its_driver(folder, given, url):
    assert server(folder, f"store_url={given}").store_url == url


def test_a_relative_sqlite_file_becomes_absolute(folder):
    assert server(folder, "store_url=sqlite:///x.db").store_url == f"sqlite:///{folder}/x.db"


def test_secrets_do_not_show_in_what_is_explained(folder):
    settings = server(folder, "store_url=postgresql://u:hunter2@h/d\nkeystore_pass=hunter3\n")
    assert settings.keystore_pass == "hunter3"
    assert "hunter" not in repr(settings)


def test_a_flag_beats_the_variable_and_the_file_for_our_own_options(folder):
    settings = server(
        folder, "enable_envvars_config=true\nlog_level=error\n", {"MMS_LOG_LEVEL": "debug"}, log_level="info"
    )
    assert settings.log_level == "INFO"
    explained = settings.explained["log_level"]
    assert [c.value for c in explained.beaten] == ["DEBUG", "ERROR", "INFO"]
    assert (explained.chosen.source, explained.chosen.where) == (Source.COMMAND_LINE, "--log-level")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"recover": True, "clean_start": True}, r"^--recover and --clean-start cannot be given together"),
        ({"model_store": "gone"}, r"^--model-store directory not found: .*gone$"),
        ({"log_config": "gone.ini"}, r"^--log-config file not found: .*gone.ini$"),
        ({"load_models": "noop.mar"}, r"^--model-store is required to load model locally\.$"),
        ({"accept_store_loss": "x"}, r"^Invalid configuration: --accept-store-loss must be a whole number from 0"),
    ],
)
def test_flags_that_cannot_be(folder, flags, message):
    with pytest.raises(UsageError, match=message):
        server(folder, **flags)


def test_flags_that_were_not_given_say_nothing(folder):
    settings = server(folder, recover=False, clean_start=None, load_models="http://h/x.mar", accept_store_loss=12)
    assert (settings.recover, settings.clean_start, settings.accept_store_loss) == (False, False, 12)


def test_gpus_are_at_most_those_that_are_there(folder, monkeypatch):
    monkeypatch.setattr(resolve, "available_gpus", lambda: 2)
    assert server(folder).number_of_gpu == 2
    assert server(folder, "number_of_gpu=4").number_of_gpu == 2
    assert server(folder, "number_of_gpu=1").number_of_gpu == 1
    assert server(folder, "enable_envvars_config=true", {"MMS_NUMBER_OF_GPU": "4"}).number_of_gpu == 4


def test_a_startup_model_gets_the_machines_cores(monkeypatch):
    monkeypatch.setattr(resolve, "available_cores", lambda: 5)
    started, registered = (
        resolve_model(ConfigSources(), "m", overrides={}, manifest_settings={}, startup=startup)
        for startup in (True, False)
    )
    assert (started.min_workers, started.max_workers) == (5, 5)
    assert (registered.min_workers, registered.max_workers) == (0, 0)


def test_an_unknown_override_of_an_older_store_is_left_out():
    settings = resolve_model(ConfigSources(), "m", overrides={"gone": 1}, manifest_settings={}, startup=False)
    assert "gone" not in settings.explained


def test_a_stored_target_moves_a_weaker_limit_and_says_so(folder):
    (folder / "config.properties").write_text("m.max_workers=2\n")
    settings = resolve_model(
        read_sources(environ={}),
        "m",
        overrides={"min_workers": 4},
        override_seq={"min_workers": 9},
        manifest_settings={},
        startup=False,
    )
    assert (settings.min_workers, settings.max_workers) == (4, 4)
    explained = settings.explained["max_workers"]
    assert (explained.chosen.source, explained.chosen.where) == (Source.API, "journal entry 9 (min_workers)")
    assert [(c.value, str(c.source)) for c in explained.beaten] == [(2, "config"), (4, "default")]


def test_a_bad_value_for_one_model_is_refused_with_its_place(folder):
    (folder / "config.properties").write_text("m.batch_size=no\n")
    with pytest.raises(InvalidModel, match=r"m\.batch_size must be a whole number .* \(.*config\.properties:1\)"):
        resolve_model(read_sources(environ={}), "m", overrides={}, manifest_settings={}, startup=False)


def test_a_source_that_contradicts_itself_is_refused_but_for_what_the_operator_last_said(folder):
    (folder / "config.properties").write_text("m.min_workers=3\nm.max_workers=2\n")
    with pytest.raises(InvalidModel, match=r"max_workers must not be less than min_workers \(3\), not 2"):
        resolve_model(read_sources(environ={}), "m", overrides={}, manifest_settings={}, startup=False)
    manifest = {"minWorkers": 3, "maxWorkers": 2}
    with pytest.raises(InvalidModel, match=r"^model\.maxWorkers in the manifest must not be less"):
        resolve_model(ConfigSources(), "m", overrides={}, manifest_settings=manifest, startup=False)
    overrides = {"min_workers": 3, "max_workers": 2}
    settings = resolve_model(ConfigSources(), "m", overrides=overrides, manifest_settings={}, startup=False)
    assert (settings.min_workers, settings.max_workers) == (3, 3)


def test_what_became_of_a_default_is_explained(folder):
    settings = server(folder)
    assert settings.explained["data_dir"].value == folder / "mms-data"


def test_reading_a_configuration_pulls_in_nothing_heavy():
    heavy = (
        "asyncio",
        "difflib",
        "fastapi",
        "http",
        "javaproperties",
        "numpy",
        "psutil",
        "sqlalchemy",
        "structlog",
        "typer",
    )
    program = (
        "import sys\nfrom mms.config.check import check\nfrom mms.config.resolve import resolve_server\n"
        "from mms.config.sources import read_sources\nsources = read_sources(environ={})\n"
        "assert not check(sources)\nresolve_server(sources)\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout == "[]\n"

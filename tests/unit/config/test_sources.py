"""Reading each layer from real files and environments."""

from pathlib import Path

import pytest

from mms.config.options import BY_NAME
from mms.config.resolve import resolve_model, resolve_server
from mms.config.sources import read_sources
from mms.errors import InvalidModel, UsageError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str, name: str = "config.properties") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def settings_of(model: str, **more):
    sources = read_sources(environ=more.pop("environ", {}), **more)
    return resolve_model(sources, model, overrides={}, manifest_settings={}, startup=False)


def test_a_value_knows_its_file_and_line(folder):
    file = write(folder, "# comment\n\njob_queue_size=7\nlong=a,\\\n   b\nresnet-18.batch_size : 4\n")
    settings = settings_of("resnet-18")
    assert settings.explained["job_queue_size"].chosen.where == f"{file}:3"
    assert settings.explained["batch_size"].chosen.where == f"{file}:6"
    assert (settings.job_queue_size, settings.batch_size) == (7, 4)


def test_a_later_line_replaces_an_earlier_one_and_both_are_kept(folder):
    write(folder, "job_queue_size=7\njob_queue_size=8\n")
    sources = read_sources(environ={})
    assert sources.file["job_queue_size"].value == "8"
    assert [entry.value for entry in sources.repeated] == ["7"]


@pytest.mark.parametrize(
    ("config", "flag", "environ", "chosen"),
    [
        (True, None, {}, "config.properties"),
        (True, "flag.properties", {}, "flag.properties"),
        (True, "flag.properties", {"MMS_CONFIG_FILE": "env.properties"}, "env.properties"),
        (False, None, {}, None),
    ],
)
def test_the_file_is_chosen_as_mms_chooses_it(folder, config, flag, environ, chosen):
    for name in ("flag.properties", "env.properties"):
        write(folder, "", name)
    if config:
        write(folder, "")
    sources = read_sources(config=flag, environ=environ)
    assert sources.config_file == (folder / chosen if chosen else None)


def test_a_named_file_that_is_not_there_is_refused(folder):
    with pytest.raises(UsageError, match=r"^--mms-config file not found: nosuch$"):
        read_sources(config="nosuch", environ={})
    with pytest.raises(UsageError, match=r"^MMS_CONFIG_FILE file not found: gone$"):
        read_sources(environ={"MMS_CONFIG_FILE": "gone"})


def test_variables_are_replaced_anywhere_in_a_value(folder):
    write(folder, "load_models=$$NAME$$=noop.mar\ncors_allowed_origin=https://$$HOST$$.example.$$TLD$$\n")
    settings = resolve_server(read_sources(environ={"NAME": "n", "HOST": "app", "TLD": "org"}))
    assert settings.cors_allowed_origin == "https://app.example.org"
    assert [(m.name, m.url) for m in settings.load_models] == [("n", "noop.mar")]


def test_a_variable_that_is_not_set_stops_with_file_and_line(folder):
    file = write(folder, "\ndefault_workers_per_model=$$GONE$$\n")
    with pytest.raises(UsageError) as caught:
        read_sources(environ={})
    assert caught.value.message == f"Invalid configuration: Invalid Environment Variable GONE ({file}:2)."


def test_variables_count_only_when_the_file_allows_it(folder):
    environ = {"MMS_BATCH_SIZE": "4", "MMS_MODEL__M__MAX_BATCH_DELAY": "9"}
    write(folder, "enable_envvars_config=false\n")
    assert (settings_of("m", environ=environ).batch_size, settings_of("m", environ=environ).max_batch_delay) == (1, 100)
    write(folder, "enable_envvars_config=true\n")
    settings = settings_of("m", environ=environ)
    assert (settings.batch_size, settings.max_batch_delay) == (4, 9)
    assert settings.explained["max_batch_delay"].chosen.where == "MMS_MODEL__M__MAX_BATCH_DELAY"


def test_a_bad_switch_is_refused(folder):
    write(folder, "enable_envvars_config=maybe\n")
    with pytest.raises(UsageError, match='enable_envvars_config must be true or false, not "maybe"'):
        read_sources(environ={})


@pytest.mark.parametrize(
    ("text", "option", "value"),
    [
        ("a-b.c.max_batch_size=3", "batch_size", 3),
        ("a-b.c.batch_delay_millis=3", "max_batch_delay", 3),
        ("a-b.c.timeout_millis=2500", "response_timeout", 2.5),
        ("timeout_millis=3000", "response_timeout", 3),
        ("default_response_timeout=5", "response_timeout", 5),
        ("default_response_timeout=5\ndefault_response_timeout_seconds=6", "response_timeout", 6),
        ("default_response_timeout=5\ndefault_response_timeout_seconds=-1", "response_timeout", 5),
        ("default_workers_per_model=2", "min_workers", 2),
        ("default_workers_per_model=2", "max_workers", 2),
        ("max_request_size=500", "max_request_size", 500),
        ("preload_model=true", "preload_model", True),
        ("batch_size=", "batch_size", 1),
    ],
)
def test_each_spelling_is_taken(folder, text, option, value):
    write(folder, text)
    assert getattr(settings_of("a-b.c"), option) == value


def test_own_name_beats_another_spelling_of_the_same_layer(folder):
    write(folder, "m.max_batch_size=3\nm.batch_size=5\n")
    explained = settings_of("m").explained["batch_size"]
    assert [c.value for c in (explained.chosen, *explained.beaten)] == [5, 3, 1]


def test_names_of_the_server_do_not_follow_a_models_name(folder):
    write(folder, "m.default_response_timeout=5\n")
    assert settings_of("m").response_timeout == 120


def test_zero_default_workers_leaves_a_startup_model_its_cores(folder):
    write(folder, "default_workers_per_model=0\n")
    resolved = resolve_model(read_sources(environ={}), "m", overrides={}, manifest_settings={}, startup=True, cores=6)
    assert (resolved.min_workers, resolved.max_workers) == (6, 6)
    assert resolved.explained["min_workers"].chosen.where == "built-in: cores"


def test_a_file_beside_the_archive_sets_options_of_its_model(folder):
    store = folder / "store"
    store.mkdir()
    write(folder, f"model_store={store}\n")
    own = write(store, "batch_size=6\n", "Dotted.v1-x.properties")
    settings = settings_of("Dotted.v1-x")
    assert settings.batch_size == 6
    assert settings.explained["batch_size"].chosen.where == f"{own}:1"
    assert settings_of("dotted.v1-x").batch_size == 1


def test_a_file_that_came_after_the_boot_is_read_when_asked(folder):
    store = folder / "store"
    store.mkdir()
    sources = read_sources(flags={"model_store": str(store)}, environ={"SIZE": "9"})
    own = write(store, "batch_size=$$SIZE$$\n", "late.properties")

    def batch_size(of):
        return resolve_model(of, "late", overrides={}, manifest_settings={}, startup=False).batch_size

    assert batch_size(sources) == 1
    later = sources.with_model_file("late")
    assert batch_size(later) == 9
    own.unlink()
    assert batch_size(later.with_model_file("late")) == 1
    write(store, "batch_size=$$GONE$$\n", "late.properties")
    with pytest.raises(InvalidModel, match="Invalid Environment Variable GONE"):
        sources.with_model_file("late")


def test_the_servers_own_file_in_the_model_store_is_no_models_file(folder):
    write(folder, f"model_store={folder}\nbatch_size=5\n")
    assert read_sources(environ={}).model_files == {}


def test_the_environment_beats_the_command_line_for_keys_of_mms_only(folder):
    write(folder, "enable_envvars_config=true\nload_models=file.mar\nserver_id=file\n")
    environ = {"MMS_LOAD_MODELS": "env=noop.mar", "MMS_SERVER_ID": "env"}
    flags = {"load_models": ["cli=noop.mar"], "server_id": "cli", "model_store": str(folder)}
    settings = resolve_server(read_sources(flags=flags, environ=environ))
    assert [m.name for m in settings.load_models] == ["env"]
    assert settings.server_id == "cli"


def test_the_folder_of_logs_comes_from_its_old_variable_without_any_switch(folder):
    settings = resolve_server(read_sources(environ={"LOG_LOCATION": "/var/log/mms"}))
    assert settings.log_location == Path("/var/log/mms")
    assert settings.metrics_location == folder / "logs"


def test_the_built_in_sagemaker_configuration(folder):
    environ = {
        "SAGEMAKER_BIND_TO_PORT": "8085",
        "SAGEMAKER_MODEL_STORE": str(folder),
        "SAGEMAKER_HANDLER": "service:handle",
        "SAGEMAKER_NUM_MODEL_WORKERS": "1",
        "SAGEMAKER_RESPONSE_TIMEOUT": "60",
        "SAGEMAKER_MAX_REQUEST_SIZE": "1000",
        "SAGEMAKER_MAX_RESPONSE_SIZE": "2000",
        "SAGEMAKER_PRELOAD_MODEL": "false",
    }
    settings = resolve_server(read_sources(config="sagemaker", environ=environ))
    assert str(settings.inference_address) == "http://0.0.0.0:8085"
    assert settings.single_port
    assert settings.model_defaults.response_timeout == 60
    assert settings.model_defaults.max_response_size == 2000
    assert settings.data_dir == folder / "mms-data"
    del environ["SAGEMAKER_HANDLER"]
    with pytest.raises(UsageError, match="Invalid Environment Variable SAGEMAKER_HANDLER"):
        read_sources(config="sagemaker", environ=environ)


def test_latin_1_files_and_escapes_are_read(folder):
    (folder / "config.properties").write_bytes("cors_allowed_origin=gr\xfc\\u00dfe\r\n".encode("latin-1"))
    assert read_sources(environ={}).file["cors_allowed_origin"].value == "grüße"
    write(folder, "\ncors_allowed_origin=\\u00zz\n")
    with pytest.raises(UsageError, match=r"u00zz.*config\.properties:2"):
        read_sources(environ={})


def test_flags_must_be_rows_of_the_table():
    with pytest.raises(ValueError, match="nonsense"):
        read_sources(flags={"nonsense": "1"}, environ={})
    assert "model_store" in BY_NAME

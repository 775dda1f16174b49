"""What `mms config check` finds, with its place."""

from pathlib import Path

import pytest

from mms.config.check import Severity, check
from mms.config.sources import read_sources


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").mkdir()
    for name in ("noop.mar", "resnet-18.mar"):
        (tmp_path / "store" / name).touch()
    return tmp_path


def found(folder: Path, text: str, environ=None, names=(), **more):
    (folder / "config.properties").write_text(text, encoding="utf-8")
    findings = check(read_sources(environ=environ or {}, **more), names)
    return [(str(f.severity), str(f).replace(str(folder), "F")) for f in findings]


STORE = "model_store=store\n"


def test_a_good_configuration_has_no_findings(folder):
    (folder / "store" / "noop.properties").write_text("batch_size=3\ntimeout_millis=100\n")
    text = (
        "load_models=noop.mar,r=resnet-18.mar\nnoop.batch_size=4\nr.max_batch_size=8\nbatch_size=2\ndrain_timeout=3\n"
    )
    assert found(folder, STORE + text) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("job_que_size=5", "Unknown key job_que_size. Did you mean job_queue_size? (F/config.properties:1)"),
        ("noop.batch_sizee=5", "Unknown key noop.batch_sizee. Did you mean noop.batch_size? (F/config.properties:1)"),
        ("noop.drain_timeout=5", "Unknown key noop.drain_timeout. Did you mean drain_timeout? (F/config.properties:1)"),
        ("zzzz=5", "Unknown key zzzz. (F/config.properties:1)"),
        ("recover=true", "recover has no effect here: it is read from the command line (--recover). (F/config.properties:1)"),
        ("batch_size=1\nbatch_size=2", "batch_size is set again at F/config.properties:2, which counts. (F/config.properties:1)"),
    ],
)  # fmt: skip
def test_keys_that_do_nothing_are_warned_about(folder, line, message):
    assert found(folder, line) == [("warning", message)]


def test_a_timeout_that_the_java_server_takes_for_minutes_is_noted_with_the_spelling_that_both_understand(folder):
    (note,) = found(folder, "default_response_timeout=2\n")
    assert note == (
        "note",
        (
            "default_response_timeout counts seconds here, minutes in the Java server;"
            " default_response_timeout_seconds means the same to both. (F/config.properties:1)"
        ),
    )
    assert found(folder, "default_response_timeout_seconds=120\n") == []


def test_settings_of_the_java_server_are_noted_once_each(folder):
    findings = found(folder, "vmargs=-Xmx1g\nnumber_of_netty_threads=4\n")
    assert findings == [
        ("note", "vmargs has no effect: it is a setting of the Java server. (F/config.properties:1)"),
        ("note", "number_of_netty_threads has no effect: it is a setting of the Java server. (F/config.properties:2)"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("job_queue_size=many",
         'Invalid configuration: job_queue_size must be a whole number from 1 to 10000000, not "many" (F/config.properties:1).'),
        ("noop.timeout_millis=0",
         'Invalid configuration: noop.timeout_millis must be a number from 1 to 2147483647000, not "0" (F/config.properties:1).'),
        ("default_workers_per_model=-1",
         'Invalid configuration: default_workers_per_model must be a whole number from 0 to 4096, not "-1" (F/config.properties:1).'),
        ("inference_address=8080",
         ("Invalid configuration: Invalid binding address: 8080 (expected: http://host:port, https://host:port or unix:/path)"
         " (F/config.properties:1)")),
        ("blacklist_env_vars=[",
         'Invalid configuration: blacklist_env_vars must be a regular expression, not "[" (F/config.properties:1).'),
        ("store_url=mysql://u:secret@h/d",
         "Invalid configuration: store_url must be sqlite:///FILE or postgresql://USER@HOST/DATABASE (F/config.properties:1)."),
        ("load_models=same=noop.mar,same=echo.mar",
         "Invalid configuration: Model same is already registered. (F/config.properties:1)"),
        ("recovery_mode=sometimes",
         'Invalid configuration: recovery_mode must be auto, always or never, not "sometimes" (F/config.properties:1).'),
        ("noop.min_workers=3\nnoop.max_workers=2",
         "Invalid configuration: max_workers must not be less than min_workers (3), not 2 (F/config.properties:2)."),
        ("certificate_file=cert.pem",
         ("Invalid configuration: certificate_file and private_key_file must be given together, not certificate_file alone"
          " (F/config.properties:1).")),
    ],
)  # fmt: skip
def test_bad_values_stop_the_boot(folder, line, message):
    assert ("error", message) in found(folder, line)


def test_bad_values_of_variables_and_model_files_are_found(folder):
    (folder / "store" / "noop.properties").write_text("\nbatch_size=x\nbatch=3\n")
    environ = {"MMS_JOB_QUEUE_SIZE": "x", "MMS_MODEL__NOOP__BATCH_SIZE": "0"}
    findings = found(folder, STORE + "enable_envvars_config=true", environ)
    assert [severity for severity, _ in findings] == ["error", "error", "error", "warning"]
    assert findings[0][1].startswith("Invalid configuration: MMS_JOB_QUEUE_SIZE must be a whole number")
    assert findings[1][1].startswith("Invalid configuration: MMS_MODEL__NOOP__BATCH_SIZE must be a whole number")
    assert findings[2][1].endswith('not "x" (F/store/noop.properties:2).')
    assert findings[3][1] == "Unknown key batch. Did you mean batch_size? (F/store/noop.properties:3)"


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("MMS_JOB_QUE_SIZE", "Unknown variable MMS_JOB_QUE_SIZE. Did you mean MMS_JOB_QUEUE_SIZE?"),
        ("MMS_MODEL__NOOP__BATCHSIZE", "Unknown variable MMS_MODEL__NOOP__BATCHSIZE. Did you mean MMS_MODEL__NOOP__BATCH_SIZE?"),
        ("MMS_MODEL__BATCH_SIZE", "Unknown variable MMS_MODEL__BATCH_SIZE. Did you mean"),
        ("MMS_batch_size", "Unknown variable MMS_batch_size. Did you mean MMS_BATCH_SIZE?"),
        ("MMS_METRIC_TIME_INTERVAL", "MMS_METRIC_TIME_INTERVAL has no effect: it is read from config.properties."),
    ],
)  # fmt: skip
def test_variables_that_do_nothing_are_warned_about(folder, variable, message):
    environ = {variable: "1", "MMS_CONFIG_FILE": "config.properties", "MMS_MANAGEMENT_URL": "http://h"}
    findings = found(folder, "enable_envvars_config=true", environ)
    assert len(findings) == 1
    assert findings[0][0] == "warning"
    assert findings[0][1].startswith(message)
    assert found(folder, "", environ) == []


def test_two_names_that_give_one_variable_are_refused(folder):
    text = "a-b.batch_size=2\na.b.batch_size=3\n"
    (severity, message), *_ = found(folder, text + "enable_envvars_config=true")
    assert severity == "error"
    assert message == (
        "Invalid configuration: the models a-b and a.b share the variables MMS_MODEL__A_B__...; rename one of them."
        " (F/config.properties:1, F/config.properties:2)"
    )
    assert [severity for severity, _ in found(folder, text)] == ["warning"]
    assert [severity for severity, _ in found(folder, "a-b.batch_size=2", names=["A_B"])] == ["warning"]


def test_a_bad_value_of_a_variable_is_found_before_its_model_is_known(folder):
    environ = {
        "MMS_MODEL__LATER__TIMEOUT_MILLIS": "0",
        "MMS_MODEL__LATER__BATCH_SIZE": "",
        "MMS_MODEL__L__BATCH_SIZE": "2",
    }
    assert found(folder, "enable_envvars_config=true", environ) == [
        ("error", ("Invalid configuration: MMS_MODEL__LATER__TIMEOUT_MILLIS must be a number from 1 to 2147483647000,"
                   ' not "0".')),
    ]  # fmt: skip


@pytest.mark.parametrize("models", ["ALL", "noop.mar,resnet-18.mar"])
def test_names_that_only_the_archives_know_are_looked_at_too(folder, models):
    names = {"noop.mar": "a-b", "resnet-18.mar": "a.b"}
    (folder / "config.properties").write_text(f"{STORE}load_models={models}\nenable_envvars_config=true\n")
    findings = check(read_sources(environ={}), archive_name=lambda path: names[path.name])
    assert [str(finding) for finding in findings] == [
        (
            "Invalid configuration: the models a-b and a.b share the variables MMS_MODEL__A_B__...; rename one of them."
            f" ({folder}/config.properties:2)"
        )
    ]


def test_start_up_models_without_an_archive_are_warned_about(folder):
    assert found(folder, STORE + "load_models=nop.mar,http://h/x.mar") == [
        ("warning", ("load_models names nop.mar, which is not in the model store F/store. Did you mean noop.mar?"
                     " (F/config.properties:2)")),
    ]  # fmt: skip
    assert [m for _, m in found(folder, "load_models=noop.mar")] == [
        "load_models names archives of the model store, but model_store is not set. (F/config.properties:1)"
    ]
    assert [m for _, m in found(folder, "load_models=ALL\nmodel_store=gone")] == [
        "load_models names archives of the model store, but there is no folder gone. (F/config.properties:1)"
    ]


@pytest.mark.parametrize("models", ["ALL", "noop.mar,resnet-18.mar", "noop.mar,resnet-18=http://h/x.mar"])
def test_settings_of_a_misspelt_model_are_warned_about(folder, models):
    findings = found(folder, f"{STORE}load_models={models}\nresnet18.batch_size=4\nlater.batch_size=2\n")
    assert findings == [
        ("warning", ("resnet18.batch_size is for resnet18, which is no start-up model. Did you mean resnet-18?"
                     " (F/config.properties:3)")),
    ]  # fmt: skip


def test_only_errors_are_fatal(folder):
    (folder / "config.properties").write_text("job_queue_size=x\nzzz=1\nvmargs=1\n")
    findings = check(read_sources(environ={}))
    assert [(f.severity, f.fatal) for f in findings] == [
        (Severity.ERROR, True),
        (Severity.WARNING, False),
        (Severity.NOTE, False),
    ]

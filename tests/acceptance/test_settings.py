"""Where a value comes from, through the public doors: each source set and taken away where an operator would, across SIGKILLs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.asking_settings import BATCH_LENGTH, change, command, places, shown
from tests.acceptance.running import RunningServer, make_model

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path, config={"enable_envvars_config": "true"}) as running:
        yield running


def line_of(file: Path, key: str) -> str:
    lines = file.read_text().splitlines()
    return f"{file}:{next(number for number, line in enumerate(lines, 1) if line.startswith(f'{key}='))}"


def set_manifest(folder: Path, **keys: object) -> None:
    file = folder / "MAR-INF" / "MANIFEST.json"
    manifest = json.loads(file.read_text())
    manifest["model"] = {"modelName": manifest["model"]["modelName"], "handler": "service:handle", **keys}
    file.write_text(json.dumps(manifest))


def test_each_source_shows_through_when_the_stronger_one_is_taken_away(server: RunningServer) -> None:
    """The API's door is open while the server runs; environment, files and the archive of a start-up model are read when
    the server starts.
    """
    name = "Echo-v1.0"
    config_file = server.folder / "config.properties"
    model_file = server.models / f"{name}.properties"
    archive = make_model(server.models, name, BATCH_LENGTH, model={"batchSize": 8})
    model_file.write_text("# of this model alone\nbatch_size=12\n")
    server.environment |= {"MMS_MODEL__ECHO_V1_0__BATCH_SIZE": "32", "MMS_BATCH_SIZE": "4"}
    server.config |= {"load_models": f"{name}={name}", "batch_size": 2, "default_workers_per_model": 1}
    server.config[f"{name}.batch_size"] = 16
    server.start()
    change(server, "PUT", f"/models/{name}?batch_size=64")
    change(server, "PUT", f"/models/{name}?min_worker=1&synchronous=true")
    server.kill()
    server.start()

    expected = [
        (64, "api", "model", "journal entry 1"),
        (32, "environment", "model", "MMS_MODEL__ECHO_V1_0__BATCH_SIZE"),
        (16, "config", "model", line_of(config_file, f"{name}.batch_size")),
        (12, "config", "model", f"{model_file}:2"),
        (8, "manifest", "archive", "model.batchSize"),
        (4, "environment", "server", "MMS_BATCH_SIZE"),
        (2, "config", "server", line_of(config_file, "batch_size")),
        (1, "default", "built-in", "built-in"),
    ]

    def check() -> None:
        assert places(shown(server, name, "batch_size")) == expected
        assert server.manage("GET", f"/models/{name}").json()["batchSize"] == expected[0][0]
        assert server.predict(name, "0").text == "1"

    check()
    sentence = command(server, "settings", name, "--explain", "batch_size")
    assert sentence.startswith(
        "batch_size of Echo-v1.0 is 64 requests, from the management API (journal entry 1); it beats 32"
    )

    change(server, "DELETE", f"/models/{name}/settings/batch_size")
    expected.pop(0)
    check()
    server.kill()
    server.start()
    check()  # what was taken back stays away

    del server.environment["MMS_MODEL__ECHO_V1_0__BATCH_SIZE"]
    expected.pop(0)
    server.kill()
    server.start()
    check()

    del server.config[f"{name}.batch_size"]
    expected.pop(0)
    server.kill()
    server.start()
    check()

    model_file.unlink()
    change(server, "PUT", f"/models/{name}?max_batch_delay=5")
    check()  # a change through the API is just that: it reads no file anew
    expected.pop(0)
    server.kill()
    server.start()
    check()

    set_manifest(archive)
    expected.pop(0)
    server.kill()
    server.start()
    check()

    del server.environment["MMS_BATCH_SIZE"]
    expected.pop(0)
    server.kill()
    server.start()
    check()

    del server.config["batch_size"]
    expected.pop(0)
    server.kill()
    server.start()
    check()
    assert command(server, "settings", name, "--explain", "batch_size") == (
        "batch_size of Echo-v1.0 is 1 request, the built-in default; no other source names it.\n"
    )


def test_a_models_own_file_is_read_anew_when_the_model_is_registered(server: RunningServer) -> None:
    """It may have come with the archive, after the start of the server."""
    make_model(server.models, "m", BATCH_LENGTH)
    server.start()
    change(server, "POST", "/models?url=m")
    assert shown(server, "m", "batch_size")["source"] == "default"
    (server.models / "m.properties").write_text("batch_size=4\nmin_workers=1\n")
    change(server, "PUT", "/models/m?max_batch_delay=5")
    assert shown(server, "m", "batch_size")["source"] == "default"
    change(server, "DELETE", "/models/m")
    change(server, "POST", "/models?url=m")

    assert places(shown(server, "m", "batch_size"))[0] == (4, "config", "model", f"{server.models}/m.properties:1")
    assert server.predict("m", "0").text == "1"
    (server.models / "m.properties").write_text("batch_size=many\n")
    change(server, "PUT", "/models/m?max_batch_delay=6")
    change(server, "DELETE", "/models/m")
    refused = server.manage("POST", "/models?url=m")
    assert refused.status_code == 400
    assert (
        f'batch_size must be a whole number from 1 to 65536, not "many" ({server.models}/m.properties:1)'
        in refused.json()["message"]
    )


def test_names_with_dots_dashes_and_mixed_case_work_in_every_source(server: RunningServer) -> None:
    variables = {"Res-Net.v1": "RES_NET_V1", "a.b.c-D": "A_B_C_D", "UPPER_lower.2-x": "UPPER_LOWER_2_X"}
    for number, (name, variable) in enumerate(variables.items(), start=2):
        make_model(server.models, name, BATCH_LENGTH, model={"startupTimeout": 10 + number})
        server.environment[f"MMS_MODEL__{variable}__BATCH_SIZE"] = str(number)
        server.config[f"{name}.max_batch_delay"] = 20 + number
        (server.models / f"{name}.properties").write_text(f"response_timeout={30 + number}\n")
    server.start()
    for number, name in enumerate(variables, start=2):
        change(server, "POST", f"/models?url={name}&initial_workers=1&job_queue_size={40 + number}")
    server.kill()
    server.start()

    for number, (name, variable) in enumerate(variables.items(), start=2):
        settings = server.manage("GET", f"/models/{name}/settings").json()["settings"]
        found = {option: (one["value"], one["source"], one["where"]) for option, one in settings.items()}
        assert found["batch_size"] == (number, "environment", f"MMS_MODEL__{variable}__BATCH_SIZE")
        assert found["max_batch_delay"][:2] == (20 + number, "config")
        assert found["response_timeout"] == (30 + number, "config", f"{server.models}/{name}.properties:1")
        assert found["startup_timeout"] == (10 + number, "manifest", "model.startupTimeout")
        assert found["job_queue_size"] == (40 + number, "api", f"journal entry {number - 1}")
        assert server.predict(name, "0").text == "1"


def test_a_value_keeps_the_number_of_the_entry_that_gave_it_whatever_comes_after(server: RunningServer) -> None:
    make_model(server.models, "m", BATCH_LENGTH)

    def wheres() -> dict[str, str]:
        settings = server.manage("GET", "/models/m/settings").json()["settings"]
        return {name: one["where"] for name, one in settings.items() if one["source"] == "api"}

    server.start()
    change(server, "POST", "/models?url=m&initial_workers=1&batch_size=4")
    change(server, "PUT", "/models/m?batch_size=8")
    change(server, "PUT", "/models/m?max_batch_delay=9&batch_size=8")
    one, two, three = "journal entry 1", "journal entry 2", "journal entry 3"
    expected = {"min_workers": one, "batch_size": two, "max_batch_delay": three}
    assert wheres() == expected
    server.kill()
    server.start()
    assert wheres() == expected

    change(server, "POST", "/restore?seq=2")
    change(server, "PUT", "/models/m?max_batch_delay=9")
    expected["max_batch_delay"] = "journal entry 5"
    assert wheres() == expected
    assert server.stop() == 0
    server.start("--recover")
    assert wheres() == expected

    change(server, "DELETE", "/models/m")
    change(server, "POST", "/models?url=m&batch_size=8")
    assert wheres() == {"batch_size": "journal entry 7"}
    server.kill()
    server.start()
    assert wheres() == {"batch_size": "journal entry 7"}


def test_an_api_value_that_is_not_the_manifests_is_used_and_said_once_in_the_log(server: RunningServer) -> None:
    make_model(server.models, "m", BATCH_LENGTH, model={"batchSize": 8, "responseTimeout": 30})
    server.start()
    change(server, "POST", "/models?url=m&initial_workers=1&batch_size=16&response_timeout=30")
    change(server, "PUT", "/models/m?batch_size=512&max_batch_delay=3")
    change(server, "PUT", "/models/m?job_queue_size=7")
    change(server, "DELETE", "/models/m/settings/max_batch_delay")

    assert shown(server, "m", "batch_size")["value"] == 512
    warnings = [line for line in server.log().splitlines() if "is used; the archive's manifest says" in line]
    said = "Model m: batch_size={} from the management API (journal entry {}) is used; the archive's manifest says 8"
    assert [line.partition("] ")[2].partition(" (model.batchSize)")[0] for line in warnings] == [
        said.format(16, 1),
        said.format(512, 2),
    ]
    assert all("warning" in line for line in warnings)


def test_the_settings_of_a_model_that_is_kept_out_of_service_can_be_read(server: RunningServer) -> None:
    trouble = server.folder / "trouble"
    make_model(server.models, "m", BATCH_LENGTH + f"""
import os
if os.path.exists({str(trouble)!r}):
    raise RuntimeError("trouble")
""", model={"batchSize": 8})  # fmt: skip
    server.config["quarantine_after"] = 1
    server.start()
    change(server, "POST", "/models?url=m&initial_workers=1&batch_size=16")
    before = server.manage("GET", "/models/m/settings").json()
    trouble.touch()
    server.kill()
    server.start()

    assert server.outcomes() == {"m": "quarantined"}
    assert server.manage("GET", "/models/m/settings").json() == before
    assert server.manage("GET", "/models/other/settings").status_code == 404


BAD_MANIFESTS: list[tuple[str, object, str]] = [
    ("batchSize", "many", 'a whole number from 1 to 65536, not "many".'),
    ("batchSize", "8", 'a whole number from 1 to 65536, not "8".'),
    ("maxBatchDelay", -1, "a whole number from 0 to 3600000, not -1."),
    ("responseTimeout", [], "a number from 0.001 to 2147483647, not []."),
    ("preloadModel", 1, "true or false, not 1."),
]


def test_a_wrong_value_in_a_manifest_fails_the_registration_with_its_key(server: RunningServer) -> None:
    server.start()
    for number, (key, value, expected) in enumerate(BAD_MANIFESTS):
        make_model(server.models, f"m{number}", BATCH_LENGTH, model={key: value})
        answer = server.manage("POST", f"/models?url=m{number}")
        assert answer.status_code == 400
        assert answer.json()["message"] == f"model.{key} in the manifest must be {expected}"

    assert server.model_names() == []


def test_what_the_archiver_is_told_is_in_the_manifest_and_counts_for_the_model(server: RunningServer) -> None:
    source = make_model(server.folder / "source", "packed", BATCH_LENGTH)
    flags = ["--max-batch-size", "6", "--max-batch-delay", "7", "--response-timeout", "8", "--job-queue-size", "9"]
    subprocess.run(
        [sys.executable, "-P", "-m", "mms", "model-archiver", "--model-name", "packed", "--model-path", str(source),
         "--handler", "service:handle", "--export-path", str(server.models), *flags],
        check=True,
    )  # fmt: skip
    server.start()
    change(server, "POST", "/models?url=packed.mar&initial_workers=1")

    settings = server.manage("GET", "/models/packed/settings").json()["settings"]
    found = {name: (one["value"], one["where"]) for name, one in settings.items() if one["source"] == "manifest"}
    assert found == {
        "batch_size": (6, "model.batchSize"),
        "max_batch_delay": (7, "model.maxBatchDelay"),
        "response_timeout": (8, "model.responseTimeout"),
        "job_queue_size": (9, "model.jobQueueSize"),
    }

"""Where a value comes from, through the public doors: each source set and taken away where an operator would, across SIGKILLs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.acceptance.running import RunningServer, make_model, wait_until

pytestmark = pytest.mark.slow

#: Answers every row with the length of the batch that it came in; the body says how long to sleep, in milliseconds.
BATCH_LENGTH = """
import time

def handle(data, context):
    if data is None:
        return None
    time.sleep(max(int(bytes(row["body"]) or b"0") for row in data) / 1000)
    return [str(len(data)) for _ in data]
"""

#: Answers with as many bytes as the body says.
AS_MANY_BYTES = """
def handle(data, context):
    return None if data is None else ["x" * int(bytes(row["body"])) for row in data]
"""

#: Takes a second to load.
SLOW_TO_LOAD = """
import time

class Slow:
    def initialize(self, context):
        time.sleep(1.0)

    def handle(self, data, context):
        return ["ready" for _ in data]

_service = Slow()

def handle(data, context):
    if data is None:
        _service.initialize(context)
        return None
    return _service.handle(data, context)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path, config={"enable_envvars_config": "true"}) as running:
        yield running


def command(server: RunningServer, *arguments: str) -> str:
    """What `mms ...` prints about this server."""
    environment = {**os.environ, "MMS_MANAGEMENT_URL": server.management_url}
    run = subprocess.run(
        [sys.executable, "-P", "-m", "mms", *arguments],
        env=environment,
        cwd=server.folder,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def shown(server: RunningServer, model: str, option: str) -> dict[str, Any]:
    answer = server.manage("GET", f"/models/{quote(model)}/settings")
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["modelName"] == model
    found: dict[str, Any] = document["settings"][option]
    return found


def change(server: RunningServer, method: str, path: str) -> None:
    answer = server.manage(method, path)
    assert answer.status_code == 200, answer.text


def places(setting: dict[str, Any]) -> list[tuple[Any, str, str, str]]:
    """The value in force and all that it beat, strongest first, each with its provenance."""
    return [(one["value"], one["source"], one["scope"], one["where"]) for one in (setting, *setting["beaten"])]


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


# --- live ------------------------------------------------------------------------------------------------------------


class Load:
    """Clients that ask without a pause; `answers` are (when it was sent, status, batch length), in order of arrival."""

    def __init__(self, server: RunningServer, model: str, clients: int) -> None:
        self.answers: list[tuple[float, int, str]] = []
        self._url = f"{server.inference_url}/predictions/{model}"
        self._clients = clients
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(timeout=30, trust_env=False) as client:
            while not self._stop.is_set():
                sent = time.monotonic()
                answer = client.post(self._url, content=b"10")
                self.answers.append((sent, answer.status_code, answer.text))

    def sent_after(self, moment: float) -> list[int]:
        """Batch lengths of as many requests as there are clients and more, all sent after that moment."""
        wait_until(
            lambda: len(self._after(moment)) >= 3 * self._clients, what="answers to requests sent after a change"
        )
        return self._after(moment)

    def _after(self, moment: float) -> list[int]:
        return [int(length) for sent, _, length in list(self.answers) if sent > moment]


def test_a_batch_size_changed_under_load_is_that_of_the_next_batches_and_loses_no_request(
    server: RunningServer,
) -> None:
    make_model(server.models, "m", BATCH_LENGTH)
    server.start()
    change(server, "POST", "/models?url=m&initial_workers=1&batch_size=4&max_batch_delay=50")
    workers = server.children()
    with Load(server, "m", clients=12) as load:
        assert max(load.sent_after(time.monotonic())) == 4
        for size in (1, 6, 2, 9):
            change(server, "PUT", f"/models/m?batch_size={size}")
            lengths = load.sent_after(time.monotonic())
            assert max(lengths) == size

    assert [answer for answer in load.answers if answer[1] != 200] == []
    assert server.children() == workers  # nobody was replaced for it
    server.kill()
    server.start()
    assert shown(server, "m", "batch_size")["value"] == 9


def test_a_batch_delay_changed_on_a_running_model_is_that_of_the_next_batch(server: RunningServer) -> None:
    server.config["batching"] = "strict"
    make_model(server.models, "m", BATCH_LENGTH)
    server.start()
    change(server, "POST", "/models?url=m&initial_workers=1&batch_size=2&max_batch_delay=0")

    def seconds() -> float:
        began = time.monotonic()
        assert server.predict("m", "0").text == "1"
        return time.monotonic() - began

    seconds()  # the first one also opens the connection
    assert seconds() < 0.4
    change(server, "PUT", "/models/m?max_batch_delay=500")
    assert 0.45 < seconds() < 5
    change(server, "PUT", "/models/m?max_batch_delay=0")
    assert seconds() < 0.4


def test_one_put_changes_every_live_option_and_no_worker_is_replaced(server: RunningServer) -> None:
    make_model(server.models, "m", BATCH_LENGTH)
    server.start()
    change(server, "POST", "/models?url=m&initial_workers=1")
    workers = server.children()
    given = {
        "batch_size": 3, "max_batch_delay": 4, "response_timeout": 5.5, "startup_timeout": 6, "job_queue_size": 7,
        "max_request_size": 8000, "max_response_size": 9000,
    }  # fmt: skip
    answer = server.manage("PUT", "/models/m?" + "&".join(f"{name}={value}" for name, value in given.items()))

    assert (answer.status_code, answer.json()) == (200, {"status": 'Model "m" updated'})
    settings = server.manage("GET", "/models/m/settings").json()["settings"]
    assert {name: settings[name]["value"] for name in given} == given
    assert {settings[name]["where"] for name in given} == {"journal entry 2"}
    assert server.predict("m", "0").text == "1"
    assert server.children() == workers


def test_taking_back_a_worker_count_brings_back_the_one_of_the_next_source(server: RunningServer) -> None:
    make_model(server.models, "m", BATCH_LENGTH, model={"minWorkers": 2})
    server.start()
    change(server, "POST", "/models?url=m&initial_workers=1")

    def workers() -> int:
        return len(server.manage("GET", "/models/m").json()["workers"])

    assert workers() == 1
    change(server, "DELETE", "/models/m/settings/initial_workers")  # the API's name for it is taken as well
    wait_until(lambda: workers() == 2, what="the manifest's number of workers")
    assert shown(server, "m", "min_workers")["source"] == "manifest"


BAD_CHANGES = [
    ("PUT", "?batch_size=many", 'Parameter batch_size must be a whole number from 1 to 65536, not "many".'),
    ("PUT", "?batch_size=4&max_batch_delay=-1", "Parameter max_batch_delay must be a whole number from 0 to 3600000"),
    ("PUT", "?response_timeout=0", 'Parameter response_timeout must be a number from 0.001 to 2147483647, not "0".'),
    ("PUT", "?min_worker=2&max_worker=1", "max_worker cannot be less than min_worker."),
    ("PUT", "?preload_model=true", "Parameter preload_model cannot be changed on a running model"),
    ("DELETE", "/settings/preload_model", "Parameter preload_model cannot be changed on a running model"),
    ("DELETE", "/settings/batch_siz", 'There is no option "batch_siz"; a model has: batch_size, '),
    ("DELETE", "/settings/job_queue_size", "Model m has no override of job_queue_size"),
]


def test_a_bad_change_is_refused_by_name_and_changes_nothing(server: RunningServer) -> None:
    make_model(server.models, "m", BATCH_LENGTH)
    server.start()
    change(server, "POST", "/models?url=m&initial_workers=1&preload_model=true&batch_size=2")
    before = server.manage("GET", "/models/m/settings").json()
    for method, path, message in BAD_CHANGES:
        answer = server.manage(method, f"/models/m{path}")
        assert answer.status_code == 400
        assert answer.json()["message"].startswith(message)

    assert server.manage("GET", "/models/m/settings").json() == before
    assert [entry["seq"] for entry in server.manage("GET", "/journal").json()["entries"]] == [1]


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


# --- enforced for each model -----------------------------------------------------------------------------------------


def test_request_and_response_sizes_are_each_models_own(server: RunningServer) -> None:
    for name in ("small", "large"):
        make_model(server.models, name, AS_MANY_BYTES)
    server.config |= {"small.max_request_size": 2, "large.max_response_size": 20_000_000, "small.max_response_size": 50}
    server.start()
    for name in ("small", "large"):
        change(server, "POST", f"/models?url={name}&initial_workers=1")

    assert server.predict("small", "50").text == "x" * 50
    assert server.predict("small", "051").status_code == 413
    assert server.predict("large", "051").text == "x" * 51
    binary = {"content-type": "application/octet-stream"}
    for route in ("/invocations?model_name={}", "/models/{}/invoke", "/{}/predict"):
        assert server.infer("POST", route.format("small"), content="051", headers=binary).status_code == 413
        assert server.infer("POST", route.format("large"), content="051", headers=binary).text == "x" * 51
    refused = server.predict("small", "51")
    assert refused.status_code >= 500
    assert "max_response_size of 50 bytes" in refused.text
    assert len(server.predict("large", "10000000").content) == 10_000_000

    change(server, "PUT", "/models/small?max_request_size=3&max_response_size=51")
    assert server.predict("small", "051").text == "x" * 51
    change(server, "DELETE", "/models/small/settings/max_request_size")
    assert server.predict("small", "051").status_code == 413


def test_response_timeouts_are_each_models_own(server: RunningServer) -> None:
    for name in ("hasty", "patient"):
        make_model(server.models, name, BATCH_LENGTH)
    server.config["hasty.response_timeout"] = 0.3
    server.start()
    for name in ("hasty", "patient"):
        change(server, "POST", f"/models?url={name}&initial_workers=1")

    assert server.predict("patient", "900").text == "1"
    assert server.predict("hasty", "900").status_code == 500
    change(server, "PUT", "/models/hasty?response_timeout=20")
    wait_until(
        lambda: server.predict("hasty", "900").status_code == 200, what="an answer of the worker that replaced it"
    )


def test_startup_timeouts_are_each_models_own(server: RunningServer) -> None:
    make_model(server.models, "hasty", SLOW_TO_LOAD, model={"startupTimeout": 0.3})
    make_model(server.models, "patient", SLOW_TO_LOAD)
    server.start()

    assert server.manage("POST", "/models?url=hasty&initial_workers=1").status_code == 500
    assert server.manage("GET", "/models/hasty").status_code == 404
    change(server, "POST", "/models?url=patient&initial_workers=1")
    change(server, "POST", "/models?url=hasty&initial_workers=1&startup_timeout=20")
    assert server.predict("hasty").text == "ready"


def test_job_queue_sizes_are_each_models_own(server: RunningServer) -> None:
    for name in ("short", "long"):
        make_model(server.models, name, BATCH_LENGTH)
    server.config |= {"short.job_queue_size": 1, "job_queue_size": 50}
    server.start()
    for name in ("short", "long"):
        change(server, "POST", f"/models?url={name}&initial_workers=1")

    def statuses(model: str) -> list[int]:
        with ThreadPoolExecutor(8) as pool:
            return sorted(answer.status_code for answer in pool.map(lambda _: server.predict(model, "300"), range(8)))

    refused = statuses("short").count(503)
    assert refused >= 4
    assert statuses("long") == [200] * 8
    change(server, "PUT", "/models/short?job_queue_size=50")
    assert statuses("short") == [200] * 8


def test_default_workers_are_those_of_a_start_up_model_that_says_nothing_else(server: RunningServer) -> None:
    make_model(server.models, "says-nothing", BATCH_LENGTH)
    make_model(server.models, "by-manifest", BATCH_LENGTH, model={"minWorkers": 1})
    make_model(server.models, "by-file", BATCH_LENGTH, model={"minWorkers": 1})
    (server.models / "by-file.properties").write_text("min_workers=3\n")
    server.config |= {"load_models": "ALL", "default_workers_per_model": 2}
    server.start()

    def workers(name: str) -> int:
        return len(server.manage("GET", f"/models/{name}").json()["workers"])

    assert {name: workers(name) for name in server.model_names()} == {"by-file": 3, "by-manifest": 1, "says-nothing": 2}
    assert places(shown(server, "says-nothing", "min_workers"))[0][1:3] == ("config", "server")

"""A configuration as operators of MMS have it: variables, start-up models, what workers may see, and GPUs in turn."""

from __future__ import annotations

import json
import shutil
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.acceptance.running import ECHO, RunningServer, make_model, wait_until

pytestmark = pytest.mark.slow

TELLING = """
import json, os

def handle(data, context):
    if data is None:
        return None
    names = ["SECRET_TOKEN", "TOKEN", "EXACT", "EXACTLY", "OMP_NUM_THREADS"]
    seen = {name: os.environ[name] for name in names if name in os.environ}
    return [json.dumps({"gpu": context.system_properties["gpu_id"], "seen": seen})]
"""


def names(server: RunningServer) -> list[str]:
    return [model["modelName"] for model in server.manage("GET", "/models").json()["models"]]


def test_variables_are_put_into_values_and_beat_the_file_where_it_allows_it(tmp_path: Path) -> None:
    configuration = {
        "enable_envvars_config": "true",
        "model_store": "$$BASE$$/models",
        "load_models": "from_file=echo",
        "job_queue_size": "$$QUEUE$$",
        "max_request_size": 9000,
    }
    environment = {
        "BASE": str(tmp_path),
        "QUEUE": "17",
        "MMS_LOAD_MODELS": "from_environment=echo",
        "MMS_MAX_REQUEST_SIZE": "500",
        "MMS_DEFAULT_WORKERS_PER_MODEL": "2",
        "MMS_CORS_ALLOWED_ORIGIN": "https://console.example",
        "MMS_MODEL__FROM_ENVIRONMENT__BATCH_SIZE": "3",
    }
    with RunningServer(tmp_path, config=configuration, environment=environment) as server:
        make_model(server.models, "echo", ECHO)
        server.start()
        assert names(server) == ["from_environment"]
        described = server.manage("GET", "/models/from_environment")
        assert (described.json()["minWorkers"], described.json()["batchSize"]) == (2, 3)
        assert described.headers["access-control-allow-origin"] == "https://console.example"
        assert server.predict("from_environment", b"x" * 501).status_code == 413
        assert server.predict("from_environment", b"x" * 500).status_code == 200
        settings = server.manage("GET", "/models/from_environment/settings").json()["settings"]
        assert settings["job_queue_size"]["value"] == 17
        assert settings["max_request_size"]["where"] == "MMS_MAX_REQUEST_SIZE"


def test_variables_do_not_count_where_the_file_does_not_allow_it(tmp_path: Path) -> None:
    environment = {"MMS_LOAD_MODELS": "from_environment=echo"}
    with RunningServer(tmp_path, config={"load_models": "from_file=echo"}, environment=environment) as server:
        make_model(server.models, "echo", ECHO)
        assert names(server.start()) == ["from_file"]


@pytest.mark.parametrize("word", ["ALL", "all"])
def test_all_loads_every_archive_of_the_store_and_one_that_is_broken_stops_no_other(tmp_path: Path, word: str) -> None:
    with RunningServer(tmp_path, config={"load_models": word, "default_workers_per_model": 1}) as server:
        make_model(server.models, "one", ECHO)
        make_model(server.models, "two", ECHO)
        shutil.make_archive(str(tmp_path / "three"), "zip", make_model(tmp_path, "three", ECHO))
        (tmp_path / "three.zip").rename(server.models / "three.mar")
        make_model(server.models, ".hidden", ECHO)
        (server.models / "broken.mar").write_text("this is no archive")
        (server.models / "notes.txt").write_text("neither is this")
        server.start()
        loaded = [name for name in names(server) if server.predict(name).text == f"{name}:x"]
        assert loaded == ["one", "three", "two"]
        assert all(
            server.manage("GET", f"/models/{name}").json()["loadedAtStartup"] for name in ("one", "three", "two")
        )
        assert "broken" in server.log()


def test_withheld_variables_reach_no_worker(tmp_path: Path) -> None:
    configuration = {"blacklist_env_vars": ".*SECRET.*|EXACT", "load_models": "telling"}
    environment = {"SECRET_TOKEN": "1", "TOKEN": "2", "EXACT": "3", "EXACTLY": "4"}
    with RunningServer(tmp_path, config=configuration, environment=environment) as server:
        make_model(server.models, "telling", TELLING)
        server.start()
        seen = json.loads(server.predict("telling").text)["seen"]
        assert seen == {"TOKEN": "2", "EXACTLY": "4", "OMP_NUM_THREADS": "1"}
        children = [Path(f"/proc/{child.pid}/environ").read_bytes() for child in server.children()]
        assert children
        assert not any(b"SECRET_TOKEN" in content for content in children)


def test_workers_of_all_models_get_gpus_in_turn_and_handlers_are_told(tmp_path: Path) -> None:
    """The number comes from the environment, which is believed, as in MMS, even where no GPU is seen."""
    configuration = {"enable_envvars_config": "true", "load_models": "first,second", "default_workers_per_model": 1}
    environment = {"MMS_NUMBER_OF_GPU": "3"}
    with RunningServer(tmp_path, config=configuration, environment=environment) as server:
        for name in ("first", "second", "third", "fourth"):
            make_model(server.models, name, TELLING)
        server.start()
        for name in ("third", "fourth"):
            server.manage("POST", f"/models?url={name}&initial_workers=1&synchronous=true")
        told = {name: json.loads(server.predict(name).text)["gpu"] for name in ("first", "second", "third", "fourth")}
        assert sorted([told["first"], told["second"], told["third"]]) == [0, 1, 2]
        assert told["fourth"] in (told["first"], told["second"])  # the turn begins anew
        assert [worker["gpu"] for worker in server.manage("GET", "/models/first").json()["workers"]] == [True]


def test_start_up_models_without_a_number_of_workers_get_one_for_each_gpu(tmp_path: Path) -> None:
    configuration = {"enable_envvars_config": "true", "load_models": "telling"}
    with RunningServer(tmp_path, config=configuration, environment={"MMS_NUMBER_OF_GPU": "3"}) as server:
        make_model(server.models, "telling", TELLING)
        server.start()
        assert server.manage("GET", "/models/telling").json()["minWorkers"] == 3


def test_a_number_of_gpus_in_the_file_is_at_most_what_is_there(tmp_path: Path) -> None:
    with RunningServer(tmp_path, config={"number_of_gpu": 0, "load_models": "telling"}) as server:
        make_model(server.models, "telling", TELLING)
        server.start()
        assert json.loads(server.predict("telling").text)["gpu"] is None
        assert server.manage("GET", "/models/telling").json()["workers"][0]["gpu"] is False


def test_settings_of_the_java_server_are_each_told_once_whatever_their_values(tmp_path: Path) -> None:
    java = {
        "vmargs": "-Xmx8g -XX:+ExitOnOutOfMemoryError",
        "number_of_netty_threads": 32,
        "netty_client_threads": 8,
        "prefer_direct_buffer": "true",
        "async_logging": "true",
        "use_native_io": "false",
        "io_ratio": 70,
        "debug": "false",
        "plugins_path": "/opt/plugins",
        "model_server_home": "/opt/mms",
    }
    with RunningServer(tmp_path, config=java) as server:
        server.start()
        told = [line for line in server.log().splitlines() if "has no effect" in line]
        assert len(told) == len(java)
        assert all(sum(f" {name} has no effect" in line for line in told) == 1 for name in java)
        assert not any("warning" in line for line in told)


SLOW_TO_LOAD = "import time\ntime.sleep(2.5)\n" + ECHO


def test_a_script_that_takes_an_open_port_for_a_started_server_can_register_at_once(tmp_path: Path) -> None:
    with RunningServer(tmp_path, config={"load_models": "slow", "default_workers_per_model": 1}) as server:
        make_model(server.models, "slow", SLOW_TO_LOAD)
        make_model(server.models, "echo", ECHO)
        server.launch()
        wait_until(server.is_live)
        assert not server.is_ready()
        registered = server.manage("POST", "/models?url=echo&initial_workers=1&synchronous=true")
        assert (registered.status_code, registered.json()) == (200, {"status": "Workers scaled"})
        assert server.is_ready()
        assert server.predict("echo", "x").text == "echo:x"


def test_a_change_waits_for_the_boot_no_longer_than_replay_wait_and_not_past_a_stop(tmp_path: Path) -> None:
    configuration = {"load_models": "slow", "default_workers_per_model": 1, "replay_wait": 0.2}
    with RunningServer(tmp_path, config=configuration) as server:
        make_model(server.models, "slow", SLOW_TO_LOAD.replace("2.5", "8"))
        server.launch()
        wait_until(server.is_live)
        refused = server.manage("DELETE", "/models/slow")
        assert (refused.status_code, refused.json()["outcome"]) == (503, "not-committed")
        assert server.stop() == 0
        server.config["replay_wait"] = 30
        server.launch()
        wait_until(server.is_live)
        host, port = server.management_url.removeprefix("http://").split(":")
        waiting = HTTPConnection(host, int(port), timeout=30)
        waiting.request("DELETE", "/models/slow")
        assert server.is_live()  # what came before this is in the server's hands
        assert server.stop() == 0
        answer = waiting.getresponse()
        assert (answer.status, json.loads(answer.read())["outcome"]) == (503, "not-committed")

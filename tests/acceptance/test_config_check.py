"""What `mms config check` says of a configuration, and that a boot says the same: through the real command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.running import ECHO, RunningServer, free_port, make_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_model(tmp_path / "models", "Echo-v1.0", ECHO)
    return tmp_path


def mms(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MMS_")}
    locations = {"LOG_LOCATION": str(folder / "logs"), "METRICS_LOCATION": str(folder / "logs")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "mms", *arguments],
        env={**environment, **locations, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


def write(folder: Path, text: str) -> Path:
    file = folder / "here.properties"
    file.write_text(f"model_store={folder / 'models'}\n{text}")
    return file


def test_a_good_configuration_is_in_order(folder: Path) -> None:
    file = write(folder, "load_models=Echo-v1.0\nEcho-v1.0.batch_size=4\nmax_batch_delay=20\n")

    run = mms(folder, "config", "check", "--config", str(file))

    assert (run.returncode, run.stdout, run.stderr) == (0, "The configuration is in order.\n", "")


def test_every_finding_names_its_file_and_line_and_a_boot_says_the_same_and_exits_2(folder: Path) -> None:
    make_model(folder / "models", "echo_v1.0", ECHO)
    (folder / "models" / "Echo-v1.0.properties").write_text("# its own\nbatch_delay=3\n")
    file = write(
        folder,
        "enable_envvars_config=true\n"
        "load_models=Echo-v1.0,echo_v1.0,other\n"
        "job_que_size=5\n"
        "Echo-v1.0.batch_sizes=2\n"
        "Echo-v1.0.batch_size=many\n"
        "response_timeout=-1\n",
    )
    store = folder / "models"
    expected = [
        f'error: Invalid configuration: response_timeout must be a number from 0.001 to 2147483647, not "-1" ({file}:7).',
        'error: Invalid configuration: MMS_BATCH_SIZE must be a whole number from 1 to 65536, not "0".',
        f'error: Invalid configuration: Echo-v1.0.batch_size must be a whole number from 1 to 65536, not "many" ({file}:6).',
        (
            "error: Invalid configuration: the models Echo-v1.0 and echo_v1.0 share the variables"
            f" MMS_MODEL__ECHO_V1_0__...; rename one of them. ({file}:3)"
        ),
        f"warning: Unknown key job_que_size. Did you mean job_queue_size? ({file}:4)",
        f"warning: Unknown key Echo-v1.0.batch_sizes. Did you mean Echo-v1.0.batch_size? ({file}:5)",
        f"warning: Unknown key batch_delay. Did you mean max_batch_delay? ({store}/Echo-v1.0.properties:2)",
        "warning: Unknown variable MMS_JOB_QUEUE. Did you mean MMS_JOB_QUEUE_SIZE?",
        f"warning: load_models names other, which is not in the model store {store}. ({file}:3)",
    ]
    variables = {"MMS_BATCH_SIZE": "0", "MMS_JOB_QUEUE": "1"}

    check = mms(folder, "config", "check", "--config", str(file), **variables)
    assert check.returncode == 2
    assert sorted(check.stdout.splitlines()) == sorted(expected)

    boot = mms(folder, "serve", "--config", str(file), **variables)
    assert boot.returncode == 2
    assert sorted(boot.stderr.splitlines()) == sorted(line.removeprefix("error: ") for line in expected)
    assert not (folder / "mms-data").exists()  # nothing was begun


def test_models_registered_under_their_archives_own_names_are_looked_at(folder: Path) -> None:
    shutil.copytree(folder / "models" / "Echo-v1.0", folder / "models" / "another")
    manifest = folder / "models" / "another" / "MAR-INF" / "MANIFEST.json"
    manifest.write_text(manifest.read_text().replace("Echo-v1.0", "Echo.v1-0"))
    file = write(folder, "enable_envvars_config=true\nload_models=ALL\n")

    for command in (["config", "check"], ["serve"]):
        run = mms(folder, *command, "--config", str(file))
        assert run.returncode == 2
        assert (
            "the models Echo-v1.0 and Echo.v1-0 share the variables MMS_MODEL__ECHO_V1_0__" in run.stdout + run.stderr
        )


def test_a_boot_with_unknown_keys_warns_and_serves(folder: Path) -> None:
    with RunningServer(folder, config={"load_models": "Echo-v1.0", "job_que_size": 5, "vmargs": "-Xmx1g"}) as server:
        server.start()

        assert server.predict("Echo-v1.0", "x").text == "Echo-v1.0:x"
        place = f"{folder}/config.properties"
        warned = [line for line in server.log().splitlines() if "[mms.config]" in line]
        assert [line.partition("[")[2].partition("]")[0].strip() for line in warned] == ["warning", "info"]
        assert f"Unknown key job_que_size. Did you mean job_queue_size? ({place}:5)" in warned[0]
        assert f"vmargs has no effect: it is a setting of the Java server. ({place}:6)" in warned[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["config", "check", "--config", "gone.properties"], "--config file not found: gone.properties\n"),
        (["serve", "--config", "gone.properties"], "--config file not found: gone.properties\n"),
        (["serve", "--recover", "--clean-start"], "--recover and --clean-start cannot be given together"),
        (["serve", "--management-address", "8081"], "Invalid configuration: Invalid binding address: 8081"),
    ],
)
def test_what_the_command_line_itself_says_wrong_is_one_line_and_exit_2(
    folder: Path, arguments: list[str], message: str
) -> None:
    run = mms(folder, *arguments)

    assert run.returncode == 2
    assert run.stderr.startswith(message)
    assert run.stderr.count("\n") == 1


def test_an_environment_that_is_not_switched_on_is_not_looked_at(folder: Path) -> None:
    file = write(folder, f"inference_address=http://127.0.0.1:{free_port()}\n")

    run = mms(folder, "config", "check", "--config", str(file), MMS_BATCH_SIZE="0")

    assert (run.returncode, run.stdout) == (0, "The configuration is in order.\n")

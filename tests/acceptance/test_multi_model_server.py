"""`multi-model-server` as an operator's scripts type it: start, stop, foreground, PID file, flags, SageMaker's configuration."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.acceptance.running import ECHO, free_port, make_model, wait_until

pytestmark = pytest.mark.slow

COMMAND = Path(sys.executable).parent / "multi-model-server"
RUNNING = "Model server is already running, please use multi-model-server --stop to stop MMS.\n"
SLOW = """
import pathlib, time

def handle(data, context):
    if data:
        pathlib.Path({begun!r}).touch()
        time.sleep(1.5)
    return ["late"]
"""


class Machine:
    """A folder to type commands in, with a folder for temporary files of its own: so one machine, as the PID file sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = folder / "models"
        self.temporary = folder / "tmp"
        self.models.mkdir()
        self.temporary.mkdir()
        self.pid_file = self.temporary / ".model_server.pid"
        self.port = free_port()
        self.management = free_port()
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("MMS_")}
        self.environment["TMPDIR"] = str(self.temporary)
        self.configure()

    def configure(self, *lines: str) -> None:
        own = (
            f"inference_address=http://127.0.0.1:{self.port}",
            f"management_address=http://127.0.0.1:{self.management}",
        )
        (self.folder / "config.properties").write_text("\n".join((*own, *lines, "")))

    def type(self, *words: str, seconds: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Type a command; its output goes to files, as a server in the background keeps it open."""
        with (self.folder / "out").open("w+") as out, (self.folder / "err").open("w+") as err:
            done = subprocess.run(
                [COMMAND, *words], cwd=self.folder, env=self.environment, stdout=out, stderr=err, timeout=seconds
            )
        out_text, err_text = (self.folder / "out").read_text(), (self.folder / "err").read_text()
        return subprocess.CompletedProcess(words, done.returncode, out_text, err_text)

    def foreground(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / "server.log").open("ab") as log:
            server = subprocess.Popen(
                [COMMAND, "--foreground", *words], cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )
        wait_until(lambda: self.ready() or server.poll() is not None, what="ready")
        assert server.poll() is None, (self.folder / "server.log").read_text()
        return server

    def get(self, path: str, method: str = "GET", management: bool = True) -> httpx.Response:
        port = self.management if management else self.port
        return httpx.request(method, f"http://127.0.0.1:{port}{path}", timeout=30, trust_env=False)

    def ready(self) -> bool:
        with suppress(httpx.TransportError):
            return self.get("/readyz").status_code == 200
        return False

    def named(self) -> int:
        return int(self.pid_file.read_text().splitlines()[0])


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    for process in psutil.process_iter(["environ"]):  # whatever a test left running there
        if (process.info["environ"] or {}).get("TMPDIR") == str(made.temporary):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def start(machine: Machine, *words: str) -> subprocess.CompletedProcess[str]:
    done = machine.type(*words)
    assert done.returncode == 0, done.stderr
    wait_until(machine.ready, what="ready")
    return done


def ended(pid: int) -> bool:
    """It runs no more; it may be that nobody has collected it, where the machine's first process does not."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def test_start_returns_at_once_and_the_server_goes_on_in_a_session_of_its_own(machine: Machine) -> None:
    make_model(machine.models, "slow", "import time\ntime.sleep(4)\n" + ECHO)
    began = time.monotonic()
    done = machine.type("--start", "--mms-config", "config.properties", "--model-store", "models", "--models", "slow")

    assert (done.returncode, done.stdout) == (0, "")
    assert time.monotonic() - began < 4
    assert not machine.ready()
    wait_until(machine.ready, what="ready")
    assert machine.get("/predictions/slow", "POST", management=False).text == "slow:"
    assert os.getsid(machine.named()) == machine.named()


def test_without_a_verb_it_starts_and_a_second_start_is_refused(machine: Machine) -> None:
    start(machine, "--model-store", "models")
    first = machine.named()
    again = machine.type("--start")

    assert (again.returncode, again.stdout, again.stderr) == (1, RUNNING, "")
    assert machine.named() == first
    assert psutil.pid_exists(first)


def test_a_stop_waits_for_the_answers_and_for_the_clean_mark(machine: Machine) -> None:
    begun = machine.folder / "begun"
    make_model(machine.models, "slow", SLOW.format(begun=str(begun)))
    start(machine, "--model-store", "models", "--models", "slow")
    assert machine.get("/models/slow?min_worker=1&synchronous=true", "PUT").status_code == 200
    pid = machine.named()
    with subprocess.Popen(
        ["curl", "-sS", "-X", "POST", f"http://127.0.0.1:{machine.port}/predictions/slow"], stdout=subprocess.PIPE
    ) as client:
        wait_until(begun.exists, what="the prediction")
        began = time.monotonic()
        stopped = machine.type("--stop")
        answer = client.communicate(timeout=10)[0]

    assert (stopped.returncode, stopped.stdout) == (0, "Model server stopped.\n")
    assert answer == b"late"
    assert time.monotonic() - began > 0.5
    assert ended(pid)
    assert not machine.pid_file.exists()
    start(machine, "--model-store", "models")
    assert machine.get("/recovery").json()["decision"] == "MANIFEST"


def test_what_was_registered_comes_back_with_recover_and_is_gone_with_clean_start(machine: Machine) -> None:
    make_model(machine.models, "echo", ECHO)
    start(machine, "--model-store", "models")
    assert machine.get("/models?url=echo&initial_workers=1&synchronous=true", "POST").status_code == 200
    os.kill(machine.named(), signal.SIGKILL)
    wait_until(lambda: not machine.ready())

    restarted = start(machine, "--model-store", "models")
    assert restarted.stdout == "Removing orphan pid file.\n"
    assert machine.get("/predictions/echo", "POST", management=False).text == "echo:"
    machine.type("--stop")
    start(machine, "--start", "--recover", "--model-store", "models")
    assert machine.get("/predictions/echo", "POST", management=False).text == "echo:"
    machine.type("--stop")
    start(machine, "--clean-start", "--model-store", "models")
    assert machine.get("/models/echo").status_code == 404


def test_a_stop_with_nothing_to_stop_says_so_and_is_no_failure(machine: Machine) -> None:
    done = machine.type("--stop")

    assert (done.returncode, done.stdout) == (0, "Model server is not currently running.\n")


def test_of_two_starts_at_once_one_becomes_the_server_and_can_be_stopped(machine: Machine) -> None:
    command = [COMMAND, "--start", "--model-store", "models"]
    where = {"cwd": machine.folder, "env": machine.environment, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(command, **where) as one, subprocess.Popen(command, **where) as other:
        assert {one.wait(30), other.wait(30)} <= {0, 1}
    wait_until(machine.ready, what="ready")
    assert machine.type("--stop").stdout == "Model server stopped.\n"
    wait_until(lambda: not machine.ready())
    assert not machine.pid_file.exists()


def test_a_number_that_is_now_another_process_is_never_signalled(machine: Machine) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        for content in (f"{stranger.pid}\n1\n", f"{stranger.pid}\n", f"{stranger.pid}", "rubbish", ""):
            machine.pid_file.write_text(content)
            done = machine.type("--stop")
            assert (done.returncode, done.stdout) == (0, "Model server already stopped.\n"), content
            assert not machine.pid_file.exists()
        machine.pid_file.write_text(f"{stranger.pid}\n")
        assert start(machine, "--model-store", "models").stdout == "Removing orphan pid file.\n"
        assert machine.named() != stranger.pid
        assert stranger.poll() is None
        stranger.kill()


def test_the_java_server_is_known_by_its_command_line_and_can_be_stopped(machine: Machine) -> None:
    """Its PID file holds a number alone; operators who change over in place have no other command left to stop it with."""
    java = ["bash", "-c", "sleep 61 & wait", "java", "com.amazonaws.ml.mms.ModelServer"]
    with subprocess.Popen(java) as server:
        worker = wait_until(lambda: psutil.Process(server.pid).children())[0]
        machine.pid_file.write_text(str(server.pid))
        refused = machine.type("--start", "--model-store", "models")
        assert (refused.returncode, refused.stdout) == (1, RUNNING)
        stopped = machine.type("--stop")
        assert (stopped.returncode, stopped.stdout) == (0, "Model server stopped.\n")
        server.wait(5)
    assert ended(worker.pid)
    assert not machine.pid_file.exists()


def test_a_server_that_has_ended_and_was_not_collected_counts_as_ended(machine: Machine) -> None:
    server = machine.foreground("--model-store", "models")
    content = machine.pid_file.read_text()
    server.kill()
    wait_until(lambda: psutil.Process(server.pid).status() == psutil.STATUS_ZOMBIE)
    machine.pid_file.write_text(content)

    assert machine.type("--stop").stdout == "Model server already stopped.\n"
    server.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")
def test_a_file_that_another_user_wrote_names_none_of_our_processes(machine: Machine) -> None:
    server = machine.foreground("--model-store", "models")
    os.chown(machine.pid_file, 12345, 12345)

    assert machine.type("--stop").stdout == "Model server already stopped.\n"
    assert server.poll() is None
    server.terminate()
    server.wait(10)


def test_a_server_in_the_foreground_has_a_pid_file_while_it_runs_and_ends_with_0_on_sigterm(machine: Machine) -> None:
    server = machine.foreground("--model-store", "models")

    assert machine.named() == server.pid
    server.terminate()
    assert server.wait(15) == 0
    assert not machine.pid_file.exists()


def test_a_server_in_the_foreground_can_be_stopped_from_elsewhere(machine: Machine) -> None:
    server = machine.foreground("--model-store", "models")

    assert machine.type("--stop").stdout == "Model server stopped.\n"
    assert server.wait(1) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mms-config", "gone.properties"], "--mms-config file not found: gone.properties\n"),
        (["--model-store", "gone"], "--model-store directory not found: "),
        (["--log-config", "gone.ini"], "--log-config file not found: "),
        (["--models", "m.mar"], "--model-store is required to load model locally.\n"),
        (["--mms-config", "sagemaker"], "Invalid configuration: Invalid Environment Variable SAGEMAKER_"),
    ],
)
@pytest.mark.parametrize("place", [[], ["--foreground"]], ids=["background", "foreground"])
def test_what_cannot_be_started_is_said_as_mms_says_it_with_exit_status_1(
    machine: Machine, words: list[str], message: str, place: list[str]
) -> None:
    done = machine.type(*place, *words)

    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert said.startswith(message)
    assert "Traceback" not in said
    assert not machine.pid_file.exists()


def test_models_are_taken_with_names_and_without(machine: Machine) -> None:
    for name in ("one", "two", "three"):
        make_model(machine.models, name, ECHO)
    start(machine, "--model-store", "models", "--models", "one", "renamed=two")

    assert [model["modelName"] for model in machine.get("/models").json()["models"]] == ["one", "renamed"]


def test_a_python_logging_file_decides_where_the_log_goes_and_a_log4j_file_is_refused_by_name(machine: Machine) -> None:
    (machine.folder / "log4j2.xml").write_text("<Configuration/>")
    refused = machine.type("--foreground", "--model-store", "models", "--log-config", "log4j2.xml")
    assert refused.returncode == 1
    assert "log4j2.xml is not a Python logging configuration file (log4j files are not read)" in refused.stderr
    (machine.folder / "logging.ini").write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=file\n[formatters]\nkeys=\n"
        "[logger_root]\nlevel=INFO\nhandlers=file\n[handler_file]\nclass=FileHandler\nargs=('own.log',)\n"
    )
    start(machine, "--model-store", "models", "--log-config", "logging.ini")

    assert "Model server started." in (machine.folder / "own.log").read_text()


def test_the_built_in_configuration_of_sagemaker_takes_everything_from_its_variables(machine: Machine) -> None:
    make_model(machine.models, "plain", ECHO)
    (machine.models / "plain" / "MAR-INF" / "MANIFEST.json").write_text(
        '{"runtime": "python", "model": {"modelName": "plain", "maxBatchDelay": 7}}'
    )
    machine.environment |= {
        "SAGEMAKER_BIND_TO_PORT": str(machine.port),
        "SAGEMAKER_MODEL_STORE": "/",  # models are registered there by absolute paths, whatever the store
        "SAGEMAKER_HANDLER": "service:handle",
        "SAGEMAKER_NUM_MODEL_WORKERS": "2",
        "SAGEMAKER_RESPONSE_TIMEOUT": "55",
        "SAGEMAKER_MAX_REQUEST_SIZE": "1000",
        "SAGEMAKER_MAX_RESPONSE_SIZE": "2000",
        "SAGEMAKER_PRELOAD_MODEL": "false",
    }
    machine.management = machine.port  # one port for everything
    start(machine, "--start", "--mms-config", "sagemaker")
    register = f"/models?url={machine.models}/plain&model_name=plain"
    registered = machine.get(register, "POST")

    assert (registered.status_code, registered.json()) == (200, {"status": "Workers scaled"})
    assert machine.get(register, "POST").status_code == 409
    assert machine.get("/models/plain/invoke", "POST").text == "plain:"
    assert len(machine.get("/models/plain").json()["workers"]) == 2
    settings = machine.get("/models/plain/settings").json()["settings"]
    values = {name: settings[name]["value"] for name in ("response_timeout", "max_request_size", "max_batch_delay")}
    assert values == {"response_timeout": 55, "max_request_size": 1000, "max_batch_delay": 7}
    assert machine.get("/models/plain", "DELETE").json() == {"status": 'Model "plain" unregistered'}

"""A real server in a process of its own, as an operator runs it: started, asked over HTTP, stopped or killed."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx
import psutil

READY_WITHIN = 60.0  # seconds
STOPPED_WITHIN = 30.0
POLL = 0.02

Answer = TypeVar("Answer")


def free_port() -> int:
    """A free port below the range that the system hands out to clients."""
    while True:
        port = random.SystemRandom().randrange(15_000, 31_000)  # hypothesis seeds the other one
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(question: Callable[[], Answer], *, seconds: float = 30.0, what: str = "the event") -> Answer:
    """Ask until the answer is truthy; fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {seconds} s")
        time.sleep(POLL)
    return answer


class EndedOnItsOwn(AssertionError):
    """The server was gone before it was asked: a failure wherever its end was not what the test waits for."""


class RunningServer:
    """One server with its folder: configuration, model store, data and log. Ends with the `with` block, however it goes."""

    def __init__(
        self, folder: Path, *, config: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.models = folder / "models"
        self.log_file = folder / "server.log"
        self.models.mkdir(parents=True, exist_ok=True)
        self.inference_url = f"http://127.0.0.1:{free_port()}"
        self.management_url = f"http://127.0.0.1:{free_port()}"
        self.config: dict[str, object] = {
            "inference_address": self.inference_url,
            "management_address": self.management_url,
            "model_store": self.models,
            **(config or {}),
        }
        self.environment = dict(environment or {})
        self.wrapper: tuple[str, ...] = ()  # a command that runs the server's, such as unshare
        self.process: subprocess.Popen[bytes] | None = None
        self._http = httpx.Client(timeout=60, trust_env=False)

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()
        if self.process is not None and self.process.poll() is None:
            self.kill()
        if error is not None:
            error.add_note(self.log())

    # --- life --------------------------------------------------------------------------------------------------------

    def launch(self, *flags: str) -> RunningServer:
        """Start the process; returns at once."""
        self._http.close()
        self._http = httpx.Client(timeout=60, trust_env=False)  # connections of an earlier life are dead
        file = self.folder / "config.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in self.config.items()))
        command = [*self.wrapper, sys.executable, "-P", "-m", "mms", "serve", "--config", str(file), *flags]
        # Without compiled modules each start would compile them anew, which no operator's does.
        foreign = ("MMS_", "PYTHONDONTWRITEBYTECODE")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        environment |= {"LOG_LOCATION": str(self.folder / "logs"), "METRICS_LOCATION": str(self.folder / "logs")}
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**environment, **self.environment}, cwd=self.folder
            )
        return self

    def start(self, *flags: str) -> RunningServer:
        """Start it and wait until it is ready."""
        self.launch(*flags)
        try:
            wait_until(self.is_ready, seconds=READY_WITHIN, what="ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None
        return self

    def is_ready(self) -> bool:
        """Ask /readyz; a process that has ended fails the test with its log."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode} while starting")
        with suppress(httpx.TransportError):
            return self.manage("GET", "/readyz").status_code == 200
        return False

    def is_live(self) -> bool:
        """Ask /livez: the ports are open, whatever is still to be loaded."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode} while starting")
        with suppress(httpx.TransportError):
            return self.manage("GET", "/livez").status_code == 200
        return False

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def children(self) -> list[psutil.Process]:
        """All processes below the server."""
        return psutil.Process(self.pid).children(recursive=True)

    def kill(self) -> None:
        """SIGKILL the server process alone, and wait for it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOPPED_WITHIN)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOPPED_WITHIN)

    def exit_code(self, seconds: float = 30.0) -> int:
        """Wait for an end that comes by itself."""
        assert self.process is not None
        return self.process.wait(seconds)

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    # --- HTTP --------------------------------------------------------------------------------------------------------

    def manage(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Ask the management port; a server that is gone fails the test with its last words."""
        try:
            return self._http.request(method, self.management_url + path, **request)
        except httpx.ConnectError as error:
            ended = self.process.poll() if self.process is not None else None
            if ended is None:
                raise
            raise EndedOnItsOwn(f"the server ended with {ended} on its own\n{self.log()[-4000:]}") from error

    def infer(self, method: str, path: str, **request: Any) -> httpx.Response:
        return self._http.request(method, self.inference_url + path, **request)

    def predict(self, model: str, content: bytes | str = b"x", **request: Any) -> httpx.Response:
        return self.infer("POST", f"/predictions/{model}", content=content, **request)

    def recovery(self) -> dict[str, Any]:
        answer = self.manage("GET", "/recovery")
        assert answer.status_code == 200, answer.text
        report: dict[str, Any] = answer.json()
        return report

    def outcomes(self) -> dict[str, str]:
        """Model name to outcome, as /recovery tells it."""
        return {model["modelName"]: model["outcome"] for model in self.recovery()["models"]}

    def model_names(self) -> list[str]:
        return [model["modelName"] for model in self.manage("GET", "/models").json()["models"]]


def make_model(store: Path, name: str, source: str, *, model: Mapping[str, Any] | None = None) -> Path:
    """A directory archive with one handler module; `model` are further keys of the manifest's model section."""
    import json

    folder = store / name
    (folder / "MAR-INF").mkdir(parents=True)
    manifest = {"runtime": "python", "model": {"modelName": name, "handler": "service:handle", **(model or {})}}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (folder / "service.py").write_text(source)
    return folder


ECHO = """
def handle(data, context):
    if data is None:
        return None
    return [f"{context.model_name}:{bytes(row['body']).decode()}" if not isinstance(row["body"], str)
            else f"{context.model_name}:{row['body']}" for row in data]
"""

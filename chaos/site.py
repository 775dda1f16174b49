"""A server under attack: its folder, its models with outputs of their own, its database, and the questions it is asked."""

from __future__ import annotations

import io
import json
import random
import signal
import socket
import time
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from chaos.checker import States
from chaos.violation import Violation
from tests.acceptance.running import ECHO, RunningServer, make_model

CONFIGURED = "base"
"""The start-up model, which the configuration names."""
MODELS = (CONFIGURED, "alder", "beech", "cedar", "damson")
_ARCHIVED = ("cedar", "damson")  # as .mar files; the others are folders
BOOT_WITHIN = 60.0
_ports = range(15_000, 31_000)


def use_ports_of(job: int) -> None:
    """Let all servers of this process take their ports from a range of its own: between two lives a port looks free."""
    global _ports
    _ports = range(15_000 + 500 * job, 15_500 + 500 * job)


class Site(RunningServer):
    """A real server process with its folder; what it prints, keeps and answers stays there for whoever looks into a violation."""

    def __init__(
        self,
        folder: Path,
        *,
        store_url: str | None = None,
        config: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        store = {} if store_url is None else {"store_url": store_url, "store_lock_wait": 20}
        addresses = {f"{each}_address": f"http://127.0.0.1:{_free_port()}" for each in ("inference", "management")}
        super().__init__(
            folder,
            config={**addresses, "load_models": CONFIGURED, "default_workers_per_model": 1, **store, **(config or {})},
            environment={"TMPDIR": str(self.temporary), **(environment or {})},
        )
        self.inference_url, self.management_url = addresses["inference_address"], addresses["management_address"]
        for name in MODELS:
            if name in _ARCHIVED:
                (self.models / f"{name}.mar").write_bytes(archive(name, ECHO))
            else:
                make_model(self.models, name, ECHO)

    @property
    def data(self) -> Path:
        """Where the store and the witness of an SQLite server are."""
        return Path(str(self.config.get("data_dir", self.folder / "mms-data")))

    def manage(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Ask the management port; a server that has ended is a TransportError, since here its end may be what is wanted."""
        return self._http.request(method, self.management_url + path, **request)

    def term(self) -> None:
        """Ask it to stop; returns at once. A command that runs the server does not pass signals on."""
        assert self.process is not None
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if self.wrapper:
                for child in psutil.Process(self.pid).children():
                    child.send_signal(signal.SIGTERM)
            else:
                self.process.send_signal(signal.SIGTERM)

    def gone(self, seconds: float = 30.0) -> int:
        """Wait for its end; a server that outlives the deadline is a violation."""
        assert self.process is not None
        until(lambda: self.process is not None and self.process.poll() is not None, seconds, "the end of the server")
        return self.process.returncode

    def wait_complete(self, seconds: float = BOOT_WITHIN) -> dict[str, Any]:
        """Wait until the boot has tried every model; returns what /recovery says."""
        until(self.is_complete, seconds, "the end of the recovery")
        return self.recovery()

    def is_complete(self) -> bool:
        """Whether the boot has tried every model; an end of the process is a violation."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise Violation(f"the server ended with {self.process.returncode} instead of recovering")
        with suppress(httpx.TransportError):
            answer = self.manage("GET", "/recovery")
            return answer.status_code == 200 and answer.json()["state"] == "complete"
        return False

    def is_listening(self) -> bool:
        """Whether the management port takes connections, however busy the server is."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", urlsplit(self.management_url).port or 0)) == 0

    def states(self) -> States:
        """What the server says of every model: its overrides."""
        found: dict[str, Mapping[str, Any]] = {}
        for model in self.manage("GET", "/models?limit=100").json()["models"]:
            name = model["modelName"]
            answer = self.manage("GET", f"/models/{name}/settings")
            if answer.status_code != 200:
                raise Violation(f"the settings of {name}, which is listed, answer {answer.status_code}: {answer.text}")
            settings = answer.json()["settings"]
            found[name] = {option: one["value"] for option, one in settings.items() if one["source"] == "api"}
        return found

    def wrong_answers(self, states: States) -> list[str]:
        """Every model answers with its own output, and every other one not at all."""
        found = []
        for name in MODELS:
            answer = self.predict(name, "ask")
            if states.get(name) is None and answer.status_code != 404:
                found.append(f"{name} is not registered and answers {answer.status_code}: {answer.text[:200]}")
            if states.get(name) is not None and (answer.status_code, answer.text) != (200, f"{name}:ask"):
                found.append(f"{name} answers {answer.status_code}: {answer.text[:200]}")
        return found


def _free_port() -> int:
    while True:
        port = random.SystemRandom().choice(_ports)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def archive(name: str, source: str) -> bytes:
    """A packed model archive with one handler module."""
    manifest = {"runtime": "python", "model": {"modelName": name, "handler": "service:handle"}}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        packed.writestr("service.py", source)
    return buffer.getvalue()


def until(question: Callable[[], object], seconds: float, what: str) -> None:
    """Ask until the answer is truthy; past the deadline that is a violation."""
    deadline = time.monotonic() + seconds
    while not question():
        if time.monotonic() > deadline:
            raise Violation(f"{what} did not come within {seconds:g} s")
        time.sleep(0.02)


def package_folder() -> Path:
    """The checkout that is under test."""
    return Path(__file__).resolve().parent.parent

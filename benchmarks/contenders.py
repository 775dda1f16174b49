"""The servers that are compared: how each is started with one workload, where it is asked, and how it ends."""

from __future__ import annotations

import compileall
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode

import httpx

import mms
from benchmarks import processes
from benchmarks.environments import Environment
from benchmarks.workloads import SERVED, Material, Workload

READY_WITHIN = 90.0  # seconds
POLL = 0.005


def free_port() -> int:
    """A free port below the range that the system hands out to clients."""
    while True:
        port = random.randrange(15_000, 31_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Running:
    """A started server: its process, its folder and the URLs of its models."""

    def __init__(self, folder: Path, command: list[str], environment: dict[str, str]) -> None:
        self.folder = folder
        self._command = command
        self._environment = environment
        self._process: subprocess.Popen[bytes]
        self._http = httpx.Client(timeout=60, trust_env=False)
        self.launch()

    def launch(self) -> None:
        """Start the process (again)."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self.folder, env=self._environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    @property
    def pid(self) -> int:
        """Of the process at the head of the tree."""
        return self._process.pid

    def log(self) -> str:
        """The end of what it said."""
        return "\n".join((self.folder / "server.log").read_text(errors="replace").splitlines()[-30:])

    def ask(self, method: str, url: str, **request: object) -> httpx.Response | None:
        """One request; None where nobody listens yet. Raises SystemExit where the server has ended."""
        if self._process.poll() is not None:
            raise SystemExit(f"{self._command[0]} ended with {self._process.returncode}\n{self.log()}")
        try:
            return self._http.request(method, url, **request)  # type: ignore[arg-type]
        except httpx.TransportError:
            return None

    def wait(self, method: str, url: str, **request: object) -> httpx.Response:
        """Ask until the answer is 200."""
        deadline = time.monotonic() + READY_WITHIN
        while True:
            answer = self.ask(method, url, **request)
            if answer is not None and answer.status_code == 200:
                return answer
            refused = answer is not None and 400 <= answer.status_code < 500
            if refused or time.monotonic() > deadline:
                raise SystemExit(f"{url} does not answer: {answer and answer.text}\n{self.log()}")
            time.sleep(POLL)

    def kill(self) -> None:
        """SIGKILL the head alone and wait for it."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Nothing of it is left."""
        processes.end(self._process.pid)
        self._process.wait()
        self._http.close()


class Contender(ABC):
    """A kind of server."""

    name: str
    version: str

    def prepare(self) -> None:  # noqa: B027 - most need nothing
        """Install what it needs."""

    @abstractmethod
    def start(self, folder: Path, material: Material, workload: Workload) -> tuple[Running, str]:
        """Serve the workload; returns when it can be asked at the URL."""


def clean_environment(folder: Path) -> dict[str, str]:
    """The caller's, less what would configure a server, with temporary files and logs in the server's own folder."""
    foreign = ("MMS_", "LOG_", "METRICS_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    temporary = folder / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return {
        **kept,
        "TMPDIR": str(temporary),
        "LOG_LOCATION": str(folder / "logs"),
        "METRICS_LOCATION": str(folder / "logs"),
    }


def peer_environment(folder: Path) -> dict[str, str]:
    """The same for a server with a Python of its own, where this project's modules must not be found."""
    return {name: value for name, value in clean_environment(folder).items() if not name.startswith("PYTHON")}


class _ModelServer(Contender):
    """What this server and multi-model-server have in common: configuration file and management API."""

    def configure(self, folder: Path, models: Path, extra: str = "") -> tuple[str, str, Path]:
        """Write the configuration; returns both URLs and the file."""
        folder.mkdir(parents=True)
        inference, management = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        file = folder / "config.properties"
        file.write_text(
            f"inference_address={inference}\nmanagement_address={management}\nmodel_store={models}\n{extra}"
        )
        return inference, management, file

    def start(self, folder: Path, material: Material, workload: Workload) -> tuple[Running, str]:
        """See Contender: the model is registered through the management API, as an operator would."""
        inference, management, file = self.configure(folder, material.archives)
        running = self.launch(folder, file, material.archives)
        running.wait("GET", f"{inference}/ping")
        wish = {
            "url": workload.model,
            "batch_size": workload.batch_size,
            "max_batch_delay": workload.delay_ms,
            "initial_workers": workload.workers,
            "synchronous": "true",
        }
        running.wait("POST", f"{management}/models?{urlencode(wish)}")
        return running, f"{inference}/predictions/{workload.model}"

    @abstractmethod
    def launch(self, folder: Path, config: Path, models: Path) -> Running:
        """Start the server on this configuration."""


class Ours(_ModelServer):
    """This server, as shipped."""

    name = "mms"
    version = f"mms {mms.__version__}"

    def prepare(self) -> None:
        """Compile its modules, as pip does for whoever installs them: a checkout may hold sources alone."""
        if not compileall.compile_dir(Path(mms.__file__).parent, quiet=1):
            raise SystemExit("the server's modules could not be compiled")

    def command(self, config: Path) -> list[str]:
        """What an operator types."""
        return [sys.executable, "-P", "-m", "mms", "serve", "--config", str(config)]

    def launch(self, folder: Path, config: Path, models: Path) -> Running:
        """See above."""
        return Running(folder, self.command(config), clean_environment(folder))


class MultiModelServer(_ModelServer):
    """AWS multi-model-server, as shipped; needs java."""

    name = "multi-model-server"

    def __init__(self) -> None:
        self._environment = Environment(self.name)
        self.version = self._environment.versions

    def prepare(self) -> None:
        """See Contender."""
        if shutil.which("java") is None:
            raise SystemExit("multi-model-server needs java; leave it out with --peers")
        self._environment.ensure()

    def launch(self, folder: Path, config: Path, models: Path) -> Running:
        """See above."""
        scripts = self._environment.scripts
        command = [
            *(str(scripts / "multi-model-server"), "--start", "--foreground"),
            *("--mms-config", str(config), "--model-store", str(models)),
        ]
        environment = peer_environment(folder)
        return Running(folder, command, {**environment, "PATH": f"{scripts}{os.pathsep}{environment['PATH']}"})


class Mosec(Contender):
    """mosec, with its HTTP front end in Rust."""

    name = "mosec"

    def __init__(self) -> None:
        self._environment = Environment(self.name)
        self.version = self._environment.versions

    def prepare(self) -> None:
        """See Contender."""
        self._environment.ensure()

    def start(self, folder: Path, material: Material, workload: Workload) -> tuple[Running, str]:
        """See Contender."""
        running, port = self.launch(folder, material, workload)
        url = f"http://127.0.0.1:{port}/inference"
        body = material.body(workload.model).read_bytes()
        running.wait("POST", url, content=body)
        return running, url

    def launch(self, folder: Path, material: Material, workload: Workload, routes: int = 1) -> tuple[Running, int]:
        """Start it with one runtime for each route and return at once, with its port."""
        folder.mkdir(parents=True)
        port = free_port()
        python = str(self._environment.python)
        command = [python, str(SERVED / "mosec_app.py"), "--address", "127.0.0.1", "--port", str(port)]
        app = (workload.model, material.archive(workload.model), workload.batch_size, workload.delay_ms)
        environment = {"BENCH_APP": "\n".join(map(str, (*app, workload.workers, routes)))}
        return Running(folder, command, {**peer_environment(folder), **environment}), port


class TorchServe(_ModelServer):
    """TorchServe, as shipped but for its token authorisation; needs java."""

    name = "torchserve"

    def __init__(self) -> None:
        self._environment = Environment(self.name)
        self.version = self._environment.versions

    def prepare(self) -> None:
        """See Contender."""
        if shutil.which("java") is None:
            raise SystemExit("torchserve needs java; leave it out with --peers")
        self._environment.ensure()

    def configure(self, folder: Path, models: Path, extra: str = "") -> tuple[str, str, Path]:
        """With the ports that it has besides, and no token asked for."""
        metrics, *grpc = (free_port() for _ in range(3))
        own = f"metrics_address=http://127.0.0.1:{metrics}\ngrpc_inference_port={grpc[0]}\n"
        own += f"grpc_management_port={grpc[1]}\ndisable_token_authorization=true\nenable_model_api=true\n"
        return super().configure(folder, models, own + extra)

    def command(self, config: Path, models: Path) -> list[str]:
        """In the foreground, on a configuration or on one of its own snapshots."""
        program = str(self._environment.scripts / "torchserve")
        return [program, "--start", "--foreground", "--ts-config", str(config), "--model-store", str(models)]

    def launch(self, folder: Path, config: Path, models: Path) -> Running:
        """See above."""
        environment = peer_environment(folder)
        path = f"{self._environment.scripts}{os.pathsep}{environment['PATH']}"
        return Running(folder, self.command(config, models), {**environment, "PATH": path})

    @staticmethod
    def newest_snapshot(folder: Path) -> Path:
        """The file that it wrote after the last change."""
        return max((folder / "logs" / "config").glob("*.cfg"), key=lambda file: file.stat().st_mtime_ns)


Peer = type[Mosec] | type[MultiModelServer] | type[TorchServe]

PEERS: dict[str, Peer] = {one.name: one for one in (Mosec, MultiModelServer, TorchServe)}
DEFAULT_PEERS = (Mosec.name, MultiModelServer.name)
"""TorchServe is left out unless it is named: with torch it takes 5 GB of disk."""

"""A server of the demonstration's own: started, asked, stopped or killed, and what is left of it afterwards."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
READY_WITHIN = 60.0  # seconds
STOPPED_WITHIN = 30.0
POLL = 0.02


class ServerFailed(SystemExit):
    """The server did not start or did not stop; the message says which."""


class DemoServer:
    """One server, with its configuration, state and temporary files in one folder.

    With `log`, its output is appended there; without, it goes to the terminal.
    """

    def __init__(self, folder: Path, inference_port: int, management_port: int, *, log: Path | None = None) -> None:
        self.folder = folder
        self.inference = f"http://127.0.0.1:{inference_port}"
        self.management = f"http://127.0.0.1:{management_port}"
        self.ports = (inference_port, management_port)
        self.config = folder / "config.properties"
        self.temporary = folder / "tmp"
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.config.write_text(
            f"inference_address={self.inference}\nmanagement_address={self.management}\n"
            f"model_store={folder / 'models'}\ndata_dir={folder / 'mms-data'}\n"
        )

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self, *flags: str) -> None:
        """Start it and wait until it is ready."""
        command = [sys.executable, "-P", "-m", "mms", "serve", "--config", str(self.config), *flags]
        environment = {**os.environ, "TMPDIR": str(self.temporary), "LOG_LOCATION": str(self.folder / "logs")}
        environment["METRICS_LOCATION"] = environment["LOG_LOCATION"]
        output = self._log.open("ab") if self._log else None
        try:
            self._process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        finally:
            if output:
                output.close()
        self._wait_until_ready(time.monotonic() + READY_WITHIN)

    def _wait_until_ready(self, deadline: float) -> None:
        assert self._process is not None
        while True:
            if self._process.poll() is not None:
                raise ServerFailed(
                    f"the server ended with {self._process.returncode} while starting\n{self.log_tail()}"
                )
            with suppress(OSError):
                if self.manage("GET", "/readyz")[0] == 200:
                    return
            if time.monotonic() > deadline:
                raise ServerFailed(f"the server is not ready after {READY_WITHIN:.0f} s\n{self.log_tail()}")
            time.sleep(POLL)

    def manage(self, method: str, path: str) -> tuple[int, Any]:
        """Call the management API; returns the status and the decoded body."""
        return _call(method, self.management + path, None)

    def predict(self, model: str, content: bytes) -> tuple[int, Any]:
        """Send bytes to a model; returns the status and the decoded body."""
        return _call("POST", f"{self.inference}/predictions/{model}", content)

    def kill(self) -> None:
        """SIGKILL the server process alone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOPPED_WITHIN)

    def wait(self, seconds: float | None = None) -> int:
        """Wait for its end, however it comes; negative for a signal."""
        assert self._process is not None
        return self._process.wait(seconds)

    def stop_or_kill(self) -> int:
        """Make sure that it is gone; returns the exit code."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            try:
                return self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
        return int(self._process.returncode)

    def log_tail(self, lines: int = 40) -> str:
        """The end of its output, where it was kept."""
        if self._log is None or not self._log.exists():
            return ""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])


def _call(method: str, url: str, body: bytes | None) -> tuple[int, Any]:
    headers = {"Content-Type": "application/octet-stream"} if body is not None else {}
    request = urllib.request.Request(url, data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def free_port() -> int:
    """A port of this machine that nobody uses now, below those that the system hands out to clients."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def is_free(port: int) -> bool:
    """False where somebody listens on that port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@dataclass(frozen=True)
class Traces:
    """What a running server has on the machine: to be looked for once it is gone."""

    server: DemoServer
    processes: tuple[psutil.Process, ...]
    sockets: frozenset[str]
    shared_memory: frozenset[str]

    @classmethod
    def of(cls, server: DemoServer) -> Traces:
        """Everything that the server and its children hold now."""
        parent = psutil.Process(server.pid)
        processes = (parent, *parent.children(recursive=True))
        sockets: set[str] = set()
        shared: set[str] = set()
        for process in processes:
            sockets |= {connection.laddr for connection in process.net_connections(kind="unix") if connection.laddr}
            shared |= {mapped.path for mapped in process.memory_maps() if mapped.path.startswith("/dev/shm/")}
        return cls(server, processes, frozenset(sockets), frozenset(shared))

    def __str__(self) -> str:
        return f"its {len(self.processes)} processes, 2 ports, {len(self.sockets)} named sockets and temporary folders"

    def left_after(self, seconds: float) -> list[str]:
        """What is still there after at most that long; empty as soon as nothing is."""
        deadline = time.monotonic() + seconds
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(POLL)
        return left

    def _left(self) -> list[str]:
        left = [
            f"process {process.pid} ({' '.join(process.cmdline())})" for process in self.processes if _runs(process)
        ]
        left += [f"port {port}" for port in self.server.ports if not is_free(port)]
        named = {line.split(maxsplit=7)[7] for line in _unix_sockets() if len(line.split(maxsplit=7)) == 8}
        left += [f"socket {name}" for name in self.sockets if name in named or Path(name).exists()]
        left += [f"shared memory {path}" for path in self.shared_memory if Path(path).exists()]
        folders = (self.server.temporary, self.server.folder / "mms-data" / "tmp")
        left += [f"temporary {path}" for folder in folders if folder.exists() for path in folder.rglob("*")]
        return left


def _unix_sockets() -> list[str]:
    return Path("/proc/net/unix").read_text().splitlines()[1:]


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False

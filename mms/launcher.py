"""`multi-model-server`: MMS's own command line over this server; a PID file with proof of ownership, a stop that is clean."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mms.config.options import BY_NAME
from mms.errors import MmsError, UsageError
from mms.identity import start_ticks
from mms.usage import Parser

PID_FILE = ".model_server.pid"
ALREADY_RUNNING = "Model server is already running, please use multi-model-server --stop to stop MMS."
STOP_TIMEOUT = 60.0  # seconds: more than any sensible drain_timeout; past it the stop is said to be still under way


class Process(NamedTuple):
    """A process by number and start time: a number alone may meanwhile be another's."""

    pid: int
    ticks: int

    @property
    def alive(self) -> bool:
        """True where exactly this process still runs."""
        try:
            return start_ticks(self.pid) == self.ticks
        except ProcessLookupError:
            return False


def parser() -> argparse.ArgumentParser:
    """MMS's flags, and the two of recovery."""
    parse = Parser(prog="multi-model-server", description="Multi model server, with a memory.")
    verb = parse.add_mutually_exclusive_group()
    verb.add_argument("--start", action="store_true", help="Start the server (the default).")
    verb.add_argument("--stop", action="store_true", help="Stop the server that runs, cleanly, and wait for it.")
    parse.add_argument(
        "--mms-config", metavar="FILE", help="The file config.properties, or `sagemaker` for the built-in one."
    )
    parse.add_argument("--model-store", metavar="DIR", help=BY_NAME["model_store"].help)
    parse.add_argument("--models", metavar="[NAME=]URL", nargs="+", help=BY_NAME["load_models"].help)
    parse.add_argument("--log-config", metavar="FILE", help=BY_NAME["log_config"].help)
    parse.add_argument("--foreground", action="store_true", help="Stay in the foreground.")
    boot = parse.add_mutually_exclusive_group()
    boot.add_argument("--recover", action="store_true", help=BY_NAME["recover"].help)
    boot.add_argument("--clean-start", action="store_true", help=BY_NAME["clean_start"].help)
    return parse


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit code. Raises UsageError for what cannot be started."""
    arguments = parser().parse_args(list(argv))
    pid_file = Path(tempfile.gettempdir()) / PID_FILE
    if arguments.stop:
        return stop(pid_file)
    running = read_pid_file(pid_file)
    if running is not None and running.alive and running.pid != os.getpid():
        print(ALREADY_RUNNING)  # noqa: T201
        return 1
    if running is not None and running.pid != os.getpid():
        print("Removing orphan pid file.")  # noqa: T201
        pid_file.unlink(missing_ok=True)
    if not arguments.foreground:
        return start_in_background(argv, pid_file)
    return run_in_foreground(arguments, pid_file)


def run_in_foreground(arguments: argparse.Namespace, pid_file: Path) -> int:
    """Be the server; the PID file is there while it runs."""
    from mms.launch import run_server

    write_pid_file(pid_file, os.getpid())
    flags = {
        "model_store": arguments.model_store,
        "load_models": ",".join(arguments.models) if arguments.models else None,
        "log_config": arguments.log_config,
        "recover": arguments.recover,
        "clean_start": arguments.clean_start,
    }
    try:
        return run_server(arguments.mms_config, flags, config_flag="--mms-config")
    except UsageError as error:
        print(error.message, file=sys.stderr)  # noqa: T201
        return 1  # MMS's exit status for a start that cannot be
    finally:
        own = read_pid_file(pid_file)
        if own is not None and own.pid == os.getpid():
            pid_file.unlink(missing_ok=True)


def start_in_background(argv: Sequence[str], pid_file: Path) -> int:
    """Start the server in a session of its own and return at once, as MMS does; what is wrong with the flags is said first."""
    from mms.config.resolve import resolve_server
    from mms.config.sources import read_sources

    arguments = parser().parse_args(list(argv))
    try:
        flags = {"model_store": arguments.model_store, "log_config": arguments.log_config}
        if arguments.models:
            flags["load_models"] = ",".join(arguments.models)
        resolve_server(read_sources(config=arguments.mms_config, flags=flags))
    except MmsError as error:
        print(error.message, file=sys.stderr)  # noqa: T201
        return 1
    command = [sys.executable, "-P", "-m", "mms", "multi-model-server", *argv, "--foreground"]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    write_pid_file(pid_file, server.pid)
    return 0


def stop(pid_file: Path) -> int:
    """Ask the running server to stop and wait until it has; its clean-shutdown mark is then written."""
    process = read_pid_file(pid_file)
    if process is None:
        print("Model server is not currently running.")  # noqa: T201
        return 0
    if not process.alive:
        pid_file.unlink(missing_ok=True)
        print("Model server already stopped.")  # noqa: T201
        return 0
    try:
        # A handle on the process itself: its number cannot come to mean another one between the look and the signal.
        handle = os.pidfd_open(process.pid)
        if not process.alive:
            raise ProcessLookupError
        signal.pidfd_send_signal(handle, signal.SIGTERM)
    except ProcessLookupError:
        print("Model server already stopped.")  # noqa: T201
        return 0
    ended, _, _ = select.select([handle], [], [], STOP_TIMEOUT)
    os.close(handle)
    if not ended:
        print(f"Model server (pid {process.pid}) has not stopped within {STOP_TIMEOUT:.0f} s.", file=sys.stderr)  # noqa: T201
        return 1
    pid_file.unlink(missing_ok=True)
    print("Model server stopped.")  # noqa: T201
    return 0


def write_pid_file(file: Path, pid: int) -> None:
    """First line the pid, as MMS writes it; second line the start time that proves whose it is."""
    with contextlib.suppress(ProcessLookupError):  # ended already: then there is nothing to point at
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        temporary.write_text(f"{pid}\n{start_ticks(pid)}\n", encoding="ascii")
        temporary.replace(file)


def read_pid_file(file: Path) -> Process | None:
    """The process that the file names; None where there is no file. A file without a start time proves nothing."""
    try:
        words = file.read_text(encoding="ascii", errors="replace").split()
    except FileNotFoundError:
        return None
    numbers = [int(word) for word in words[:2] if word.isdigit()]
    return Process(numbers[0], numbers[1]) if len(numbers) == 2 else Process(numbers[0] if numbers else 0, -1)

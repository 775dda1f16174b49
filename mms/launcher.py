"""`multi-model-server`: MMS's own command line over this server; a PID file with proof of ownership, a stop that is clean."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import psutil

from mms.config.options import BY_NAME
from mms.errors import MmsError, UsageError
from mms.pidfile import PidFile, Process
from mms.usage import Parser

ALREADY_RUNNING = "Model server is already running, please use multi-model-server --stop to stop MMS."
STOP_TIMEOUT = 60.0  # seconds: more than any sensible drain_timeout; past it the stop is said to be still under way


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
    pid_file = PidFile()
    try:
        if arguments.stop:
            return stop(pid_file)
        running = pid_file.read()
        if running is not None and running.pid != os.getpid():
            if running.alive:
                print(ALREADY_RUNNING)  # noqa: T201
                return 1
            print("Removing orphan pid file.")  # noqa: T201
            pid_file.remove()
        if not arguments.foreground:
            return start_in_background(arguments, argv, pid_file)
        if not pid_file.write(os.getpid()):
            print(ALREADY_RUNNING)  # noqa: T201
            return 1
    except PermissionError as error:
        print(f"{pid_file.file}: {error.strerror}; it belongs to another user.", file=sys.stderr)  # noqa: T201
        return 1
    return run_in_foreground(arguments, pid_file)


def run_in_foreground(arguments: argparse.Namespace, pid_file: PidFile) -> int:
    """Be the server; the PID file is there while it runs."""
    from mms.launch import run_server

    try:
        return run_server(arguments.mms_config, _flags(arguments), config_flag="--mms-config")
    except UsageError as error:
        print(error.message, file=sys.stderr)  # noqa: T201
        return 1  # MMS's exit status for a start that cannot be
    finally:
        pid_file.remove(os.getpid())


def start_in_background(arguments: argparse.Namespace, argv: Sequence[str], pid_file: PidFile) -> int:
    """Start the server in a session of its own and return at once, as MMS does; what is wrong with the flags is said first."""
    from mms.config.resolve import resolve_server
    from mms.config.sources import read_sources

    try:
        resolve_server(read_sources(config=arguments.mms_config, flags=_flags(arguments)))
    except MmsError as error:
        print(error.message, file=sys.stderr)  # noqa: T201
        return 1
    command = [sys.executable, "-P", "-m", "mms", "multi-model-server", *argv, "--foreground"]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    pid_file.write(server.pid)
    return 0


def _flags(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "model_store": arguments.model_store,
        "load_models": ",".join(arguments.models) if arguments.models else None,
        "log_config": arguments.log_config,
        "recover": arguments.recover,
        "clean_start": arguments.clean_start,
    }


def stop(pid_file: PidFile) -> int:
    """Ask the running server to stop and wait until it has; its clean-shutdown mark is then written."""
    process = pid_file.read()
    if process is None:
        print("Model server is not currently running.")  # noqa: T201
        return 0
    if not process.alive or not _end(process):
        pid_file.remove()
        print("Model server already stopped.")  # noqa: T201
        return 0
    if process.alive:
        print(f"Model server (pid {process.pid}) has not stopped within {STOP_TIMEOUT:.0f} s.", file=sys.stderr)  # noqa: T201
        return 1
    pid_file.remove(process.pid)
    print("Model server stopped.")  # noqa: T201
    return 0


def _end(process: Process) -> bool:
    """SIGTERM, and wait for the end, STOP_TIMEOUT at most; False where it had ended before. Raises PermissionError."""
    try:
        # A handle on the process itself: its number cannot come to mean another one between the look and the signal.
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not process.alive:
            return False
        workers = psutil.Process(process.pid).children(recursive=True) if process.original else []
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        select.select([handle], [], [], STOP_TIMEOUT)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
    finally:
        os.close(handle)
    for worker in workers:  # the Java server leaves its workers behind
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    return True

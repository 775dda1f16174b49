"""No process outlives its server, however the server ends and whatever its workers are doing."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mms.workers.forkserver import TAG_PREFIX
from mms.workers.leftovers import sweep_leftovers
from tests.unit.workers.handling import gone, until, write_model

ROOT = Path(__file__).parents[3]

IDLE = "def handle(data, context):\n    return data and [1 for _ in data]\n"
ASLEEP = "import time\ndef handle(data, context):\n    return data and [time.sleep(600)]\n"
# The interpreter lock is held all the while: no thread of the worker gets to run.
STUCK_IN_C = "import ctypes\ndef handle(data, context):\n    return data and [ctypes.PyDLL(None).sleep(600)]\n"
SPINNING = "def handle(data, context):\n    while data:\n        pass\n"


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A running small server and the pids of its workers and fork server."""
    sources = {"idle": IDLE, "asleep": ASLEEP, "stuck": STUCK_IN_C, "spinning": SPINNING}
    folders = [str(write_model(tmp_path / name, source)) for name, source in sources.items()]
    command = [sys.executable, "-m", "tests.unit.workers.small_server", request.param, *folders]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    others: list[int] = []
    try:
        others = json.loads(process.stdout.readline())["others"]
        yield process, others
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        for pid in others:
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("server", ["forkserver", "spawn"], indirect=True)
async def test_a_killed_server_takes_every_process_with_it(server: tuple[subprocess.Popen[str], list[int]]) -> None:
    process, others = server
    assert not any(map(gone, others))
    process.kill()
    began = time.monotonic()
    await until(lambda: all(map(gone, others)), seconds=5)
    assert time.monotonic() - began < 1
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("server", ["forkserver"], indirect=True)
async def test_no_helper_process_is_left_either(server: tuple[subprocess.Popen[str], list[int]]) -> None:
    process, _ = server
    process.kill()
    process.wait()
    await until(lambda: not in_session(process.pid), seconds=1)


@pytest.mark.parametrize("server", ["forkserver"], indirect=True)
async def test_processes_carry_their_store_and_epoch_and_the_sweep_finds_only_older_ones(
    server: tuple[subprocess.Popen[str], list[int]],
) -> None:
    _, others = server
    assert sweep_leftovers("small", 3) == []
    assert sweep_leftovers("another", 9) == []
    assert not any(map(gone, others))
    assert await asyncio.to_thread(sweep_leftovers, "small", 4) == sorted(others)
    assert all(map(gone, others))


def test_the_sweep_ends_what_no_longer_has_a_parent() -> None:
    tag = f"{TAG_PREFIX}lost:1"
    statement = f"import os, sys, time; os.memfd_create({tag!r}); print('up', flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", statement], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        assert sweep_leftovers("lost", 2) == [process.pid]
        assert process.wait(5) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def in_session(session: int) -> list[int]:
    """Live processes of that session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found

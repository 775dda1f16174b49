"""Syncs and writes of the real process that fail with EIO: nothing acknowledged is missing, nothing refused is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mms.records import RegistrationState
from mms.store.store import StoreConfig
from tests.store_life import life

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace makes the system calls fail"),
]


def run_with(folder: Path, call: str, when: str) -> list[list[str]]:
    folder.mkdir()
    program = Path(__file__).with_name("syncing_child.py")
    command = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:error=EIO:when={when}"]
    # The interpreter itself: `when` counts for each process, and a starter script would be counted with it.
    command += [os.path.realpath(sys.executable), str(program), str(folder)]
    root = Path(__file__).parents[3]
    site = next(path for path in sys.path if path.endswith("site-packages"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), site])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["claimed"] in lines or "mms.errors" in done.stderr, done.stderr
    return lines


@pytest.mark.parametrize(
    ("call", "when"),
    [("fdatasync", each) for each in ("9", "12", "15", "16+3", "14+")]
    + [("pwrite64", each) for each in ("60", "70", "90", "65+9", "70+")],
)
async def test_what_was_acknowledged_is_there_and_what_was_refused_is_not(tmp_path: Path, call: str, when: str) -> None:
    folder = tmp_path / "trial"
    lines = run_with(folder, call, when)
    if "+" in when:
        assert {"refused", "unknown"} & {line[0] for line in lines}, "the fault was not felt"
    if when.endswith("+"):
        assert lines[-1][0] == "refused"
    config = StoreConfig(url=f"sqlite:///{folder}/store.db", server_id="one", data_dir=folder)
    async with life(config) as store:
        rows = {row.key.name: row.state for row in await store.snapshot()}
        for word, *rest in lines:
            if word == "begun":
                assert rest[0] in rows
            if word == "done":
                assert rows[rest[0]] is RegistrationState.ACTIVE
            if word == "refused" and ["begun", rest[0]] not in lines:
                assert rest[0] not in rows, lines

"""A model whose answers show its settings, and short words for asking and changing them through the public doors."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any
from urllib.parse import quote

from tests.acceptance.running import RunningServer

#: Answers every row with the length of the batch that it came in; the body says how long to sleep, in milliseconds.
BATCH_LENGTH = """
import time

def handle(data, context):
    if data is None:
        return None
    time.sleep(max(int(bytes(row["body"]) or b"0") for row in data) / 1000)
    return [str(len(data)) for _ in data]
"""


def command(server: RunningServer, *arguments: str) -> str:
    """What `mms ...` prints about this server."""
    environment = {**os.environ, "MMS_MANAGEMENT_URL": server.management_url}
    run = subprocess.run(
        [sys.executable, "-P", "-m", "mms", *arguments],
        env=environment,
        cwd=server.folder,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def shown(server: RunningServer, model: str, option: str) -> dict[str, Any]:
    answer = server.manage("GET", f"/models/{quote(model)}/settings")
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["modelName"] == model
    found: dict[str, Any] = document["settings"][option]
    return found


def change(server: RunningServer, method: str, path: str) -> None:
    answer = server.manage(method, path)
    assert answer.status_code == 200, answer.text


def places(setting: dict[str, Any]) -> list[tuple[Any, str, str, str]]:
    """The value in force and all that it beat, strongest first, each with its provenance."""
    return [(one["value"], one["source"], one["scope"], one["where"]) for one in (setting, *setting["beaten"])]

"""Replays the recorded answers of the original server against this one: each scenario on a fresh server."""

import json
import re
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SHARED = HERE.parents[1].parent / "shared" / "conformance"
CORPUS = SHARED if (SHARED / "run.py").is_file() else HERE / "corpus"
SCENARIOS = sorted(str(path.relative_to(CORPUS / "cases").with_suffix("")) for path in CORPUS.glob("cases/**/*.yaml"))
SERVER = Path(sys.executable).parent / "multi-model-server"

NAMES_PARTS = {
    # What is wanted names two members of a description. Only what is named counts, says the corpus, but its runner compares
    # bodies whole, and no description can be that: what is named has to be right, and nothing else may be the matter.
    ("open/08-scale", "described-not-integer"),
}


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def test_there_is_a_corpus() -> None:
    assert len(SCENARIOS) >= 45


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_answers_are_those_of_the_original(scenario: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    run = subprocess.run(
        [
            sys.executable,
            "-B",
            str(CORPUS / "run.py"),
            "check",
            "--ready",
            "/readyz",
            "--only",
            f"^{re.escape(scenario)}[.]yaml$",
            "--ports",
            ",".join(map(str, free_ports(5))),
            "--report",
            str(report),
            "--server-cmd",
            f"{SERVER} --start --foreground --mms-config {{config}} --model-store {{store}}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert report.is_file(), run.stdout + run.stderr
    steps = json.loads(report.read_text())
    assert steps
    for step in steps:
        named = (step["scenario"], step["step"]) in NAMES_PARTS
        problems = [text for text in step["problems"] if not (named and ": not wanted: " in text)]
        assert not problems, run.stdout

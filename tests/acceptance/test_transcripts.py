"""The transcripts in the pages, typed again: the answers must still be those that they show."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance.running import free_port

ROOT = Path(__file__).resolve().parents[2]
END = "--- end of an answer ---"


def transcript(page: str) -> list[tuple[str, str]]:
    """Commands and the output shown below each."""
    (block,) = re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    typed = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(command, output) for command, _, output in (part.partition("\n") for part in typed)]


def constant(output: str) -> str:
    """Output without what differs from run to run: numbers, the machine's name, and the folder."""
    output = re.sub(r"/\S+/(?=config\.properties)", "", output)
    return re.sub(r" on \S+\)", " on HOST)", re.sub(r"\d+(\.\d+)?", "N", output)).strip()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the transcripts are typed with curl, which is not installed")
@pytest.mark.parametrize("name", ["README.md", "docs/getting-started.md", "docs/configuring.md", "docs/recovery.md"])
def test_typing_the_transcript_again_gives_the_answers_that_it_shows(name: str, tmp_path: Path) -> None:
    page = (ROOT / name).read_text()
    inference, management = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / ".curlrc").write_text("silent\n")
    for file, content in re.findall(r"^```python\n# (\S+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        (tmp_path / file).write_text(content)
    ready = f"until curl --fail --output /dev/null {management}/readyz; do kill -0 $! || break; sleep 0.05; done"
    script = ""
    for command, _ in transcript(page):
        if " serve " in command:
            flags = f"--inference-address {inference} --management-address {management}"
            command = f"{command.replace(' 2>', f' {flags} >/dev/null 2>')}\n{ready}"
        command = command.replace("http://127.0.0.1:8080", inference).replace("http://127.0.0.1:8081", management)
        script += f"{command}\necho '{END}'\n"
    output = typed(script + "kill -TERM $!\nwait $!\n", tmp_path, MMS_MANAGEMENT_URL=management)
    answers = re.split(rf"\n?{END}\n", output)[:-1]
    assert [constant(answer) for answer in answers] == [constant(shown) for _, shown in transcript(page)]


def typed(script: str, folder: Path, **variables: str) -> str:
    """What a shell in that folder prints; nothing that it started survives it."""
    path = f"{sys.prefix}/bin:{os.environ['PATH']}"
    environment = {**os.environ, "HOME": str(folder), "PATH": path, **variables}
    with subprocess.Popen(
        ["bash"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
        start_new_session=True,
    ) as shell:
        try:
            output, _ = shell.communicate(script, timeout=100)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    return output

"""Dockerfile: what it copies is there, reaches the builder, and is all that the wheel needs. No Docker engine is at hand."""

import re
import shutil
import zipfile
from pathlib import Path

import hatchling.build
import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def copied(stage: str) -> list[str]:
    """What a stage copies from the project's folder."""
    lines = re.findall(r"^COPY (.+)$", stage, re.MULTILINE)
    words = [[word for word in line.split() if not word.startswith("--chown")] for line in lines]
    return [path for sources in words if not sources[0].startswith("--from") for path in sources[:-1]]


def stages() -> list[str]:
    return re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]


def test_the_builder_gets_what_the_dockerfile_copies_and_nothing_else() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert "*" in ignore
    assert let_through == {path for stage in stages() for path in copied(stage)}


def test_the_wheel_can_be_built_from_what_the_first_stage_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in copied(stages()[0]):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name)
        else:
            shutil.copy(ROOT / name, source / name)
    monkeypatch.chdir(source)
    wheel = zipfile.ZipFile(tmp_path / hatchling.build.build_wheel(str(tmp_path)))
    assert "mms/migrations/env.py" in wheel.namelist()


def test_the_server_runs_as_process_1_under_a_user_of_its_own() -> None:
    last = stages()[-1]
    assert 'ENTRYPOINT ["python", "-P", "-m", "mms"]' in last
    assert re.search(r"^USER mms$", last, re.MULTILINE)

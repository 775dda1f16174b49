"""Archives packed here and by the original model-archiver of PyPI hold the same members with the same contents."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from mms.archive.archiver_cli import main
from tests.original_archiver import install
from tests.unit.archive.builders import all_files, lay_out

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SOURCES = {
    "service.py": "def handle(data, context):\n    return ['OK']\n",
    "sub/deeper/weights.bin": bytes(range(256)) * 50,
    "labels.txt": "a\nb\n",
    ".hidden/secret": "x",
    ".env": "y",
    "__pycache__/service.cpython-311.pyc": "x",
    "__MACOSX/junk": "x",
    "MANIFEST.json": "{}",
    "sub/MANIFEST.json": "{}",
    "old.pyc": "x",
    ".DS_Store": "x",
    "older.mar": "x",
    "empty.txt": "",
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original's command."""
    return install(tmp_path_factory.mktemp("original"))


def contents(path: Path) -> dict[str, bytes]:
    if path.is_dir():
        return all_files(path)
    if path.suffix == ".mar":
        with zipfile.ZipFile(path) as archive:
            return {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}
    with tarfile.open(path) as archive:
        files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        return {name: file.read() for name, file in files.items() if file is not None}


@pytest.mark.parametrize("runtime", ["python", "python3"])
@pytest.mark.parametrize(
    ("archive_format", "name"), [("default", "m-1.0.mar"), ("tgz", "m-1.0.tar.gz"), ("no-archive", "m-1.0")]
)
def test_member_by_member_they_are_the_same(
    original: Path, tmp_path: Path, archive_format: str, name: str, runtime: str
) -> None:
    sources = lay_out(tmp_path / "sources", SOURCES)
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    arguments = ["--model-name", "m-1.0", "--model-path", str(sources), "--handler", "service:handle"]
    arguments += ["--runtime", runtime, "--archive-format", archive_format]
    subprocess.run([original, *arguments, "--export-path", theirs], check=True, timeout=60)
    assert main([*arguments, "--export-path", str(ours)]) == 0
    assert [path.name for path in ours.iterdir()] == [path.name for path in theirs.iterdir()] == [name]
    assert contents(ours / name) == contents(theirs / name)


@pytest.mark.parametrize(
    "change",
    [
        {"--model-name": "has space"},
        {"--model-path": "nosuch"},
        {"--export-path": "nosuch"},
    ],
    ids=str,
)
def test_they_refuse_the_same_with_the_same_exit_status_and_words(
    original: Path, tmp_path: Path, change: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    sources = lay_out(tmp_path / "sources", SOURCES)
    given = {
        "--model-name": "m",
        "--model-path": str(sources),
        "--handler": "s:h",
        "--export-path": str(tmp_path),
        **change,
    }
    arguments = [text for pair in given.items() for text in pair]
    theirs = subprocess.run([original, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert main(arguments) == theirs.returncode == 1
    assert capfd.readouterr().err.split() == theirs.stderr.split()

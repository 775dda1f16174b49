"""Packing: what goes in, what is left out, under which name, and always the same bytes."""

from __future__ import annotations

import json
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from mms.archive.archiver import build
from mms.archive.archiver_cli import main
from mms.archive.model_archive import ArchiveStore
from mms.config.options import MODEL_OPTIONS
from mms.errors import BadInput, InvalidModel
from tests.unit.archive.builders import MANIFEST, all_files, lay_out

SOURCES = {
    "service.py": "def handle(data, context): ...",
    "sub/labels.txt": "a\nb",
    ".hidden/secret": "x",
    "__pycache__/service.cpython-311.pyc": "x",
    "__MACOSX/junk": "x",
    "MANIFEST.json": "{}",
    "sub/MANIFEST.json": "{}",
    "MAR-INF/MANIFEST.json": "{}",
    "old.pyc": "x",
    ".DS_Store": "x",
    "older.mar": "x",
    ".env": "kept: MMS leaves out hidden folders, not hidden files",
}
PACKED = {"service.py", "sub/labels.txt", ".env", MANIFEST}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "sources", SOURCES)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def names_in(path: Path) -> list[str]:
    if path.is_dir():
        return list(all_files(path))
    if path.suffix == ".mar":
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    with tarfile.open(path) as archive:
        return [name.removeprefix("noop/") for name in archive.getnames()]


@pytest.mark.parametrize(
    ("archive_format", "name"), [("default", "noop.mar"), ("tgz", "noop.tar.gz"), ("no-archive", "noop")]
)
def test_each_format_holds_the_model_s_files_and_the_manifest(
    sources: Path, out: Path, archive_format: str, name: str
) -> None:
    built = build("noop", sources, handler="service:handle", export_path=out, archive_format=archive_format)
    assert built == out / name
    assert sorted(names_in(built)) == sorted(PACKED)
    assert [path.name for path in out.iterdir()] == [name], "nothing temporary is left"


@pytest.mark.parametrize("archive_format", ["default", "tgz", "no-archive"])
def test_what_is_packed_can_be_opened_and_says_what_was_said(
    sources: Path, out: Path, data_dir: Path, archive_format: str
) -> None:
    settings = {"batchSize": 8, "maxBatchDelay": 5, "preloadModel": True}
    built = build(
        "noop",
        sources,
        handler="service:handle",
        runtime="python3",
        export_path=out,
        archive_format=archive_format,
        model_version="2.1",
        settings=settings,
    )
    archive = ArchiveStore(out, data_dir, tag="t").open(built.name)
    manifest = archive.manifest
    assert (manifest.model_name, manifest.handler, manifest.runtime) == ("noop", "service:handle", "python3")
    assert (manifest.model_version, manifest.settings) == ("2.1", settings)
    assert set(all_files(archive.model_dir)) == PACKED


@pytest.mark.parametrize("archive_format", ["default", "tgz"])
def test_the_same_files_give_the_same_bytes(sources: Path, out: Path, tmp_path: Path, archive_format: str) -> None:
    again = lay_out(tmp_path / "again", dict(reversed(list(SOURCES.items()))))
    for path in again.rglob("*"):
        os.utime(path, (1, 1))
    (again / "service.py").chmod(0o600)
    first = build("noop", sources, handler="s:h", export_path=out, archive_format=archive_format).read_bytes()
    second = build("noop", again, handler="s:h", export_path=out, archive_format=archive_format, force=True)
    assert second.read_bytes() == first


def test_a_program_stays_one(sources: Path, out: Path, data_dir: Path) -> None:
    (sources / "service.py").chmod(0o755)
    for archive_format, name in (("default", "noop.mar"), ("tgz", "noop.tar.gz")):
        build("noop", sources, handler="s:h", export_path=out, archive_format=archive_format)
        model_dir = ArchiveStore(out, data_dir, tag="t").open(name).model_dir
        assert os.access(model_dir / "service.py", os.X_OK)
        assert not (model_dir / "sub" / "labels.txt").stat().st_mode & 0o111


def test_the_manifest_is_the_one_that_mms_writes(sources: Path, out: Path) -> None:
    built = build("noop", sources, handler="service:handle", export_path=out, archive_format="no-archive")
    assert (built / MANIFEST).read_text() == (
        '{\n  "runtime": "python",\n  "model": {\n    "modelName": "noop",\n    "handler": "service:handle"\n  },\n'
        '  "modelServerVersion": "1.0",\n  "implementationVersion": "1.0",\n  "specificationVersion": "1.0"\n}'
    )


def test_a_single_onnx_file_needs_no_handler(out: Path, tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "m", {"model.onnx": "x", "labels.txt": ""})
    built = build("m", folder, export_path=out, archive_format="no-archive")
    assert json.loads((built / MANIFEST).read_text())["model"] == {"modelName": "m"}


@pytest.mark.parametrize("files", [{"a.txt": ""}, {"a.onnx": "", "b.onnx": ""}])
def test_without_a_single_onnx_file_the_handler_is_required(out: Path, tmp_path: Path, files: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="--handler is required"):
        build("m", lay_out(tmp_path / "m", files), export_path=out)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("archive_format", ["default", "tgz", "no-archive"])
def test_what_is_there_is_overwritten_by_force_only(sources: Path, out: Path, archive_format: str) -> None:
    built = build("noop", sources, handler="a:b", export_path=out, archive_format=archive_format)
    before = all_files(out)
    with pytest.raises(BadInput) as e:
        build("noop", sources, handler="c:d", export_path=out, archive_format=archive_format)
    assert e.value.message.startswith(f"{built} already exists.\nPlease specify --force/-f option")
    assert all_files(out) == before
    build("noop", sources, handler="c:d", export_path=out, archive_format=archive_format, force=True)
    assert all_files(out) != before


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "ä", "a\n"])
def test_a_name_with_special_characters_is_refused(sources: Path, out: Path, name: str) -> None:
    with pytest.raises(BadInput, match="Model name contains special characters"):
        build(name, sources, handler="s:h", export_path=out)


def test_places_that_are_no_folders_are_refused(sources: Path, out: Path) -> None:
    with pytest.raises(BadInput, match=r"Given export-path .* is not a directory"):
        build("m", sources, handler="s:h", export_path=out / "nosuch")
    with pytest.raises(BadInput, match=r"Given model-path .* is not a valid directory"):
        build("m", sources / "service.py", handler="s:h", export_path=out)


def test_settings_out_of_range_are_refused_before_anything_is_written(sources: Path, out: Path) -> None:
    with pytest.raises(InvalidModel, match=r"model\.batchSize in the manifest must be"):
        build("m", sources, handler="s:h", export_path=out, settings={"batchSize": 0})
    with pytest.raises(InvalidModel, match=r"model\.maxWorkers"):
        build("m", sources, handler="s:h", export_path=out, settings={"minWorkers": 3, "maxWorkers": 2})
    assert list(out.iterdir()) == []


def test_packing_in_place_writes_the_manifest_beside_the_files(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "noop", {"service.py": "x"})
    build("noop", folder, handler="s:h", export_path=tmp_path, archive_format="no-archive", force=True)
    assert set(all_files(folder)) == {"service.py", MANIFEST}


def test_an_archive_written_into_the_model_s_own_folder_does_not_pack_itself(sources: Path) -> None:
    for archive_format, name in (("default", "n.mar"), ("tgz", "n.tar.gz"), ("no-archive", "n")):
        first = build("n", sources, handler="s:h", export_path=sources, archive_format=archive_format)
        names = set(names_in(first))
        second = build("n", sources, handler="s:h", export_path=sources, archive_format=archive_format, force=True)
        assert set(names_in(second)) == names
        assert first == sources / name
        assert not any(part.startswith(f"{name}/") or part == name for part in names)


def test_a_failure_half_way_leaves_the_old_archive(sources: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = build("noop", sources, handler="s:h", export_path=out)
    before = built.read_bytes()

    def fails(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space left"):
        build("noop", sources, handler="other:h", export_path=out, force=True)
    assert all_files(out) == {"noop.mar": before}


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_packs_and_is_silent(sources: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model-name", "noop", "--model-path", str(sources), "--handler", "s:h", "--export-path", str(out)]
    assert main(arguments) == 0
    assert capsys.readouterr() == ("", "")
    assert main(arguments) == 1
    assert capsys.readouterr().err.startswith(f"ERROR - {out / 'noop.mar'} already exists.\n")
    assert main([*arguments, "-f"]) == 0
    assert capsys.readouterr().err == f"WARNING - Overwriting {out / 'noop.mar'} ...\n"


def test_the_current_folder_is_where_an_archive_goes(sources: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(out)
    assert main(["--model-name", "noop", "--model-path", str(sources), "--handler", "s:h"]) == 0
    assert (out / "noop.mar").is_file()


def test_every_option_of_a_model_has_a_flag_that_ends_in_the_manifest(sources: Path, out: Path) -> None:
    values = {
        "--max-batch-size": ("batchSize", 8),
        "--max-batch-delay": ("maxBatchDelay", 5),
        "--response-timeout": ("responseTimeout", 30),
        "--startup-timeout": ("startupTimeout", 60),
        "--min-workers": ("minWorkers", 1),
        "--max-workers": ("maxWorkers", 2),
        "--job-queue-size": ("jobQueueSize", 50),
        "--max-request-size": ("maxRequestSize", 1000),
        "--max-response-size": ("maxResponseSize", 2000),
        "--preload-model": ("preloadModel", True),
    }
    assert {key for key, _ in values.values()} == {option.manifest_key for option in MODEL_OPTIONS}
    flags = [text for flag, (_, value) in values.items() for text in (flag, str(value).lower())]
    arguments = ["--model-name", "noop", "--model-path", str(sources), "--handler", "s:h", "--export-path", str(out)]
    assert main([*arguments, *flags, "--model-version", "1.2", "--archive-format", "no-archive"]) == 0
    model = json.loads((out / "noop" / MANIFEST).read_text())["model"]
    assert model == {"modelName": "noop", "handler": "s:h", "modelVersion": "1.2", **dict(values.values())}


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["-c"], "--convert is not offered"),
        (["--convert"], "--convert is not offered"),
        (["--max-batch-size", "many"], "argument --max-batch-size: must be a whole number from 1"),
        (["--max-batch-size", "0"], "argument --max-batch-size: must be a whole number from 1"),
        (["--preload-model", "perhaps"], "argument --preload-model: must be"),
        (["--runtime", "ruby"], "argument --runtime"),
        (["--archive-format", "rar"], "argument --archive-format"),
        (["--colour", "blue"], "--colour"),
    ],
)
def test_wrong_flags_are_named_and_write_nothing(
    sources: Path, out: Path, capsys: pytest.CaptureFixture[str], extra: list[str], words: str
) -> None:
    arguments = ["--model-name", "noop", "--model-path", str(sources), "--handler", "s:h", "--export-path", str(out)]
    assert main([*arguments, *extra]) == 2
    assert words in capsys.readouterr().err
    assert list(out.iterdir()) == []


def test_help_is_given_and_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "--model-path" in capsys.readouterr().out

"""The name that an archive gives its model, read where the archive lies."""

import json
import zipfile

import pytest

from mms.archive.peek import named_by


@pytest.mark.parametrize(
    "manifest", ['{"model": {"modelName": "Res-Net.v1"}}', '{"model": {"modelName": "Res-Net.v1"}, "x": 1}']
)
def test_the_manifest_of_an_archive_or_a_folder_names_its_model(tmp_path, manifest):
    with zipfile.ZipFile(tmp_path / "file.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", manifest)
    (tmp_path / "folder" / "MAR-INF").mkdir(parents=True)
    (tmp_path / "folder" / "MAR-INF" / "MANIFEST.json").write_text(manifest)

    assert named_by(tmp_path / "file.mar") == "Res-Net.v1"
    assert named_by(tmp_path / "folder") == "Res-Net.v1"


@pytest.mark.parametrize("content", [b"", b"no archive", json.dumps({"model": {}}).encode()])
def test_without_one_the_file_does(tmp_path, content):
    (tmp_path / "noop_v1.0.mar").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "zip.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", content)

    assert named_by(tmp_path / "noop_v1.0.mar") == "noop_v1_0"
    assert named_by(tmp_path / "zip.mar") == "zip"

"""Manifests of both forms, whole, odd and broken, with the words of MMS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mms.archive.manifest import Manifest, read_manifest
from mms.errors import InvalidModel
from tests.unit.archive.builders import MANIFEST, lay_out, model_files

LEGACY: dict[str, Any] = {
    "Engine": {"MXNet": 0.12},
    "Model": {"Service": "old_service.py", "Signature": "signature.json", "Model-Name": "old_model"},
}


def read(folder: Path, text: str | dict[str, Any] | bytes, name: str = MANIFEST) -> Manifest:
    content = json.dumps(text) if isinstance(text, dict) else text
    return read_manifest(lay_out(folder, {name: content}))[0]


def test_a_full_manifest_says_all_it_says(tmp_path: Path) -> None:
    document = {
        "specificationVersion": "1.0",
        "runtime": "python3",
        "engine": {"engineName": "MXNet", "engineVersion": "1.2"},
        "model": {
            "modelName": "noop",
            "description": "d",
            "modelVersion": "3.7",
            "extensions": {"x": 1},
            "handler": "service:handle",
            "batchSize": 8,
            "preloadModel": True,
            "responseTimeout": None,
        },
    }
    assert read(tmp_path, document) == Manifest(
        model_name="noop",
        model_version="3.7",
        handler="service:handle",
        runtime="python3",
        engine_name="MXNet",
        settings={"batchSize": 8, "preloadModel": True},
    )


def test_a_manifest_is_read_as_forgivingly_as_mms_reads_it(tmp_path: Path) -> None:
    manifest = read(tmp_path, "{'runtime':'python',model:{modelName:'m_lenient',handler:'service:handle'}}")
    assert (manifest.model_name, manifest.handler, manifest.runtime) == ("m_lenient", "service:handle", "python")


@pytest.mark.parametrize(
    ("document", "runtime"),
    [({}, "python"), ({"runtime": "ruby"}, None), ({"runtime": "PYTHON"}, None), ({"runtime": None}, None)],
)
def test_the_runtime_is_python_unless_it_is_named_and_none_if_it_does_not_exist(
    tmp_path: Path, document: dict[str, Any], runtime: str | None
) -> None:
    assert read(tmp_path, document).runtime == runtime


@pytest.mark.parametrize(("given", "name"), [(12, "12"), (True, "true"), (1.5, "1.5"), ("", None), (None, None)])
def test_a_name_may_be_written_as_a_number(tmp_path: Path, given: Any, name: str | None) -> None:
    assert read(tmp_path, {"model": {"modelName": given}}).model_name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{ this is not json", "Failed to parse signature.json."),
        ("", "Failed to parse signature.json."),
        ("[1, 2]", "Failed to parse signature.json."),
        ("12", "Failed to parse signature.json."),
        ('{"model": "m"}', "Failed to parse signature.json."),
        ('{"model": {"modelName": {}}}', "Failed to parse signature.json."),
        ('{"engine": "MXNet"}', "Failed to parse signature.json."),
        ('{"model": null}', "Missing Model entry in manifest file."),
        ('{"engine": {"engineVersion": "1.2"}}', "engineName is required in <engine>."),
    ],
)
def test_a_wrong_manifest_is_refused_in_the_words_of_mms(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidModel) as e:
        read(tmp_path, text)
    assert e.value.message == message


def test_a_manifest_without_end_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="larger than"):
        read(tmp_path, " " * ((1 << 20) + 1))


def test_a_byte_order_mark_and_broken_text_do_not_matter(tmp_path: Path) -> None:
    assert read(tmp_path, b'\xef\xbb\xbf{"model": {"modelName": "m\xff"}}').model_name == "m\ufffd"


def test_no_manifest_says_nothing(tmp_path: Path) -> None:
    manifest, folder = read_manifest(lay_out(tmp_path, {"service.py": ""}))
    assert manifest == Manifest(model_name=None, model_version=None, handler=None, runtime="python")
    assert folder == tmp_path


# --- 0.x --------------------------------------------------------------------------------------------------------------


def test_a_manifest_of_the_0_x_form_is_translated(tmp_path: Path) -> None:
    assert read(tmp_path, LEGACY, "MANIFEST.json") == Manifest(
        model_name="old_model",
        model_version="snapshot",
        handler="old_service.py",
        runtime="python",
        engine_name="MXNet",
        legacy=True,
    )


def test_a_0_x_archive_may_lie_one_folder_down(tmp_path: Path) -> None:
    lay_out(tmp_path, {"inner/MANIFEST.json": json.dumps(LEGACY), "inner/old_service.py": ""})
    manifest, folder = read_manifest(tmp_path)
    assert (manifest.model_name, folder) == ("old_model", tmp_path / "inner")


def test_the_newer_manifest_beats_the_older(tmp_path: Path) -> None:
    lay_out(tmp_path, {**model_files("new"), "MANIFEST.json": json.dumps(LEGACY)})
    assert read_manifest(tmp_path)[0].model_name == "new"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"Model": {"Model-Name": "m"}}, "Missing Service entry in MANIFEST.json"),
        ({}, "Missing Model entry in manifest file."),
        ({"Model": []}, "Failed to parse signature.json."),
    ],
)
def test_a_wrong_0_x_manifest_is_refused(tmp_path: Path, document: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidModel) as e:
        read(tmp_path, document, "MANIFEST.json")
    assert e.value.message == message


def test_a_0_x_archive_of_another_engine_names_none(tmp_path: Path) -> None:
    assert read(tmp_path, {**LEGACY, "Engine": {}}, "MANIFEST.json").engine_name is None

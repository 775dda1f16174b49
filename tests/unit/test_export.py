"""The export as text: what can be booted is a setting, what cannot is a comment."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mms.config.properties import read_properties
from mms.export import Export, as_document, as_properties, exported_model
from mms.records import ModelKey, Origin, Registration, RegistrationState

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def row(name: str, state: RegistrationState = RegistrationState.ACTIVE, **more: Any) -> Registration:
    said = {"url": f"{name}.mar", "sha256": "a" * 64, "overrides": {"batch_size": 8}, **more}
    return Registration(ModelKey(name, "1.0"), Origin.API, state, **said)


def export(*rows: Registration) -> Export:
    return Export(3, 41, "1.2.3", tuple(exported_model(None, each, None) for each in rows))


def entries(text: str, folder: Path) -> dict[str, str]:
    file = folder / "config.properties"
    file.write_text(text)
    return {entry.key: entry.value for entry in read_properties(file, {})}


def test_models_and_their_settings_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    text = as_properties(export(row("a.b"), row("sp ace"), row("ü")), NOON)
    assert entries(text, tmp_path) == {
        "load_models": "a.b=a.b.mar,sp ace=sp ace.mar,ü=ü.mar",
        "a.b.batch_size": "8",
        "sp ace.batch_size": "8",
        "ü.batch_size": "8",
    }
    assert "generation 3 at journal number 41" in text


def test_a_quarantined_model_is_a_comment_with_its_reason(tmp_path: Path) -> None:
    bad = row("bad", RegistrationState.QUARANTINED, last_error="Traceback\n  File x\nValueError: no weights")
    text = as_properties(export(bad), NOON)
    assert entries(text, tmp_path) == {"load_models": ""}
    assert "# Not in load_models: it is quarantined (ValueError: no weights)" in text
    assert "# bad.batch_size=8" in text


def test_what_a_list_cannot_hold_is_said_and_left_out(tmp_path: Path) -> None:
    text = as_properties(export(row("a", url="http://host/a,b.mar"), row("b", handler="x:y")), NOON)
    assert entries(text, tmp_path)["load_models"] == "b=b.mar"
    assert "cannot be written into a list" in text
    assert "# Registered with handler x:y" in text


def test_the_document_says_where_each_value_comes_from() -> None:
    (model,) = as_document(export(row("a")))["models"]
    assert (model["modelName"], model["settings"]) == ("a", {"batch_size": {"value": 8, "source": "api"}})

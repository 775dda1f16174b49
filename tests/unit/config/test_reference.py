"""The settings page is the table's, and the table is whole."""

import dataclasses
from pathlib import Path

import pytest

from mms.config.option import Layer
from mms.config.options import MODEL_OPTIONS, OPTIONS, SERVER_OPTIONS
from mms.config.reference import pages
from mms.config.resolve import ModelSettings, ServerSettings

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"


def test_the_settings_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == pages(), "run: python -m mms.config.reference > docs/settings.md"


def test_every_option_is_on_the_page():
    text = PAGE.read_text(encoding="utf-8")
    assert [option.name for option in OPTIONS if f"`{option.name}`" not in text] == []
    spellings = [spelling.name for option in OPTIONS for spelling in option.spellings]
    assert [name for name in spellings if f"`{name}`" not in text] == []


def test_every_row_has_its_field_and_every_field_its_row():
    server = {field.name for field in dataclasses.fields(ServerSettings)}
    rows = {option.name for option in SERVER_OPTIONS if option.effective}
    assert server - {"config_file", "explained", "model_defaults", "load_all"} == rows
    model = {field.name for field in dataclasses.fields(ModelSettings)}
    assert model - {"explained"} == {option.name for option in MODEL_OPTIONS}


def test_no_name_means_two_options():
    names = [spelling.name for option in OPTIONS for spelling in option.names]
    names += [name for option in OPTIONS for name in option.api_names if name != option.name]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_a_row_is_consistent(option):
    assert option.help.endswith(".")
    assert len(set(option.layers)) == len(option.layers)
    if Layer.COMMAND_LINE in option.layers and option.layers == (Layer.COMMAND_LINE,):
        assert option.flag.startswith("--")
    if option.default is not None and option.effective and isinstance(option.default, int | str):
        assert option.kind.parse(option.default) == option.default

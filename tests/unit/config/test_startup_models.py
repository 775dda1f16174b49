"""Start-up models and names of models."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mms.config.kinds import Unfit
from mms.config.startup_models import (
    StartupModels,
    StartupModelsKind,
    check_model_name,
    environment_name,
    is_model_name,
)
from mms.errors import BadInput
from mms.records import StartupModel

KIND = StartupModelsKind()
SIGNED = "https://bucket.s3.example/noop.mar?X-Signature=abc%3D=&Expires=1"


def pairs(text):
    return [(model.name, model.url) for model in KIND.parse(text).models]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("noop.mar", [(None, "noop.mar")]),
        ("a=noop.mar, b=http://h/x.mar ,,c.mar", [("a", "noop.mar"), ("b", "http://h/x.mar"), (None, "c.mar")]),
        (SIGNED, [(None, SIGNED)]),
        (f"named={SIGNED}", [("named", SIGNED)]),
        ("folder/a=b.mar", [(None, "folder/a=b.mar")]),
        ("noop_v1.0-X=noop.mar", [("noop_v1.0-X", "noop.mar")]),
        ("a=b=c.mar", [("a", "b=c.mar")]),
        ("", []),
    ],
)
def test_a_list(text, expected):
    assert pairs(text) == expected


@pytest.mark.parametrize("text", ["ALL", "all", " All "])
def test_everything(text):
    assert KIND.parse(text) == StartupModels(everything=True)


def test_two_models_of_one_name_are_refused_in_the_words_of_mms():
    with pytest.raises(Unfit, match=r"^Model same is already registered\.$"):
        KIND.parse("same=noop.mar,same=echo.mar")


@pytest.mark.parametrize("text", ["=noop.mar", "a=", "a\x01=noop.mar", f"{'x' * 257}=noop.mar"])
def test_an_entry_without_name_or_archive_is_refused(text):
    with pytest.raises(Unfit):
        KIND.parse(text)


NAMES = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/:=,"), min_size=1, max_size=30)


@given(st.lists(st.tuples(NAMES, NAMES), max_size=5, unique_by=lambda pair: pair[0]))
def test_what_is_shown_can_be_read_again(entries):
    models = StartupModels(tuple(StartupModel(name=name, url=f"{url}.mar") for name, url in entries))
    assert KIND.parse(KIND.show(models)) == models


@pytest.mark.parametrize("name", ["m", "noop_v1.0", "m{{n}}", "A b", "größe", "x" * 256])
def test_names_that_are_taken(name):
    check_model_name(name)
    assert is_model_name(name)


@pytest.mark.parametrize("name", ["", "a/b", "a\nb", "\x7f", "x" * 257])
def test_names_that_are_refused(name):
    with pytest.raises(BadInput, match=r"^Parameter model_name must be a name of 1 to 256 characters") as caught:
        check_model_name(name)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 250


@pytest.mark.parametrize(("name", "variable"), [("resnet-18.v2", "RESNET_18_V2"), ("größe", "GR__E"), ("a__b", "A__B")])
def test_the_name_in_variables(name, variable):
    assert environment_name(name) == variable

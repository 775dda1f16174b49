from datetime import UTC, datetime

import pytest

from mms.api.parameters import from_query, live_option, page, registration, restore_target, update
from mms.errors import BadInput
from mms.wishes import RegisterModel, UpdateModel


def by_query(query: str) -> RegisterModel:
    return registration(b"", query.encode(), b"")


def by_json(body: str) -> RegisterModel:
    return registration(b"application/json; charset=utf-8", b"url=ignored", body.encode())


def test_a_url_is_enough() -> None:
    assert by_query("url=noop.mar") == RegisterModel("noop.mar")


def test_everything_that_a_registration_can_say() -> None:
    wish = by_query(
        "url=noop.mar&model_name=n&handler=service:handle&runtime=python3&synchronous=FALSE&batch_size=4"
        "&max_batch_delay=250&response_timeout=9&initial_workers=2&preload_model=true&colour=blue"
    )

    assert wish == RegisterModel(
        "noop.mar",
        "n",
        "service:handle",
        "python3",
        {
            "batch_size": 4,
            "max_batch_delay": 250,
            "response_timeout": 9,
            "min_workers": 2,
            "preload_model": True,
        },
        False,
    )


def test_json_is_read_as_leniently_as_gson_does() -> None:
    wish = by_json("{'url':'noop.mar','model_name':'n','initial_workers':'1','synchronous':'true', x: {a: 1}}")

    assert wish == RegisterModel("noop.mar", "n", overrides={"min_workers": 1})


def test_a_json_body_makes_the_query_count_for_nothing() -> None:
    assert by_json('{"url": "noop.mar"}').url == "noop.mar"


def test_a_form_body_counts_for_nothing() -> None:
    with pytest.raises(BadInput, match="Parameter url is required"):
        registration(b"application/x-www-form-urlencoded", b"", b"url=noop.mar")


@pytest.mark.parametrize("query", ["", "url=", "url=&model_name=x"])
def test_without_a_url_there_is_nothing_to_register(query: str) -> None:
    with pytest.raises(BadInput) as caught:
        by_query(query)

    assert caught.value.message == "Parameter url is required."


@pytest.mark.parametrize("body", ["", "{}", "null", '{"url": null}'])
def test_neither_is_there_in_an_empty_json_body(body: str) -> None:
    with pytest.raises(BadInput):
        by_json(body)


@pytest.mark.parametrize("body", ["url is noop.mar", "[1]", "{", '{"url": ["a"]}', '{"url": "a" "b"}'])
def test_a_body_that_is_no_json_object_is_refused(body: str) -> None:
    with pytest.raises(BadInput):
        by_json(body)


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("url=a&batch_size=lots", "batch_size"),
        ("url=a&batch_size=0", "batch_size"),
        ("url=a&max_batch_delay=-1", "max_batch_delay"),
        ("url=a&initial_workers=-1", "initial_workers"),
        ("url=a&synchronous=perhaps", "synchronous"),
        ("url=a&preload_model=perhaps", "preload_model"),
    ],
)
def test_a_bad_value_is_refused_by_name(query: str, name: str) -> None:
    with pytest.raises(BadInput, match=f"Parameter {name} must be"):
        by_query(query)


@pytest.mark.parametrize("runtime", ["ruby", "PYTHON"])
def test_an_unknown_runtime_is_refused_in_the_originals_words(runtime: str) -> None:
    with pytest.raises(BadInput) as caught:
        by_query(f"url=a&runtime={runtime}")

    assert caught.value.message == f"Invalid RuntimeType value: {runtime}"


@pytest.mark.parametrize("query", ["", "synchronous=true", "min_worker=&synchronous=true", "min_worker=99999999999"])
def test_an_update_that_says_nothing_scales_to_the_defaults(query: str) -> None:
    wish = update("m", query.encode())

    assert (wish.overrides, wish.scale) == ({}, True)


def test_an_update_of_other_options_leaves_the_workers_alone() -> None:
    assert update("m", b"batch_size=8&max_batch_delay=5") == UpdateModel(
        "m", {"batch_size": 8, "max_batch_delay": 5}, scale=False
    )


def test_an_update_can_scale_and_change_options_at_once() -> None:
    wish = update("m", b"min_worker=2&max_worker=4&batch_size=8&number_gpu=1&timeout=-1")

    assert wish == UpdateModel("m", {"min_workers": 2, "max_workers": 4, "batch_size": 8}, scale=True)


@pytest.mark.parametrize("query", ["min_worker=3&max_worker=1", "max_worker=0"])
def test_fewer_at_most_than_at_least_is_refused(query: str) -> None:
    with pytest.raises(BadInput) as caught:
        update("m", query.encode())

    assert caught.value.message == "max_worker cannot be less than min_worker."


def test_an_option_that_is_not_live_cannot_be_updated() -> None:
    with pytest.raises(BadInput, match="preload_model cannot be changed"):
        update("m", b"preload_model=true")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", (100, 0)),
        ("limit=2&next_page_token=4", (2, 4)),
        ("limit=0", (0, 0)),
        ("limit=-1", (100, 0)),
        ("limit=101", (100, 0)),
        ("limit=some&next_page_token=abc", (100, 0)),
        ("next_page_token=-4&nextPageToken=9", (100, 0)),
    ],
)
def test_a_page_takes_defaults_where_the_original_does(query: str, expected: tuple[int, int]) -> None:
    assert page(query.encode()) == expected


def test_of_equal_names_in_a_query_the_first_counts() -> None:
    assert from_query(b"a=1&a=2") == {"a": "1"}


def test_an_option_is_known_by_both_its_names() -> None:
    assert (live_option("min_worker"), live_option("min_workers")) == ("min_workers", "min_workers")
    with pytest.raises(BadInput, match="batch_size"):
        live_option("colour")
    with pytest.raises(BadInput, match="preload_model cannot be changed on a running model"):
        live_option("preload_model")


def test_a_restore_names_just_one_point() -> None:
    assert restore_target({"seq": "7"}) == {"seq": 7}
    assert restore_target({"before": "2026-01-31T12:00:00Z"}) == {"before": datetime(2026, 1, 31, 12, tzinfo=UTC)}
    for given in ({}, {"seq": "1", "generation": "2"}, {"before": "noon"}, {"seq": "x"}):
        with pytest.raises(BadInput):
            restore_target(given)

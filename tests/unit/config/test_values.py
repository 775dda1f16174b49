"""Values of the API, of files and of manifests: what is taken, and the one line that refuses the rest."""

import pytest

from mms.config.options import API_OPTIONS, BY_NAME, model_option
from mms.config.values import check_manifest, parse_api
from mms.errors import BadInput, InvalidModel


def test_the_parameters_of_the_api():
    assert set(API_OPTIONS) == {
        "batch_size", "max_batch_delay", "response_timeout", "startup_timeout", "min_worker", "max_worker",
        "initial_workers", "job_queue_size", "max_request_size", "max_response_size", "preload_model",
    }  # fmt: skip
    assert API_OPTIONS["initial_workers"] is API_OPTIONS["min_worker"] is BY_NAME["min_workers"]
    assert model_option("max_worker") is model_option("max_workers") is BY_NAME["max_workers"]
    assert model_option("model_store") is None
    assert model_option("nonsense") is None


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("batch_size", "8", 8),
        ("batch_size", " +8 ", 8),
        ("batch_size", 8, 8),
        ("batch_size", 8.0, 8),
        ("min_worker", "0", 0),
        ("response_timeout", "2.5", 2.5),
        ("response_timeout", "120", 120),
        ("preload_model", "TRUE", True),
        ("preload_model", False, False),
        ("min_worker", "", None),
        ("min_worker", None, None),
    ],
)
def test_values_are_taken_from_texts_and_json(name, given, value):
    parsed = parse_api(name, given)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("batch_size", "lots", 'Parameter batch_size must be a whole number from 1 to 65536, not "lots".'),
        ("batch_size", 0, "Parameter batch_size must be a whole number from 1 to 65536, not 0."),
        ("batch_size", True, "Parameter batch_size must be a whole number from 1 to 65536, not True."),
        ("batch_size", [1], "Parameter batch_size must be a whole number from 1 to 65536, not [1]."),
        ("initial_workers", "-1", 'Parameter initial_workers must be a whole number from 0 to 4096, not "-1".'),
        ("min_worker", "99999999999", 'Parameter min_worker must be a whole number from 0 to 4096, not "99999999999".'),
        ("min_worker", "1.5", 'Parameter min_worker must be a whole number from 0 to 4096, not "1.5".'),
        ("min_worker", "٣", 'Parameter min_worker must be a whole number from 0 to 4096, not "٣".'),
        ("response_timeout", "nan", 'Parameter response_timeout must be a number from 0.001 to 2147483647, not "nan".'),
        ("preload_model", "maybe", 'Parameter preload_model must be true or false, not "maybe".'),
    ],
)
def test_anything_else_is_refused_in_one_line(name, given, message):
    with pytest.raises(BadInput) as caught:
        parse_api(name, given)
    assert caught.value.message == message


def test_a_long_or_unprintable_value_does_not_flood_the_message():
    with pytest.raises(BadInput) as caught:
        parse_api("batch_size", "x\n" * 50_000)
    assert len(caught.value.message) < 200
    assert "\n" not in caught.value.message
    with pytest.raises(BadInput):
        parse_api("batch_size", "9" * 100_000)


def test_a_row_can_be_given_instead_of_a_name():
    with pytest.raises(BadInput, match=r"^Parameter max_worker must be"):
        parse_api(BY_NAME["max_workers"], "x")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batchSize": "8"}, 'model.batchSize in the manifest must be a whole number from 1 to 65536, not "8".'),
        ({"batchSize": 0}, "model.batchSize in the manifest must be a whole number from 1 to 65536, not 0."),
        ({"preloadModel": "true"}, 'model.preloadModel in the manifest must be true or false, not "true".'),
        ({"responseTimeout": True}, "model.responseTimeout in the manifest must be a number from 0.001 to 2147483647, not True."),
        ({"minWorkers": 3, "maxWorkers": 2},
         "model.maxWorkers in the manifest must not be less than model.minWorkers (3), not 2."),
    ],
)  # fmt: skip
def test_a_manifest_of_the_wrong_type_or_range_is_refused_by_its_key(settings, message):
    with pytest.raises(InvalidModel) as caught:
        check_manifest(settings)
    assert caught.value.message == message


def test_a_good_manifest_passes():
    check_manifest(
        {"batchSize": 8, "maxBatchDelay": None, "modelName": "x", "responseTimeout": 0.5, "preloadModel": True}
    )

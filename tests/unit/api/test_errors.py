import inspect
import json

import pytest

from mms import errors
from mms.api.errors import TABLE, error_answer

EVERY_CLASS = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.MmsError)]


@pytest.mark.parametrize("cls", EVERY_CLASS)
def test_every_error_class_has_a_row(cls: type[errors.MmsError]) -> None:
    assert cls in TABLE


def test_an_error_is_told_with_code_type_and_message_in_this_order() -> None:
    status, body = error_answer(errors.ModelNotFound("Model not found: x"))

    assert status == 404
    assert body == b'{\n  "code": 404,\n  "type": "ModelNotFoundException",\n  "message": "Model not found: x"\n}\n'


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (errors.NotCommitted("away"), 503, "not-committed"),
        (errors.ServerStopping("bye"), 503, "not-committed"),
        (errors.OutcomeUnknown("lost"), 503, "unknown"),
        (errors.IdempotencyMismatch("other"), 422, None),
        (errors.StillRunning("wait"), 409, None),
    ],
)
def test_a_management_write_says_whether_it_may_have_happened(
    error: errors.MmsError, status: int, outcome: str | None
) -> None:
    code, body = error_answer(error)

    assert (code, json.loads(body).get("outcome")) == (status, outcome)


@pytest.mark.parametrize(("code", "status"), [(422, 422), (599, 599), (507, 507), (200, 503), (7, 503)])
def test_a_failed_prediction_has_the_handlers_own_code_where_it_is_one_of_an_error(code: int, status: int) -> None:
    assert error_answer(errors.PredictionFailed("no", code))[0] == status


@pytest.mark.parametrize(("memory", "status"), [(False, 500), (True, 507)])
def test_a_failed_load_is_told_in_the_originals_words(memory: bool, status: int) -> None:
    code, body = error_answer(errors.LoadFailed("it broke", detail="Traceback ...", out_of_memory=memory))

    assert code == status
    assert json.loads(body)["message"] == "Failed to start workers"


def test_a_stranger_tells_the_client_nothing_of_itself() -> None:
    status, body = error_answer(ValueError("/secret/path"))

    assert status == 500
    assert b"secret" not in body

from datetime import UTC, datetime, timedelta, timezone

import pytest

from mms.api import views
from mms.wishes import ModelDescription, WorkerDescription


def model(state: str = "active", workers: tuple[str, ...] = ()) -> ModelDescription:
    made = tuple(WorkerDescription(str(n), 0.0, status, False, 1) for n, status in enumerate(workers))
    return ModelDescription("m", "", "m.mar", "MXNet", "python", 1, 1, 1, 100, False, made, state, "it broke", 3)


@pytest.mark.parametrize("status", ["STARTING", "LOADING", "READY", "BUSY", "DEAD"])
def test_a_workers_status_is_one_of_the_originals_two_words(status: str) -> None:
    assert views.described(model(workers=(status, "STOPPING")))["workers"] == [
        {"id": "0", "startTime": "1970-01-01T00:00:00.000Z", "status": "READY", "gpu": False, "memoryUsage": 1},
        {"id": "1", "startTime": "1970-01-01T00:00:00.000Z", "status": "UNLOADING", "gpu": False, "memoryUsage": 1},
    ]


def test_the_details_tell_true_states_the_last_error_and_the_queue() -> None:
    document = views.described(model("failed", ("LOADING",)), details=True)

    assert [worker["state"] for worker in document["workers"]] == ["LOADING"]
    assert (document["state"], document["lastError"], document["queueDepth"]) == ("failed", "it broke", 3)


@pytest.mark.parametrize(
    ("state", "told"), [("active", False), ("pending", False), ("failed", True), ("quarantined", True)]
)
def test_a_model_that_is_not_in_service_says_why(state: str, told: bool) -> None:
    assert ("lastError" in views.described(model(state))) is told


def test_a_failed_model_whose_workers_are_still_tried_is_described_as_by_the_original() -> None:
    assert "lastError" not in views.described(model("failed", ("DEAD",)))


def test_an_unknown_version_is_left_out_and_a_known_engine_is_not() -> None:
    document = views.described(model())

    assert "modelVersion" not in document
    assert document["engine"] == "MXNet"


def test_times_are_told_in_utc_to_the_millisecond() -> None:
    there = datetime(2026, 1, 31, 14, 0, 0, 999_999, timezone(timedelta(hours=2)))

    assert views.moment(there) == "2026-01-31T12:00:00.999Z"
    assert views.moment(None) is None
    assert views.instant(datetime(2026, 1, 31, tzinfo=UTC).timestamp()) == "2026-01-31T00:00:00.000Z"

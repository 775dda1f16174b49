"""What handlers import: context, metrics, exceptions, and helpers that need mxnet only when they are used."""

import importlib
import os

import pytest

from mms.context import Context, RequestProcessor, RequestProcessors
from mms.metrics.dimension import Dimension
from mms.metrics.metrics_store import MetricsStore
from mms.service import PredictionException, Service, emit_metrics
from mms.utils.mxnet import image, nlp
from mms.utils.timeit_decorator import timeit


@pytest.fixture
def context() -> Context:
    context = Context("m", "/models/m", {"model": {}}, 2, None, "1.0")
    context.request_ids = {0: "a", 1: "b"}
    context.request_processor = [RequestProcessor({"X": "1"}), RequestProcessor(lambda: {"Y": "2"})]
    context.metrics = MetricsStore(context.request_ids, "m")
    return context


def test_a_context_says_where_it_is(context: Context) -> None:
    assert context.system_properties == {
        "model_dir": "/models/m",
        "gpu_id": None,
        "batch_size": 2,
        "server_name": "MMS",
        "server_version": "1.0",
    }
    assert (context.get_request_id(), context.get_request_id(1), context.get_request_id(2)) == ("a", "b", None)
    assert (context.get_request_header(0, "X"), context.get_request_header(0, "x")) == ("1", None)
    assert context.get_all_request_header(1) == {"Y": "2"}


def test_headers_are_made_only_when_they_are_asked_for() -> None:
    made = []

    def make() -> dict[str, str]:
        made.append(1)
        return {"a": "b"}

    processor = RequestProcessor(make)
    assert made == []
    assert (processor.get_request_property("a"), processor.get_request_properties()) == ("b", {"a": "b"})
    assert made == [1]


def test_an_answer_has_nothing_until_it_is_set(context: Context) -> None:
    assert context.get_response_status(0) == (200, None)
    assert context.get_response_content_type(0) is None
    assert context.get_response_headers(0) == {}
    context.set_response_content_type(1, "text/csv")
    context.set_response_header(1, "x", "y")
    context.set_all_response_status(202, "Later")
    assert context.get_response_headers(1) == {"content-type": "text/csv", "x": "y"}
    assert context.get_response_status(0) == context.get_response_status(1) == (202, "Later")


def test_a_context_without_requests_is_silent_where_it_can_be() -> None:
    context = Context("m", "/", None, 1, 0, "1")
    context.set_response_status(500)
    context.set_all_response_status(500)
    assert context.get_request_id(0) is None
    with pytest.raises(ValueError, match="being loaded"):
        context.get_request_header(0, "X")


def test_a_prediction_exception_has_a_code() -> None:
    assert PredictionException("no").error_code == 500
    error = PredictionException("no", 422)
    assert (error.message, error.error_code, str(error)) == ("no", 422, "no : 422")


def test_a_service_pairs_an_entry_point_with_a_context() -> None:
    service = Service("m", "/d", None, lambda data, context: data, 1, 4)
    assert service.context.system_properties["gpu_id"] == 1


def test_counters_add_up_and_others_keep_the_last_value() -> None:
    store = MetricsStore({0: "a", 1: "b"}, "m")
    store.add_counter("n", 1)
    store.add_counter("n", 2)
    store.add_counter("n", 5, idx=1)
    store.add_time("t", 1.5, unit="s")
    store.add_time("t", 2.5, unit="s")
    assert [(metric.value, metric.request_id) for metric in store.store] == [(3, "a,b"), (5, "b"), (2.5, "a,b")]


@pytest.mark.parametrize("method", ["add_time", "add_size", "add_percent", "add_error", "add_metric", "add_counter"])
def test_every_metric_keeps_the_dimensions_of_the_handler(method: str) -> None:
    store = MetricsStore({0: "a"}, "m")
    own = [Dimension("Stage", "pre")]
    getattr(store, method)("n", 1, dimensions=own)
    getattr(store, method)("n", 1, dimensions=own)
    (metric,) = store.store
    names = [str(dimension) for dimension in metric.dimensions]
    assert names[0] == "Stage:pre"
    assert len(own) == 1
    assert names[1:] == (["Level:Error"] if method == "add_error" else ["ModelName:m", "Level:Model"])


def test_units_are_checked_and_written_out() -> None:
    store = MetricsStore({0: "a"}, "m")
    with pytest.raises(ValueError, match="timed metric"):
        store.add_time("t", 1, unit="h")
    with pytest.raises(ValueError, match="size based"):
        store.add_size("s", 1, unit="TB")
    with pytest.raises(ValueError, match="list of dimensions"):
        store.add_counter("c", 1, dimensions=Dimension("a", "b"))  # type: ignore[arg-type]
    store.add_size("s", 1, unit="B")
    store.add_percent("p", 50)
    store.add_metric("x", 1)
    assert [metric.unit for metric in store.store] == ["Bytes", "Percent", "unit"]


def test_metrics_are_printed_as_lines_that_the_server_takes(capsys: pytest.CaptureFixture[str]) -> None:
    store = MetricsStore({0: "a"}, "m")
    store.add_counter("Seen", 2)
    emit_metrics(store.store)
    metric = store.store[0]
    host = os.uname().nodename
    printed = f"[METRICS]Seen.Count:2|#ModelName:m,Level:Model|#hostname:{host},{metric.timestamp},a\n"
    assert capsys.readouterr().out == printed
    assert (
        metric.record()
        == f"Seen.Count:2|#ModelName:m,Level:Model|#hostname:{host},requestID:a,timestamp:{metric.timestamp}"
    )
    assert metric.to_dict()["Dimensions"][0] == {"name": "ModelName", "value": "m"}


@pytest.mark.parametrize(
    "module",
    ["model_service", "mxnet_model_service", "mxnet_vision_service", "gluon_vision_service"],
)
def test_the_old_service_modules_can_be_imported_without_mxnet(module: str) -> None:
    assert importlib.import_module(f"mms.model_service.{module}")


def test_helpers_of_mxnet_say_what_is_missing() -> None:
    with pytest.raises(ImportError, match=r"mms\.utils\.mxnet\.image needs the package mxnet, which is not installed"):
        image.read(b"")


def test_sentences_become_numbers() -> None:
    encoded, vocabulary = nlp.encode_sentences([["a", "b"], ["b", "c"]])
    assert (encoded, vocabulary) == ([[0, 1], [1, 2]], {"\n": -1, "a": 0, "b": 1, "c": 2})
    assert nlp.encode_sentences([["c", "z"]], vocabulary) == ([[2, -1]], vocabulary)
    with pytest.raises(ValueError, match="longer than every bucket"):
        nlp.pad_sentence([1] * 9, [4, 8])


def test_timeit_prints_and_gives_back_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    @timeit
    def add(a: int, b: int) -> int:
        return a + b

    assert add(1, 2) == 3
    assert add.__name__ == "add"
    assert capsys.readouterr().out.startswith("func: 'add' took a total of")


def test_request_processors_are_made_when_they_are_asked_for() -> None:
    read: list[str] = []

    def headers(request: str) -> dict[str, str]:
        read.append(request)
        return {"X": request}

    processors = RequestProcessors(["one", "two", "three"], headers)
    assert len(processors) == 3
    assert processors.untouched

    second = processors[1]
    assert not processors.untouched
    assert read == []
    assert second.get_request_property("X") == "two"
    assert read == ["two"]
    assert processors[1] is second
    assert processors[-2] is second
    assert processors[1:2] == [second]
    assert list(processors)[1] is second
    with pytest.raises(IndexError):
        processors[3]

"""The contract between handlers and the server, in one process: loading, decoding, calling, answering."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mms.errors import InvalidModel
from mms.request import InferenceResponse
from mms.workers.handler import Model
from mms.workers.loading import LoadOrder, load
from tests.unit.workers.handling import told, wire, write_model


@pytest.fixture(autouse=True)
def _own_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a handler imports goes with its test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and "site-packages" not in str(sys.modules[name].__file__):
            del sys.modules[name]


def model(folder: Path, source: str, *, handler: str = "service:handle", **changes: Any) -> Model:
    write_model(folder, source)
    service = load(LoadOrder(model="m", model_dir=str(folder), handler=handler, **changes))
    return Model(service, decode=changes.get("decode", True), max_response_size=changes.get("max_response_size", 1000))


def ask(served: Model, *bodies: bytes, content_type: str = "text/plain") -> list[Any]:
    results, _ = served.predict([wire(body, content_type, request_id=f"r{i}") for i, body in enumerate(bodies)])
    return [told(result) for result in results]


ECHO = "def handle(data, context):\n    return data and [item['body'] for item in data]\n"


# --- loading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", ["service:handle", "service.py:handle", "service.py", "service"])
def test_a_function_is_found_in_every_spelling(tmp_path: Path, handler: str) -> None:
    assert ask(model(tmp_path, ECHO, handler=handler), b"hello") == [b"hello"]


def test_a_handler_in_a_folder_may_import_its_neighbour_and_what_lies_at_the_top(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "beside_it.py").write_text("A = 'a'")
    (tmp_path / "on_the_top.py").write_text("B = 'b'")
    source = "import beside_it, on_the_top\ndef go(data, context):\n    return data and [beside_it.A + on_the_top.B]\n"
    (tmp_path / "code" / "deep.py").write_text(source)
    service = load(LoadOrder(model="m", model_dir=str(tmp_path), handler="code/deep.py:go"))
    assert ask(Model(service, decode=True, max_response_size=100), b"") == [b"ab"]


def test_a_function_is_called_once_without_data_to_load_its_model(tmp_path: Path) -> None:
    source = """
        calls = []
        def handle(data, context):
            calls.append(data is None)
            return data and [str(calls)]
    """
    assert ask(model(tmp_path, source), b"") == [b"[True, False]"]


def test_a_function_that_raises_while_loading_fails_the_load(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="cannot"):
        model(tmp_path, "def handle(data, context):\n    raise RuntimeError('cannot')")


def test_a_class_is_made_once_and_initialised(tmp_path: Path) -> None:
    source = """
        class Adder:
            def initialize(self, context):
                self.more = context.system_properties["batch_size"]
            def handle(self, data, context):
                return [item["body"] + self.more for item in data]
    """
    assert ask(model(tmp_path, source, handler="service", batch_size=4), b"1", content_type="application/json") == [
        b"5"
    ]


def test_an_initialize_that_raises_is_logged_and_the_handler_called_nevertheless(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = """
        class Broken:
            ready = False
            def initialize(self, context):
                raise MemoryError("no initialisation")
            def handle(self, data, context):
                return [f"ready={self.ready}"]
    """
    assert ask(model(tmp_path, source, handler="service"), b"") == [b"ready=False"]
    assert "no initialisation" in caplog.text


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("class A:\n    pass\nclass B:\n    pass\n", ValueError, "Expected only one class"),
        ("x = 1\n", ValueError, "or a function entry point"),
        ("class A:\n    def handle(self, data, context): ...\n", AttributeError, "initialize"),
        ("class A:\n    def initialize(self, context): ...\n", AttributeError, "handle"),
        ("import not_to_be_found_anywhere\n", ModuleNotFoundError, "not_to_be_found"),
        ("def handle(data, context)\n", SyntaxError, "expected"),
    ],
)
def test_what_cannot_be_served_says_why(tmp_path: Path, source: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        model(tmp_path, source, handler="service")


def test_an_imported_class_is_not_taken_for_the_handler(tmp_path: Path) -> None:
    source = "from pathlib import Path\nclass A:\n    initialize = handle = lambda self, *a: ['A']\n"
    assert ask(model(tmp_path, source, handler="service"), b"") == [b"A"]


def test_the_manifest_reaches_the_context_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "MAR-INF").mkdir()
    (tmp_path / "MAR-INF" / "MANIFEST.json").write_text('{"model": {"modelName": "other"}}')
    source = "def handle(data, context):\n    return data and [context.manifest]\n"
    assert json.loads(ask(model(tmp_path, source), b"")[0]) == {"model": {"modelName": "other"}}


def test_a_service_of_the_old_layout_answers_each_request_by_itself(tmp_path: Path) -> None:
    (tmp_path / "MANIFEST.json").write_text('{"Model": {"Signature": "signature.json"}}')
    (tmp_path / "signature.json").write_text('{"inputs": [{"data_name": "data"}], "input_type": "application/json"}')
    source = """
        from mms.model_service.model_service import SingleNodeService
        class Old(SingleNodeService):
            def _preprocess(self, data):
                return [item + [0] for item in data]
            def _inference(self, data):
                return [f"legacy {data[0]}"]
    """
    served = model(tmp_path, source, handler="service.py", legacy=True)
    assert ask(served, b"[1]", b"[2]", content_type="application/json") == [b"legacy [1, 0]", b"legacy [2, 0]"]


# --- requests ----------------------------------------------------------------------------------------------------------


def test_without_decoding_everything_is_a_bytearray(tmp_path: Path) -> None:
    source = "def handle(data, context):\n    return data and [type(data[0]['body']).__name__]\n"
    assert ask(model(tmp_path, source, decode=False), b"{nope", content_type="application/json") == [b"bytearray"]


def test_a_malformed_request_fails_alone_and_never_reaches_the_handler(tmp_path: Path) -> None:
    source = "def handle(data, context):\n    return data and [len(data) for _ in data]\n"
    answers = ask(model(tmp_path, source), b"1", b"{", b"2", content_type="application/json")
    assert answers[0] == answers[2] == b"2"
    assert answers[1][0] == "BadInput"


def test_headers_come_as_the_client_wrote_them_and_parts_have_their_own(tmp_path: Path) -> None:
    source = """
        def handle(data, context):
            names = ("X-One", "x-one", "body")
            return data and [[context.get_request_header(0, name) for name in names]]
    """
    served = model(tmp_path, source)
    results, _ = served.predict([wire(b"x", headers=[(b"X-One", b"1"), (b"X-One", b"2")])])
    assert json.loads(told(results[0])) == ["2", None, {"content-type": "text/plain"}]


# --- answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("'text'", "Invalid model predict output"),
        ("None", "Invalid model predict output"),
        ("tuple(data)", "Invalid model predict output"),
        ("(x for x in data)", "Invalid model predict output"),
        ("[]", "number of batch response mismatched"),
        ("[1] * (len(data) + 1)", "number of batch response mismatched"),
        ("[{1, 2}]", "Unsupported model output data type."),
        ("[{'a': b'x'}]", "Unsupported model output data type."),
        ("['\\ud800']", "Unsupported model output data type."),
    ],
)
def test_a_wrong_answer_is_named(tmp_path: Path, expression: str, message: str) -> None:
    source = f"def handle(data, context):\n    if data is not None:\n        return {expression}\n"
    assert ask(model(tmp_path, source), b"x") == [("PredictionFailed", message, 503)]


def test_one_item_that_cannot_be_written_fails_alone(tmp_path: Path) -> None:
    source = "def handle(data, context):\n    return data and ['ok', {1, 2}]\n"
    answers = ask(model(tmp_path, source), b"", b"")
    assert answers == [b"ok", ("PredictionFailed", "Unsupported model output data type.", 503)]


RAISER = """
    import asyncio
    from mms.service import PredictionException
    def handle(data, context):
        if data is None:
            return
        context.metrics.add_counter("Calls", 1)
        for item in data:
            if item["body"] != "fine":
                raise eval(item["body"])
        return [len(data) for _ in data]
"""


@pytest.mark.parametrize(
    ("raised", "message", "code"),
    [
        ("ValueError('no')", "Prediction failed", 503),
        ("MemoryError('full')", "Out of resources", 507),
        ("RecursionError()", "Prediction failed", 503),
        ("asyncio.CancelledError()", "Prediction failed", 503),
        ("PredictionException('not today', 422)", "not today", 422),
        ("PredictionException('just so')", "just so", 500),
        ("PredictionException('odd', 'x')", "odd", 500),
    ],
)
def test_what_a_handler_raises_is_told_by_its_kind(tmp_path: Path, raised: str, message: str, code: int) -> None:
    assert ask(model(tmp_path, RAISER), raised.encode()) == [("PredictionFailed", message, code)]


def test_one_bad_request_does_not_fail_its_neighbours(tmp_path: Path) -> None:
    answers = ask(model(tmp_path, RAISER), b"fine", b"ValueError()", b"fine", b"MemoryError()")
    assert answers == [
        b"1",
        ("PredictionFailed", "Prediction failed", 503),
        b"1",
        ("PredictionFailed", "Out of resources", 507),
    ]


def test_metrics_of_a_batch_that_is_tried_again_are_counted_once(tmp_path: Path) -> None:
    _, lines = model(tmp_path, RAISER).predict([wire(b"fine"), wire(b"KeyError()")])
    assert lines.decode().count("Calls.Count:1|") == 2


def test_a_prediction_exception_is_the_handlers_word_on_the_whole_batch(tmp_path: Path) -> None:
    answers = ask(model(tmp_path, RAISER), b"fine", b"PredictionException('refused', 422)", b"fine")
    assert answers == [("PredictionFailed", "refused", 422)] * 3


def test_items_tried_again_get_their_data_fresh(tmp_path: Path) -> None:
    source = """
        def handle(data, context):
            if data is None:
                return
            found = [item.pop("body") for item in data]
            if len(data) > 1:
                raise ValueError
            return found
    """
    assert ask(model(tmp_path, source), b"a", b"b") == [b"a", b"b"]


def test_sys_exit_ends_the_worker(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        ask(model(tmp_path, RAISER), b"SystemExit(4)")


def test_an_answer_above_the_limit_is_refused_alone(tmp_path: Path) -> None:
    source = "def handle(data, context):\n    return data and ['x' * int(item['body']) for item in data]\n"
    served = model(tmp_path, source, max_response_size=10)
    answers = ask(served, b"10", b"11")
    assert answers[0] == b"x" * 10
    assert answers[1][:2] == (
        "ResponseTooLarge",
        "The response of 11 bytes exceeds the max_response_size of 10 bytes.",
    )
    served.configure(batch_size=3, max_response_size=11)
    assert ask(served, b"11") == [b"x" * 11]


def test_status_phrase_headers_and_type_are_each_items_own(tmp_path: Path) -> None:
    source = """
        def handle(data, context):
            if data is None:
                context.set_response_status(code=500)  # without effect while loading
                return
            context.set_response_status(code=418, phrase="Teapot", idx=1)
            context.set_response_header(1, "x-a", "one")
            context.set_response_content_type(1, "text/csv")
            return ["plain", "special"]
    """
    (plain, special), _ = model(tmp_path, source).predict([wire(b""), wire(b"")])
    assert plain == b"plain"
    assert isinstance(special, InferenceResponse)
    assert (special.status, special.reason, special.content_type) == (418, "Teapot", "text/csv")
    assert special.headers == [("x-a", "one")]


def test_the_context_names_each_request_and_follows_live_settings(tmp_path: Path) -> None:
    source = """
        def handle(data, context):
            return data and [[context.get_request_id(i), context.system_properties["batch_size"]] for i in range(len(data))]
    """
    served = model(tmp_path, source, batch_size=2)
    assert [json.loads(answer) for answer in ask(served, b"", b"")] == [["r0", 2], ["r1", 2]]
    served.configure(batch_size=9, max_response_size=1000)
    assert json.loads(ask(served, b"")[0]) == ["r0", 9]


def test_metrics_come_back_as_finished_lines(tmp_path: Path) -> None:
    source = """
        from mms.metrics.dimension import Dimension
        def handle(data, context):
            if data is None:
                return
            context.metrics.add_counter("Seen", len(data))
            context.metrics.add_time("Step", 12.5, dimensions=[Dimension("Kind", "slow")])
            context.metrics.add_size("Payload", 3, idx=1, unit="kB")
            return ["OK" for _ in data]
    """
    _, lines = model(tmp_path, source).predict([wire(b"", request_id="a"), wire(b"", request_id="b")])
    seen, step, payload, predicted = lines.decode().splitlines()
    host = os.uname().nodename
    assert seen.startswith(f"Seen.Count:2|#ModelName:m,Level:Model|#hostname:{host},requestID:a,b,timestamp:")
    assert step.startswith("Step.Milliseconds:12.5|#Kind:slow,ModelName:m,Level:Model|#")
    assert ",requestID:b,timestamp:" in payload
    assert predicted.startswith("PredictionTime.Milliseconds:")


def test_an_archive_without_handler_and_without_onnx_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"exactly one \.onnx file; this one holds 0"):
        load(LoadOrder(model="m", model_dir=str(tmp_path), handler=None))

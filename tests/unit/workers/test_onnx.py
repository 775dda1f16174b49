"""The built-in handler of .onnx files: what it takes, what it refuses, when it joins requests, and its cache of graphs."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import magika
import numpy as np
import onnx
import onnxruntime
import orjson
import pytest
from onnx import TensorProto, helper, numpy_helper

from mms.context import RequestProcessor
from mms.errors import BadInput, InvalidModel
from mms.workers.loading import LoadOrder, load
from mms.workers.onnx import OnnxHandler

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
MAGIKA = Path(magika.__file__).parent / "models" / "standard_v3_3" / "model.onnx"


def value(name: str, kind: int, shape: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def save(folder: Path, nodes: Any, inputs: Any, outputs: Any, weights: Any = ()) -> Path:
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    folder.mkdir(exist_ok=True)
    onnx.save(model, str(folder / "model.onnx"))
    return folder


def served(folder: Path, **changes: Any) -> OnnxHandler:
    service = load(LoadOrder(model="m", model_dir=str(folder), handler=None, **changes))
    handler = service.entry_point.__self__  # type: ignore[attr-defined]
    assert isinstance(handler, OnnxHandler)
    return handler


def ask(handler: OnnxHandler, *items: Any) -> list[Any]:
    """Answers as JSON, or the message of the refusal; an item that is no dict of parts is a JSON body."""
    from mms.context import Context

    context = Context("m", "/", None, 1, None, "1")
    context.request_processor = [RequestProcessor({}) for _ in items]
    data = [item if isinstance(item, dict) and item.pop("parts", False) else {"body": item} for item in items]
    answers = handler.handle(data, context)
    return [answer.message if isinstance(answer, BadInput) else orjson.loads(answer) for answer in answers]


def scaled(folder: Path, rows: int | str = "N") -> Path:
    """y = 2 x, rows of three."""
    two = numpy_helper.from_array(np.array([2.0], np.float32), "two")
    node = helper.make_node("Mul", ["x", "two"], ["y"])
    return save(folder, [node], [value("x", FLOAT, [rows, 3])], [value("y", FLOAT, [rows, 3])], [two])


def counted(handler: OnnxHandler) -> list[int]:
    """Put a counter before the session: the number of rows of each run."""
    runs: list[int] = []
    session = handler._session

    class Counting:
        def run(self, names: Any, feed: dict[str, Any]) -> Any:
            runs.append(len(next(iter(feed.values()))))
            return session.run(names, feed)

    handler._session = Counting()
    return runs


def test_a_list_or_an_object_of_named_lists_goes_in_and_an_object_comes_out(tmp_path: Path) -> None:
    handler = served(scaled(tmp_path / "m"))
    rows = [[1, 2, 3], [4, 5, 6.5]]
    doubled = {"y": [[2, 4, 6], [8, 10, 13]]}
    assert ask(handler, rows) == ask(handler, {"x": rows}) == [doubled]


def test_a_row_without_the_batch_axis_is_answered_without_it(tmp_path: Path) -> None:
    assert ask(served(scaled(tmp_path / "m")), [1, 2, 3]) == [{"y": [2, 4, 6]}]


def test_a_body_that_nobody_decoded_and_parts_named_like_inputs_are_taken(tmp_path: Path) -> None:
    handler = served(scaled(tmp_path / "m"))
    undecoded = ask(handler, bytearray(b"[[1, 2, 3]]"))
    assert undecoded == ask(handler, {"x": bytearray(b"[[1, 2, 3]]"), "parts": True}) == [{"y": [[2, 4, 6]]}]


def test_requests_are_joined_where_rows_do_not_touch_each_other(tmp_path: Path) -> None:
    handler = served(scaled(tmp_path / "m"))
    runs = counted(handler)
    assert handler.joins
    assert ask(handler, [[1, 1, 1]], [2, 2, 2], [[3, 3, 3], [4, 4, 4]]) == [
        {"y": [[2, 2, 2]]},
        {"y": [4, 4, 4]},
        {"y": [[6, 6, 6], [8, 8, 8]]},
    ]
    assert runs == [4]


def test_a_model_of_one_fixed_row_runs_requests_one_by_one(tmp_path: Path) -> None:
    handler = served(scaled(tmp_path / "m", rows=1))
    runs = counted(handler)
    assert ask(handler, [[1, 1, 1]], [2, 2, 2]) == [{"y": [[2, 2, 2]]}, {"y": [4, 4, 4]}]
    assert runs == [1, 1]


def test_a_first_axis_that_is_time_is_not_taken_for_a_batch(tmp_path: Path) -> None:
    axis = numpy_helper.from_array(np.array(0, np.int64), "axis")
    node = helper.make_node("CumSum", ["x", "axis"], ["y"])
    handler = served(save(tmp_path / "m", [node], [value("x", FLOAT, ["T", 3])], [value("y", FLOAT, ["T", 3])], [axis]))
    assert not handler.joins
    assert ask(handler, [[1, 1, 1], [1, 1, 1]], [[1, 1, 1]]) == [{"y": [[1, 1, 1], [2, 2, 2]]}, {"y": [[1, 1, 1]]}]


def test_rows_that_are_compared_with_each_other_are_not_joined(tmp_path: Path) -> None:
    node = helper.make_node("Softmax", ["x"], ["y"], axis=0)
    assert not served(save(tmp_path / "m", [node], [value("x", FLOAT, ["N", 2])], [value("y", FLOAT, ["N", 2])])).joins


def test_an_open_second_axis_joins_only_what_has_the_same_length(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    handler = served(save(tmp_path / "m", [node], [value("x", INT64, ["N", "S"])], [value("y", INT64, ["N", "S"])]))
    runs = counted(handler)
    assert handler.joins
    assert ask(handler, [[1, 2]], [[3]], [[4, 5]]) == [{"y": [[1, 2]]}, {"y": [[3]]}, {"y": [[4, 5]]}]
    assert sorted(runs) == [1, 2]


def test_a_scalar_joins_only_what_agrees_on_it(tmp_path: Path) -> None:
    node = helper.make_node("Mul", ["x", "k"], ["y"])
    inputs = [value("x", FLOAT, ["N", 2]), value("k", FLOAT, [])]
    handler = served(save(tmp_path / "m", [node], inputs, [value("y", FLOAT, ["N", 2])]))
    runs = counted(handler)
    answers = ask(handler, {"x": [[1, 1]], "k": 2}, {"x": [[1, 1]], "k": 3}, {"x": [2, 2], "k": 2})
    assert answers == [{"y": [[2, 2]]}, {"y": [[3, 3]]}, {"y": [4, 4]}]
    assert sorted(runs) == [1, 2]


def test_strings_go_through(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    handler = served(save(tmp_path / "m", [node], [value("x", STRING, ["N"])], [value("y", STRING, ["N"])]))
    assert ask(handler, ["a", "é"]) == [{"y": ["a", "é"]}]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"z": [[1, 2, 3]]}, "The inputs of this model are 'x'; missing: 'x'; unknown: 'z'."),
        ([[1, 2]], "The input 'x' must have the shape [n, 3]; it has [1, 2]."),
        ([[[1, 2, 3]]], "it has [1, 1, 3]"),
        ([[1, 2, 3], [4]], "its lists differ in length"),
        ([["1", "2", "3"]], "must hold numbers (float32)"),
        ([[None, 2, 3]], "must hold numbers (float32)"),
        ([[True, False, True]], "must hold numbers (float32)"),
        (bytearray(b"{nope"), "The value of 'body' is not valid JSON"),
        ("words", "must hold numbers"),
        (None, "must hold numbers"),
    ],
)
def test_a_wrong_input_is_named_and_fails_alone(tmp_path: Path, body: Any, words: str) -> None:
    fine, wrong = ask(served(scaled(tmp_path / "m")), [1, 2, 3], body)
    assert fine == {"y": [2, 4, 6]}
    assert words in wrong


@pytest.mark.parametrize(
    ("body", "words"), [([[1.5]], "must hold integers"), ([[2**63]], "must be -9223372036854775808 to")]
)
def test_integers_are_never_made_of_something_else(tmp_path: Path, body: Any, words: str) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    handler = served(save(tmp_path / "m", [node], [value("x", INT64, ["N", 1])], [value("y", INT64, ["N", 1])]))
    assert words in ask(handler, body)[0]


def test_two_inputs_must_have_the_same_number_of_rows(tmp_path: Path) -> None:
    node = helper.make_node("Concat", ["a", "b"], ["y"], axis=1)
    inputs = [value("a", FLOAT, ["N", 1]), value("b", FLOAT, ["N", 1])]
    handler = served(save(tmp_path / "m", [node], inputs, [value("y", FLOAT, ["N", 2])]))
    assert ask(handler, {"a": [[1]], "b": [[2]]}) == [{"y": [[1, 2]]}]
    assert "different numbers of rows: 1, 2" in ask(handler, {"a": [[1]], "b": [[2], [3]]})[0]
    assert ask(handler, [[1]]) == ["The body must be a JSON object with the inputs 'a', 'b'."]


def test_two_onnx_files_are_one_too_many(tmp_path: Path) -> None:
    folder = scaled(tmp_path / "m")
    shutil.copy(folder / "model.onnx", folder / "other.onnx")
    with pytest.raises(InvalidModel, match="this one holds 2"):
        served(folder)


# --- a real model and the cache ---------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """magika where the content of an archive is kept: in a folder named by digest."""
    folder = tmp_path / "archives" / ("a" * 64)
    folder.mkdir(parents=True)
    shutil.copy(MAGIKA, folder / "model.onnx")
    return folder


def caches(kept: Path) -> list[Path]:
    return [path for path in kept.parent.iterdir() if path != kept]


def test_a_real_model_answers_joined_as_it_does_alone(kept: Path) -> None:
    handler = served(kept)
    assert handler.joins
    rows = np.random.default_rng(1).integers(0, 256, (3, 2048)).tolist()
    together = ask(handler, *([row] for row in rows))
    session = onnxruntime.InferenceSession(str(MAGIKA), providers=["CPUExecutionProvider"])
    for row, answer in zip(rows, together, strict=True):
        expected = session.run(None, {"bytes": np.array([row], np.int32)})[0]
        assert np.allclose(answer["target_label"], expected, atol=1e-3)


def test_the_optimised_graph_is_kept_beside_the_archive_and_used_again(kept: Path) -> None:
    row = [7] * 2048
    first = ask(served(kept), row)
    (cache,) = caches(kept)
    assert cache.name.startswith(kept.name)
    stamp = (cache / "stamp.json").stat().st_mtime_ns
    assert ask(served(kept), row) == first
    assert caches(kept) == [cache]
    assert (cache / "stamp.json").stat().st_mtime_ns == stamp
    assert [path.name for path in kept.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("damage", ["cut", "flip", "stamp", "graph", "unreadable"])
def test_a_damaged_cache_falls_back_to_the_source(kept: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    row = [7] * 2048
    first = ask(served(kept), row)
    (cache,) = caches(kept)
    weights = cache / "weights.bin"
    for seen in cache.glob("checked-*"):
        seen.unlink()  # as after a start of the machine
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "flip":
        content = bytearray(weights.read_bytes())
        content[1000] ^= 64
        weights.write_bytes(content)
    elif damage == "stamp":
        (cache / "stamp.json").write_text("{")
    elif damage == "graph":
        (cache / "model.onnx").unlink()
    else:
        (cache / "stamp.json").unlink()
        (cache / "stamp.json").mkdir()
    np.testing.assert_allclose(ask(served(kept), row)[0]["target_label"], first[0]["target_label"], atol=1e-5)
    assert damage == "graph" or caplog.records


def test_a_directory_served_in_place_gets_no_neighbour(tmp_path: Path) -> None:
    folder = tmp_path / "magika"
    folder.mkdir()
    shutil.copy(MAGIKA, folder / "model.onnx")
    served(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["magika"]

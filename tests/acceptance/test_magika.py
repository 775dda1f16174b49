"""The magika archive against the magika package itself: the same files, the same answers, alone and in batches."""

from __future__ import annotations

import importlib.util
import random
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from magika import Magika
from magika.types import MagikaResult

from mms import __version__
from mms.context import Context, RequestProcessor
from tests.acceptance.magika_files import files
from tests.acceptance.running import RunningServer

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "magika"
COUNTERS = ("mms_batches_total", "mms_rows_total")
SAME = 1e-6  # of scores that were computed in the same way

Answer = dict[str, Any]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"magika_example_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kinds of files on disk, since the package takes batches as paths."""
    folder = tmp_path_factory.mktemp("kinds")
    contents = folder / "contents"
    contents.mkdir()
    for name, content in files(folder).items():
        (contents / name).write_bytes(content)
    return contents


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, tuple[Answer, Answer]]:
    """What the package says of each file: asked alone, and in a batch (onnxruntime rounds differently in the two)."""
    package = Magika()
    paths = sorted(folder.iterdir())
    together = package.identify_paths(paths)
    return {
        path.name: (as_answer(package.identify_bytes(path.read_bytes())), as_answer(batched))
        for path, batched in zip(paths, together, strict=True)
    }


def as_answer(result: MagikaResult) -> Answer:
    output = result.output
    return {
        "label": str(output.label),
        "description": output.description,
        "mime_type": output.mime_type,
        "group": output.group,
        "score": result.score,
    }


def same(answer: Answer, expected: Answer) -> bool:
    return answer == {**expected, "score": pytest.approx(expected["score"], abs=SAME)}


class Handler:
    """The example's handler, called as a worker calls it."""

    def __init__(self, model_dir: Path) -> None:
        self.context = Context("magika", str(model_dir), None, 8, None, __version__)
        self.module = load("handler")
        assert self.module.handle(None, self.context) is None

    def __call__(self, *requests: dict[str, Any]) -> list[Any]:
        self.context.request_processor = [RequestProcessor({}) for _ in requests]
        return list(self.module.handle(list(requests), self.context))

    def statuses(self) -> list[int]:
        assert self.context.request_processor is not None
        return [processor.get_response_status_code() for processor in self.context.request_processor]


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> Handler:
    model_dir = tmp_path_factory.mktemp("model")
    for name, source in load("build").sources().items():
        shutil.copyfile(source, model_dir / name)
    return Handler(model_dir)


def test_the_files_are_of_many_kinds_and_reach_every_rule_of_the_package(folder: Path) -> None:
    results = Magika().identify_paths(sorted(folder.iterdir()))
    assert len({str(result.output.label) for result in results}) >= 45
    assert {str(result.prediction.overwrite_reason) for result in results} == {
        "none",
        "low_confidence",
        "overwrite_map",
    }
    assert {"empty", "txt", "unknown"} <= {str(result.output.label) for result in results}


def test_alone_each_file_gets_the_answer_of_the_package(
    handler: Handler, folder: Path, expected: dict[str, tuple[Answer, Answer]]
) -> None:
    for name, (alone, _) in expected.items():
        (answer,) = handler({"body": bytearray((folder / name).read_bytes())})
        assert same(answer, alone), name


def test_in_one_batch_each_file_gets_the_answer_that_the_package_gives_in_a_batch(
    handler: Handler, folder: Path, expected: dict[str, tuple[Answer, Answer]]
) -> None:
    answers = handler(*({"body": bytearray((folder / name).read_bytes())} for name in expected))
    for answer, (name, (_, together)) in zip(answers, expected.items(), strict=True):
        assert same(answer, together), name


def test_a_request_without_a_file_is_refused_alone_and_leaves_the_batch_as_it_is(handler: Handler) -> None:
    answers = handler({"body": bytearray(b"")}, {}, {"body": {"decoded": "json"}}, {"data": "import os\nimport sys\n"})
    assert handler.statuses() == [200, 400, 400, 200]
    assert answers[0]["label"] == "empty"
    assert "application/octet-stream" in answers[1]
    assert "application/octet-stream" in answers[2]
    assert answers[3]["label"] == "python"


# --- served -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One worker, and batches that wait until they are full: 8 requests at once are one batch."""
    with RunningServer(tmp_path_factory.mktemp("server"), config={"batching": "strict"}) as server:
        load("build").build(server.models)
        server.start()
        registration = "/models?url=magika.mar&max_batch_delay=5000&initial_workers=1"
        assert server.manage("POST", registration).status_code == 200
        yield server


def ask(server: RunningServer, content: bytes) -> Answer:
    answer = server.predict("magika", content, headers={"content-type": "application/octet-stream"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return dict(answer.json())


def batches(server: RunningServer) -> tuple[int, int]:
    """Batches of magika so far, and the requests in them."""
    metrics = server.manage("GET", "/metrics").text
    counts = [re.findall(rf'^{name}{{model="magika",.*}} ([\d.]+)$', metrics, re.MULTILINE) for name in COUNTERS]
    return int(float(counts[0][0])), int(float(counts[1][0]))


@pytest.mark.slow
def test_served_in_full_batches_each_file_gets_the_answer_of_the_package(
    server: RunningServer, folder: Path, expected: dict[str, tuple[Answer, Answer]]
) -> None:
    assert server.manage("PUT", "/models/magika?batch_size=8").status_code == 200
    before = batches(server)
    names = sorted(expected)
    random.Random(8).shuffle(names)
    with ThreadPoolExecutor(8) as clients:
        for start in range(0, len(names) - 7, 8):
            batch = names[start : start + 8]
            answers = clients.map(lambda name: ask(server, (folder / name).read_bytes()), batch)
            for name, answer in zip(batch, answers, strict=True):
                assert same(answer, expected[name][1]), name
    assert batches(server) == (before[0] + len(names) // 8, before[1] + len(names) // 8 * 8), "all of them were full"


@pytest.mark.slow
def test_served_alone_each_file_gets_the_answer_of_the_package(
    server: RunningServer, folder: Path, expected: dict[str, tuple[Answer, Answer]]
) -> None:
    assert server.manage("PUT", "/models/magika?batch_size=1").status_code == 200
    for name, (alone, _) in expected.items():
        assert same(ask(server, (folder / name).read_bytes()), alone), name

"""Serves magika: a file's bytes in, what kind of file it is out; one run of the model for a whole batch.

Packed into the archive beside `model.onnx`, `config.min.json` (how the model wants its input and when its answer is to be
trusted) and `content_types.json` (what each label means). Gives the answers of the `magika` package's default mode.
"""

import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

BODY_NAMES = ("body", "data", "file")


def handle(data: Sequence[Mapping[str, Any]] | None, context: Any) -> list[Any] | None:
    """The handler: one answer a request, in order; a request without a file's bytes gets a 400 of its own."""
    model = load(context.system_properties["model_dir"])
    if data is None:  # called once while the worker loads: a model that cannot be read fails here
        return None
    answers: dict[int, Any] = {}
    contents: dict[int, bytes] = {}
    for position, request in enumerate(data):
        try:
            contents[position] = file_bytes(request)
        except ValueError as error:
            context.set_response_status(code=400, phrase="Bad Request", idx=position)
            answers[position] = str(error)
    for position, answer in zip(contents, model.identify(list(contents.values())), strict=True):
        context.set_response_content_type(position, "application/json")
        answers[position] = answer
    return [answers[position] for position in range(len(data))]


def file_bytes(request: Mapping[str, Any]) -> bytes:
    """The bytes of the file in a request: its body, or the form field of that name."""
    for name in BODY_NAMES:
        if name in request:
            value = request[name]
            if isinstance(value, str):  # the server decodes text/*, which loses nothing
                return value.encode("utf-8")
            if isinstance(value, (bytes, bytearray)):
                return bytes(value)
            raise ValueError("The file came decoded from application/json; send it as application/octet-stream.")
    raise ValueError("No file in the request: send its bytes as the body, as application/octet-stream.")


@functools.cache
def load(folder: str) -> "Magika":
    """The model in that folder, read once a worker."""
    return Magika(Path(folder))


class Magika:
    """The model with its two tables."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.min.json").read_text())
        if self.config["mid_size"] or self.config["use_inputs_at_offsets"]:
            raise ValueError("this handler reads a file's beginning and end only, and the model wants more")
        self.content_types = json.loads((folder / "content_types.json").read_text())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), sess_options=options, providers=["CPUExecutionProvider"]
        )

    def identify(self, contents: Sequence[bytes]) -> list[dict[str, Any]]:
        """What each file is; the model runs once, for those files that only it can tell."""
        rows = [self.row(content) for content in contents]
        asked = [row for row in rows if row is not None]
        scores = iter(self.session.run(["target_label"], {"bytes": np.stack(asked)})[0] if asked else ())
        return [
            self.answer(self.few_bytes(content), 1.0) if row is None else self.judge(next(scores))
            for content, row in zip(contents, rows, strict=True)
        ]

    def row(self, content: bytes) -> npt.NDArray[np.int32] | None:
        """The model's input: beginning and end without outer white space, padded between; None where too little is left."""
        block, padding = self.config["block_size"], self.config["padding_token"]
        beginning = content[:block].lstrip()[: self.config["beg_size"]]
        if len(beginning) < self.config["min_file_size_for_dl"]:
            return None
        end = content[-block:].rstrip()[-self.config["end_size"] :]
        row = np.full(self.config["beg_size"] + self.config["end_size"], padding, dtype=np.int32)
        row[: len(beginning)] = np.frombuffer(beginning, dtype=np.uint8)
        row[len(row) - len(end) :] = np.frombuffer(end, dtype=np.uint8)
        return row

    def few_bytes(self, content: bytes) -> str:
        """The label of a file that is too short for the model."""
        if not content:
            return "empty"
        try:
            content[: self.config["block_size"]].decode("utf-8")
        except UnicodeDecodeError:
            return "unknown"
        return "txt"

    def judge(self, scores: npt.NDArray[np.float32]) -> dict[str, Any]:
        """The likeliest label, or a general one where its score is below what that label needs."""
        best = int(scores.argmax())
        score = float(scores[best])
        label = self.config["target_labels_space"][best]
        shown = self.config["overwrite_map"].get(label, label)
        if score < self.config["thresholds"].get(label, self.config["medium_confidence_threshold"]):
            shown = "txt" if self.content_types[shown]["is_text"] else "unknown"
        return self.answer(shown, score)

    def answer(self, label: str, score: float) -> dict[str, Any]:
        """What a client reads."""
        about = self.content_types[label]
        default_type = "text/plain" if about["is_text"] else "application/octet-stream"
        return {
            "label": label,
            "description": label if about["description"] is None else about["description"],
            "mime_type": default_type if about["mime_type"] is None else about["mime_type"],
            "group": "unknown" if about["group"] is None else about["group"],
            "score": score,
        }

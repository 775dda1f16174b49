"""The models that every contender serves: the same code behind each server's own way of calling it; no server is imported here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Predict = Callable[[list[Any]], list[Any]]
"""Takes the decoded bodies of one batch, gives back one answer (str or bytes) for each."""

SHAPE = (3, 96, 96)


def noop(_folder: Path) -> Predict:
    """Answers at once: what is measured is the server."""
    return lambda rows: [b"ok"] * len(rows)


def mlp(folder: Path) -> Predict:
    """64 numbers from a JSON list to 10, as a JSON list."""
    import numpy as np

    session = _session(folder / "mlp.onnx")

    def predict(rows: list[Any]) -> list[Any]:
        outputs = session.run(None, {"x": np.asarray(rows, dtype=np.float32)})[0]
        return [json.dumps(row) for row in outputs.tolist()]

    return predict


def convnet(folder: Path) -> Predict:
    """A picture of 3 x 96 x 96 float32 as bytes to 10 numbers, as bytes."""
    import numpy as np

    session = _session(folder / "convnet.onnx")

    def predict(rows: list[Any]) -> list[Any]:
        pictures = np.stack([np.frombuffer(row, dtype=np.float32).reshape(SHAPE) for row in rows])
        return [row.tobytes() for row in session.run(None, {"x": pictures})[0]]

    return predict


def _session(file: Path) -> Any:
    """One thread: each contender has one worker, and the load generator needs the other core."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


MODELS: dict[str, Callable[[Path], Predict]] = {"noop": noop, "mlp": mlp, "convnet": convnet}

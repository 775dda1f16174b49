"""What is measured: the table of workloads with the bytes that are sent, and how an answer is checked before it is counted."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.onnx_models import build_convnet, build_mlp

SERVED = Path(__file__).parent / "served"


@dataclass(frozen=True)
class Workload:
    """One row: a model, its batching, and how many clients ask at once.

    `longer` makes its rounds so many times as long as usual: the batch that is under way when a round ends counts for
    nothing, and where one takes 45 ms that would be up to one percent of five seconds. A loop loses nothing this way.
    """

    name: str
    title: str
    model: str
    batch_size: int
    delay_ms: int
    clients: int
    workers: int = 1
    longer: int = 1


WORKLOADS = (
    Workload("noop-1", "no-op, batch 1, c=32", "noop", 1, 5, 32),
    Workload("noop-8", "no-op, batch 8 / 5 ms, c=32", "noop", 8, 5, 32),
    Workload("mlp-1", "MLP from a JSON list, batch 1, c=32", "mlp", 1, 5, 32),
    Workload("mlp-16", "MLP from a JSON list, batch 16 / 5 ms, c=32", "mlp", 16, 5, 32),
    Workload("convnet-8", "convnet 3×96×96, batch 8 / 5 ms, c=32", "convnet", 8, 5, 32, longer=3),
    Workload("convnet-8x2", "the same with two workers, c=32", "convnet", 8, 5, 32, workers=2, longer=3),
    Workload("noop-8-light", "no-op, batch 8 / 5 ms, c=1", "noop", 8, 5, 1),
    Workload("mlp-16-light", "MLP, batch 16 / 5 ms, c=8", "mlp", 16, 5, 8),
)


class Material:
    """A folder with everything that is served and sent: the models' files, an archive of each, and a request body of each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.archives = folder / "models"
        random = np.random.default_rng(7)
        row = [round(float(value), 6) for value in random.normal(0, 1, 64)]
        self._bodies = {
            "noop": b"x",
            "mlp": json.dumps(row).encode(),
            "convnet": random.normal(0, 1, (3, 96, 96)).astype(np.float32).tobytes(),
        }
        for model in self._bodies:
            self._build(model)
        self._expected = {model: self._answer(model) for model in self._bodies}

    def _build(self, model: str) -> None:
        archive = self.archive(model)
        (archive / "MAR-INF").mkdir(parents=True)
        manifest = {"runtime": "python", "model": {"modelName": model, "handler": "service.py:handle"}}
        (archive / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
        (archive / "model.txt").write_text(model)
        for name in ("predict.py", "service.py"):
            shutil.copy(SERVED / name, archive / name)
        if model == "mlp":
            build_mlp(archive / "mlp.onnx")
        elif model == "convnet":
            build_convnet(archive / "convnet.onnx")
        self.body(model).write_bytes(self._bodies[model])

    def archive(self, model: str) -> Path:
        """The model's archive, a directory."""
        return self.archives / model

    def body(self, model: str) -> Path:
        """The file with the request's body."""
        return self.folder / f"{model}.body"

    @staticmethod
    def content_type(model: str) -> str:
        """What the body is sent as."""
        return "application/json" if model == "mlp" else "application/octet-stream"

    def _answer(self, model: str) -> bytes:
        from benchmarks.served import predict

        body = self._bodies[model]
        answer = predict.MODELS[model](self.archive(model))([json.loads(body) if model == "mlp" else body])[0]
        return answer.encode() if isinstance(answer, str) else bytes(answer)

    def is_right(self, model: str, answer: bytes) -> bool:
        """Whether a server's answer is the model's, within what batching may change."""
        expected = self._expected[model]
        if model == "noop":
            return answer == expected
        decode = json.loads if model == "mlp" else lambda data: np.frombuffer(data, np.float32)
        try:
            return bool(np.allclose(decode(answer), decode(expected), rtol=1e-3, atol=1e-4))
        except (ValueError, TypeError):
            return False

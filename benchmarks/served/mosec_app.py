"""The same models behind mosec; BENCH_APP holds `MODEL FOLDER BATCH_SIZE DELAY_MS WORKERS ROUTES`, since workers import this anew."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import predict
from mosec import Runtime, Server, Worker

MODEL, FOLDER, BATCH, DELAY, WORKERS, ROUTES = os.environ["BENCH_APP"].split("\n")


class Model(Worker):
    """A worker that takes one decoded body at batch size 1 and a list of them at any other: mosec's rule."""

    def __init__(self) -> None:
        """Load the model."""
        super().__init__()
        self._predict = predict.MODELS[MODEL](Path(FOLDER))

    def deserialize(self, data: bytes) -> Any:
        """JSON by mosec's own reader, everything else as it came."""
        return super().deserialize(data) if MODEL == "mlp" else data

    def forward(self, data: Any) -> Any:
        """One call a batch."""
        return self._predict(data) if int(BATCH) > 1 else self._predict([data])[0]

    def serialize(self, data: Any) -> bytes:
        """The bytes themselves."""
        return data.encode() if isinstance(data, str) else data


if __name__ == "__main__":
    server = Server()
    routes = int(ROUTES)
    paths = ["/inference"] if routes == 1 else [f"/inference{number}" for number in range(routes)]
    server.register_runtime(
        {
            path: [Runtime(Model, num=int(WORKERS), max_batch_size=int(BATCH), max_wait_time=int(DELAY))]
            for path in paths
        }
    )
    server.run()

"""The handler of the archives that this server and multi-model-server load; its folder says which model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import predict

_loaded: dict[str, predict.Predict] = {}


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[Any] | None:
    """One call a batch; called once with no data to load the model."""
    if not _loaded:
        folder = Path(context.system_properties["model_dir"])
        _loaded["model"] = predict.MODELS[(folder / "model.txt").read_text().strip()](folder)
    if data is None:
        return None
    return _loaded["model"]([row["body"] for row in data])

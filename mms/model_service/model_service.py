"""Base classes of services in archives of the 0.x layout; part of the handler kit, kept for such archives only."""

from __future__ import annotations

import ast
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mms.context import Context

logger = logging.getLogger(__name__)


class ModelService:
    """A service with a signature file; answers each request of a batch by itself."""

    def __init__(
        self, model_name: str, model_dir: str, manifest: Mapping[str, Any] | None, gpu: int | None = None
    ) -> None:
        self.model_name = model_name
        self.model_dir = model_dir
        self.manifest = manifest
        self.gpu = gpu
        self.ctx: Any = None
        self._context: Context | None = None
        self._signature: dict[str, Any] = {}

    def initialize(self, context: Context) -> None:
        """Read the signature file that the manifest names. Raises ValueError where there is none."""
        self._context = context
        manifest = context.manifest or {}
        file = Path(
            context.system_properties["model_dir"], manifest.get("Model", {}).get("Signature", "signature.json")
        )
        if not file.is_file():
            raise ValueError("Signature file is not found.")
        self._signature = json.loads(file.read_text(encoding="utf-8"))

    def inference(self, data: list[Any]) -> Any:
        """From the inputs of one request to its answer."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to infer.")

    def ping(self) -> Any:
        """Whether the service is well."""
        return None

    def signature(self) -> Any:
        """The content of the signature file."""
        return self._signature

    def handle(self, data: Sequence[Mapping[str, Any]], context: Context) -> list[Any]:
        """The handler of the service: one answer a request."""
        answers = []
        for item in data:
            answer = self.inference([self._input(item)])
            # A service of that time answers a list with one entry for its one request.
            answers.append(answer[0] if isinstance(answer, list) and len(answer) == 1 else answer)
        return answers

    def _input(self, item: Mapping[str, Any]) -> Any:
        inputs = self._signature.get("inputs") or [{}]
        for name in (inputs[0].get("data_name"), "body", "data"):
            value = item.get(name) if name is not None else None
            if value is not None:
                break
        if self._signature.get("input_type") == "application/json" and isinstance(value, bytes | bytearray):
            return ast.literal_eval(value.decode("utf-8"))
        return value


class SingleNodeService(ModelService):
    """A service in three steps: `_preprocess`, `_inference`, `_postprocess`."""

    def inference(self, data: list[Any]) -> Any:
        """Run the three steps and log how long each took."""
        began = time.perf_counter()
        data = self._preprocess(data)
        prepared = time.perf_counter()
        data = self._inference(data)
        inferred = time.perf_counter()
        data = self._postprocess(data)
        done = time.perf_counter()
        steps = (("preprocess", prepared - began), ("inference", inferred - prepared), ("postprocess", done - inferred))
        logger.info("%s", ", ".join(f"{name} time: {seconds * 1000:.2f}" for name, seconds in steps))
        return data

    def _preprocess(self, data: Any) -> Any:
        return data

    def _inference(self, data: Any) -> Any:
        return data

    def _postprocess(self, data: Any) -> Any:
        return data

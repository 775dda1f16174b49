"""Finds and loads a model's handler, in the worker process; whatever a handler raises as it is loaded is the model's failure.

Only what a worker may hold enters: standard library, the handler kit, errors.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import logging
import sys
import types
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mms.metrics.metrics_store import MetricsStore
from mms.service import Service

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadOrder:
    """What a worker is told to load; the wire form of a WorkerSpec."""

    model: str
    model_dir: str
    handler: str | None
    batch_size: int = 1
    gpu_id: int | None = None
    max_response_size: int = 6_553_500
    decode: bool = True
    threads: int = 1
    legacy: bool = False
    environment: dict[str, str] | None = None

    def as_json(self) -> dict[str, Any]:
        """The order as plain values."""
        return asdict(self)


def load(order: LoadOrder) -> Service:
    """Import the handler and let it load its model; whatever it raises is the reason why it cannot be served."""
    manifest = _manifest(order)
    if not order.handler:
        from mms.workers.onnx import load_onnx

        return load_onnx(order, manifest)
    if order.legacy:
        return _load_legacy(order, manifest)
    module_path, _, function_name = order.handler.partition(":")
    module_name = Path(module_path).name.removesuffix(".py")
    directory = Path(order.model_dir, module_path).parent
    for folder in (order.model_dir, str(directory)):
        if folder in sys.path:
            sys.path.remove(folder)
        sys.path.insert(0, folder)
    module = _import(module_name, directory)
    function = getattr(module, function_name or "handle", None)
    if function is not None:
        return _load_function(function, order, manifest)
    return _load_class(module, order, manifest)


def _manifest(order: LoadOrder) -> dict[str, Any] | None:
    path = Path(order.model_dir, "MANIFEST.json" if order.legacy else "MAR-INF/MANIFEST.json")
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else None


def _import(name: str, directory: Path) -> types.ModuleType:
    """The handler's module by name; its own file wins over a module of that name which the server's code has imported."""
    known = sys.modules.get(name)
    own = directory / f"{name}.py"
    if known is not None and own.is_file() and getattr(known, "__file__", None) != str(own):
        del sys.modules[name]
    return importlib.import_module(name)


def _new_service(order: LoadOrder, manifest: dict[str, Any] | None, entry_point: Callable[..., Any]) -> Service:
    service = Service(order.model, order.model_dir, manifest, entry_point, order.gpu_id, order.batch_size)
    service.context.metrics = MetricsStore({}, order.model)
    return service


def _load_function(function: Callable[..., Any], order: LoadOrder, manifest: dict[str, Any] | None) -> Service:
    service = _new_service(order, manifest, function)
    function(None, service.context)
    return service


def _load_class(module: types.ModuleType, order: LoadOrder, manifest: dict[str, Any] | None) -> Service:
    classes = _classes_of(module)
    if len(classes) != 1:
        raise ValueError(f"Expected only one class in custom service code or a function entry point {classes}")
    instance = classes[0]()
    service = _new_service(order, manifest, instance.handle)
    initialize = instance.initialize
    try:
        initialize(service.context)
    except Exception:
        # As handlers were always treated: the worker serves, and the handler says at its first call what it lacks.
        logger.warning("The initialize() of the handler raised; it is called nevertheless.", exc_info=True)
    return service


def _load_legacy(order: LoadOrder, manifest: dict[str, Any] | None) -> Service:
    from mms.model_service.model_service import SingleNodeService

    handler = order.handler or ""
    file = Path(order.model_dir, handler if handler.endswith(".py") else f"{handler}.py")
    sys.path.insert(0, order.model_dir)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"Unable to load module {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    classes = [found for found in _classes_of(module) if issubclass(found, SingleNodeService)]
    if not classes:
        raise ValueError(f"Expected a subclass of SingleNodeService in {file.name}")
    instance = classes[0](order.model, order.model_dir, manifest, order.gpu_id)
    service = _new_service(order, manifest, instance.handle)
    instance.initialize(service.context)
    return service


def _classes_of(module: types.ModuleType) -> list[type]:
    return [found for _, found in inspect.getmembers(module, inspect.isclass) if found.__module__ == module.__name__]

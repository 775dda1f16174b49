"""Opens ONNX sessions, from a cached optimised graph where there is one: weights mapped from a file that all workers share.

The cache lies beside an archive's kept content and is only ever a shortcut: whatever is wrong with it, the source model is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import onnxruntime as ort

from mms.workers.loading import LoadOrder

logger = logging.getLogger(__name__)

_CUDA = "CUDAExecutionProvider"
_KEPT = re.compile(r"[0-9a-f]{64}")
_GRAPH, _WEIGHTS, _STAMP = "model.onnx", "weights.bin", "stamp.json"
_WORTH = 1_000_000  # bytes; smaller models load as fast from the source
_GROWTH = 1.5  # a graph whose folded weights grow beyond this (int8 models) is not worth its memory


def open_session(model: Path, folder: Path, order: LoadOrder) -> ort.InferenceSession:
    """A session on `model`: on the GPU that the order names where onnxruntime can, else on `threads` of the CPU."""
    if order.gpu_id is not None and _CUDA in ort.get_available_providers():
        return _gpu_session(model, order, order.gpu_id)
    cache = _cache_folder(model, folder)
    if cache is None:
        return _cpu_session(model, _options(order))
    session = _from_cache(cache, order)
    if session is None and not cache.exists():
        _fill(cache, model, order)
        session = _from_cache(cache, order)
    return session if session is not None else _cpu_session(model, _options(order))


def _gpu_session(model: Path, order: LoadOrder, gpu_id: int) -> ort.InferenceSession:
    """On one GPU; onnxruntime itself falls back to the CPU, without an error, where CUDA's libraries are missing."""
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        preload()  # CUDA and cuDNN as pip installs them lie where the loader does not look
    providers = [(_CUDA, {"device_id": gpu_id}), "CPUExecutionProvider"]
    session = ort.InferenceSession(str(model), _options(order), providers=providers)
    if _CUDA in session.get_providers():
        logger.info("Model %s runs on GPU %d.", order.model, gpu_id)
    else:
        logger.warning("Model %s was given GPU %d, but runs on the CPU: CUDA could not be loaded.", order.model, gpu_id)
    return session


def _cpu_session(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _options(order: LoadOrder) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = order.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Several workers share the cores: a thread that spins takes them from a neighbour.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _cache_folder(model: Path, folder: Path) -> Path | None:
    """Where the cache of this model lies; None for a directory served in place, beside which nothing is written."""
    if not _KEPT.fullmatch(folder.name) or model.stat().st_size < _WORTH:
        return None
    key = hashlib.sha256(repr((ort.__version__, str(model.relative_to(folder)), "all", _cpu())).encode())
    return folder.with_name(f"{folder.name}.onnx-{key.hexdigest()[:16]}")


def _cpu() -> str:
    """What the optimiser may adapt the graph to."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line for line in lines if line.startswith(("flags", "Features"))), "unknown")


def _from_cache(cache: Path, order: LoadOrder) -> ort.InferenceSession | None:
    try:
        stamp = json.loads((cache / _STAMP).read_text())
        if not stamp["usable"] or not _intact(cache, stamp):
            return None
        options = _options(order)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return _cpu_session(cache / _GRAPH, options)
    except FileNotFoundError:
        return None
    except Exception:
        logger.warning("The optimised graph in %s cannot be used; the source model is.", cache.name, exc_info=True)
        return None


def _intact(cache: Path, stamp: dict[str, Any]) -> bool:
    """Sizes at each load, contents once after each start of the machine: a flipped bit in the weights would not be noticed."""
    for name, wanted in stamp["files"].items():
        if (cache / name).stat().st_size != wanted["size"]:
            logger.warning("%s in %s has another size than written; the source model is used.", name, cache.name)
            return False
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    seen = cache / f"checked-{boot}"
    if seen.exists():
        return True
    for name, wanted in stamp["files"].items():
        if _digest(cache / name) != wanted["sha256"]:
            logger.warning("%s in %s is damaged; the source model is used.", name, cache.name)
            return False
    for old in cache.glob("checked-*"):
        old.unlink(missing_ok=True)
    seen.touch()
    return True


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fill(cache: Path, model: Path, order: LoadOrder) -> None:
    """Write the optimised graph, whole or not at all; several workers may do so at once, the first one stays."""
    place: Path | None = None
    try:
        place = Path(tempfile.mkdtemp(dir=cache.parent, prefix=f"{cache.name}.new-"))
        options = _options(order)
        options.optimized_model_filepath = str(place / _GRAPH)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        _cpu_session(model, options)
        names = [name for name in (_GRAPH, _WEIGHTS) if (place / name).exists()]
        sizes = {name: (place / name).stat().st_size for name in names}
        files = {name: {"size": sizes[name], "sha256": _digest(place / name)} for name in names}
        usable = sum(sizes.values()) <= _GROWTH * model.stat().st_size
        if not usable:
            for name in names:
                (place / name).unlink()
        (place / _STAMP).write_text(json.dumps({"usable": usable, "files": files}))
        for path in place.iterdir():
            _sync(path)
        place.chmod(0o755)
        place.rename(cache)
    except Exception as error:
        if not cache.exists():
            logger.warning("The optimised graph of %s could not be kept: %s", model.name, error)
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

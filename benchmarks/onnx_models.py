"""Builds the two ONNX models of the benchmark from nothing, the same each time; the convnet is sized to 6 ms an item on one core."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_OPSET = 17
_IR = 9
_CHANNELS = ((3, 32, 2), (32, 64, 1), *((64, 64, 1),) * 2, (64, 128, 2), *((128, 128, 1),) * 4)
"""Inputs, outputs and stride of each 3 x 3 convolution."""


def build_mlp(file: Path, *, seed: int = 1) -> None:
    """64 to 256 to 10."""
    random = np.random.default_rng(seed)
    weights = {
        "w1": random.normal(0, 0.1, (64, 256)),
        "b1": random.normal(0, 0.1, 256),
        "w2": random.normal(0, 0.1, (256, 10)),
        "b2": random.normal(0, 0.1, 10),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"]),
    ]
    _save(file, nodes, weights, ["N", 64])


def build_convnet(file: Path, *, seed: int = 2) -> None:
    """3 x 96 x 96 to 10."""
    random = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    nodes = []
    at = "x"
    for number, (inputs, outputs, stride) in enumerate(_CHANNELS):
        weights[f"w{number}"] = random.normal(0, (2 / (9 * inputs)) ** 0.5, (outputs, inputs, 3, 3))
        weights[f"b{number}"] = np.zeros(outputs)
        nodes.append(
            helper.make_node(
                "Conv", [at, f"w{number}", f"b{number}"], [f"c{number}"], pads=[1, 1, 1, 1], strides=[stride, stride]
            )
        )
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        at = f"r{number}"
    weights["w"] = random.normal(0, 0.1, (_CHANNELS[-1][1], 10))
    weights["b"] = np.zeros(10)
    nodes.append(helper.make_node("GlobalAveragePool", [at], ["p"]))
    nodes.append(helper.make_node("Flatten", ["p"], ["f"]))
    nodes.append(helper.make_node("Gemm", ["f", "w", "b"], ["y"]))
    _save(file, nodes, weights, ["N", 3, 96, 96])


def _save(file: Path, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: list[int | str]) -> None:
    graph = helper.make_graph(
        nodes,
        file.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    onnx.checker.check_model(model)
    onnx.save(model, file)

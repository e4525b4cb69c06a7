"""Models whose cost is known by how they are built: equal convolutions one after the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_chain(path: Path, layers: int, *, channels: int = 32, size: int = 64) -> Path:
    """Write a file with so many 3x3 convolutions, each followed by a ReLU, and return its path.

    One layer more costs 1 / layers more, but for what a run costs by itself.
    """
    scale = 1 / np.sqrt(4.5 * channels)  # keeps the size of values from layer to layer
    weight = (scale * np.random.default_rng(0).standard_normal((channels, channels, 3, 3))).astype(np.float32)
    nodes, now = [], "x"
    for layer in range(layers):
        then = "y" if layer == layers - 1 else f"r{layer}"
        nodes += [
            helper.make_node("Conv", [now, "w"], [f"c{layer}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{layer}"], [then]),
        ]
        now = then
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, size, size]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path

"""The convolutions of an ONNX file, with their weights: what a network is rebuilt from where its names are unknown."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mggc_edge.compiler.facts import read_onnx
from mggc_edge.errors import ArtifactError
from mggc_edge.lazy import require
from mggc_edge.tensors import FloatArray


def read_convolutions(path: Path) -> list[tuple[FloatArray, FloatArray]]:
    """Return weight [out, in, k, k] and bias [out], float32, of every convolution with a bias, in the graph's order.

    Convolutions whose weights are no initialisers are left out.

    Raises:
        ArtifactError: the file is missing, damaged, too large, or keeps its weights in other files.
    """
    helper = require("onnx.numpy_helper", extra="onnx")
    model = read_onnx(path)
    initialisers = {tensor.name: tensor for tensor in model.graph.initializer}
    found: list[tuple[FloatArray, FloatArray]] = []
    for node in model.graph.node:
        if node.op_type != "Conv" or len(node.input) != 3 or not {*node.input[1:]} <= initialisers.keys():
            continue
        try:
            weight, bias = (np.asarray(helper.to_array(initialisers[name]), np.float32) for name in node.input[1:])
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"'{path}' is damaged: the weights of '{node.input[1]}' cannot be read") from error
        found.append((weight, bias))
    return found

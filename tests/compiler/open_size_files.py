"""ONNX files that leave their picture size open, as other tools write them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.compiler.passes.pass_helpers import Shape, Values, build, random

OPEN: Shape = ("n", 3, "h", "w")
HALVE: dict[str, Any] = {"strides": [2, 2], "pads": [1] * 4}


def saved(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, Values], shape: Shape = OPEN) -> Path:
    floats = {name: v.astype(np.float32) if v.dtype == np.float64 else v for name, v in constants.items()}
    path.write_bytes(build(nodes, shape, floats, kind=TensorProto.FLOAT).SerializeToString())
    return path


def halvings(path: Path, count: int, shape: Shape = OPEN) -> Path:
    """As a ResNet does: 3x3 convolutions that halve, transposed ones with output padding that double."""
    names = ["x", *(f"d{n}" for n in range(count)), *(f"u{n}" for n in range(count - 1)), "y"]
    nodes = [
        helper.make_node("Conv", [before, "w"], [after], **HALVE)
        if number < count
        else helper.make_node("ConvTranspose", [before, "w"], [after], output_padding=[1, 1], **HALVE)
        for number, (before, after) in enumerate(itertools.pairwise(names))
    ]
    return saved(path, nodes, {"w": random(3, 3, 3, 3) / 9}, shape)

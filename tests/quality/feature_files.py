"""What the tests of feature networks share: tiny networks, pictures, and what comes out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from mggc_edge.errors import (
    ArtifactError,
)
from mggc_edge.quality.features import FeatureNetwork

Shape = list[int | str]
WEIGHTS = np.random.default_rng(0).normal(size=(5, 3, 1, 1))


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    outputs: dict[str, tuple[int, Shape]],
    *,
    shape: Shape | None = None,
    kind: int = TensorProto.FLOAT,
    inputs: tuple[str, ...] = ("x",),
) -> Path:
    """A network of `nodes` over the input x and the weights w of a 1 x 1 convolution from 3 to 5 channels."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape or [1, 3, 8, 8]) for name in inputs],
        [helper.make_tensor_value_info(name, *what) for name, what in outputs.items()],
        [numpy_helper.from_array(WEIGHTS.astype(dtype), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


CLASSIFIER = [
    helper.make_node("Conv", ["x", "w"], ["block/conv"]),
    helper.make_node("Relu", ["block/conv"], ["block/relu:0"]),
    helper.make_node("GlobalAveragePool", ["block/relu:0"], ["pool"]),
    helper.make_node("Softmax", ["pool"], ["prob"], axis=1),
]


def classifier(folder: Path, *, kind: int = TensorProto.FLOAT, shape: Shape | None = None) -> Path:
    """x -> block/conv -> block/relu:0 [1, 5, H, W] -> pool -> prob [1, 5, 1, 1]."""
    return save(folder / "net.onnx", CLASSIFIER, {"prob": (kind, [1, 5, 1, 1])}, kind=kind, shape=shape)


def flat(color: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new("RGB", size, color)


def noise(seed: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(np.uint8))


def by_hand(picture: Image.Image) -> tuple[Any, Any]:
    """Mean of block/relu:0 over the positions, and prob, of an 8 x 8 picture under "unit"."""
    x = np.asarray(picture).astype(np.float64).transpose(2, 0, 1) / 255
    pooled = np.maximum(np.einsum("oi,ihw->ohw", WEIGHTS[:, :, 0, 0], x), 0).mean(axis=(1, 2))
    return pooled, np.exp(pooled) / np.exp(pooled).sum()


def refused(which: str | Path) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught, FeatureNetwork(which):
        pass
    return caught.value

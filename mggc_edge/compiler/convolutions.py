"""The convolutions of an ONNX file, with their weights: what a network is rebuilt from where its names are unknown."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mggc_edge.compiler.facts import constants_of, read_onnx
from mggc_edge.errors import ArtifactError
from mggc_edge.lazy import require
from mggc_edge.tensors import FloatArray

if TYPE_CHECKING:
    import onnx

CAFFE = "onnx-caffe2"
Geometry = tuple[int, int]  # stride and padding, the same along both axes


def read_convolutions(path: Path) -> list[tuple[FloatArray, FloatArray, Geometry]]:
    """Return weight [out, in, k, k] and bias [out], float32, and geometry of the convolutions, in the graph's order.

    They are those with constant weights, a bias, and a ReLU that alone reads them; others, such as those before a batch
    norm, dilated ones and ones of groups, are left out. What a Concat joins stands in the order in which it does.

    Raises:
        ArtifactError: the file is missing, damaged, too large, or keeps its weights in other files.
    """
    helper = require("onnx.numpy_helper", extra="onnx")
    model = read_onnx(path)
    constants = constants_of(model)
    found: dict[str, tuple[FloatArray, FloatArray, Geometry]] = {}  # by what the ReLU gives
    order: list[str] = []
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in model.graph.node:
        if node.op_type == "Concat":
            _reorder(order, list(dict.fromkeys(name for name in node.input if name in found)))
        if node.op_type != "Conv" or len(node.input) != 3 or not {*node.input[1:]} <= constants.keys():
            continue
        geometry, then = _geometry(node, constants[node.input[1]].dims[2:]), readers.get(node.output[0], [])
        if geometry is None or [other.op_type for other in then] != ["Relu"]:
            continue
        try:
            weight, bias = (np.asarray(helper.to_array(constants[name]), np.float32) for name in node.input[1:])
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"'{path}' is damaged: the weights of '{node.input[1]}' cannot be read") from error
        found[then[0].output[0]] = weight, bias, geometry
        order.append(then[0].output[0])
    return [found[name] for name in order]


def is_from_caffe(path: Path) -> bool:
    """Return whether an ONNX file says that Caffe2's exporter wrote it, whose networks take Caffe's pictures.

    Raises:
        ArtifactError: as `read_convolutions`.
    """
    return str(read_onnx(path).producer_name) == CAFFE


def _reorder(order: list[str], joined: list[str]) -> None:
    """Put names, which are in `order`, into the places that they have there in the order in which they are given."""
    places = sorted(order.index(name) for name in joined)
    for place, name in zip(places, joined, strict=True):
        order[place] = name


def _geometry(node: onnx.NodeProto, kernel: Iterable[int]) -> Geometry | None:
    """Return stride and padding of a convolution; None where it has groups, is dilated, or differs along its axes."""
    helper = require("onnx.helper", extra="onnx")
    given = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    if given.get("group", 1) != 1 or {*given.get("dilations", [1])} != {1}:
        return None
    strides, pads = {*given.get("strides", [1])}, {*given.get("pads", [0])}
    if given.get("auto_pad") in (b"SAME_UPPER", b"SAME_LOWER"):
        pads = {(side - 1) // 2 for side in kernel if side % 2} if strides == {1} else set()
    return (strides.pop(), pads.pop()) if len(strides) == len(pads) == 1 else None

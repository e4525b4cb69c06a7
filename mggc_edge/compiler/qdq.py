"""A graph pass: put a network's 8-bit grids into its ONNX graph, as QuantizeLinear and DequantizeLinear (Q/DQ).

Every convolution's weight becomes int8 in the file, with a DequantizeLinear behind it; what it reads goes through a
pair of QuantizeLinear and DequantizeLinear. Where an explicit Pad stands before the convolution it is moved between
the two, where it copies bytes and not floats: padding by reflection commutes with rounding. So a convolution whose
output is quantized at once, or after a ReLU, can run in int8 in an engine that looks for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mggc_edge.errors import CheckFailedError
from mggc_edge.lazy import require
from mggc_edge.tensors import Array, FloatArray

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Grid:
    """The grids of one convolution.

    Attributes:
        name: of its row in the layer table; tensors of the graph are named after it.
        weight: int8, in the shape of the convolution's weight; its value is weight * weight_scale.
        weight_scale: float32, [channels] along `axis`, or [] where the whole weight has one.
        axis: of the weight's output channels.
        scale, zero_point: of what it reads, (q - zero_point) * scale; None: it reads floats.
    """

    name: str
    weight: Array
    weight_scale: FloatArray
    axis: int
    scale: float | None
    zero_point: int = 0


def insert_qdq(model: onnx.ModelProto, grids: Sequence[Grid]) -> None:
    """Put grids into a graph, one for each of its convolutions, in the order in which they run; in place.

    Raises:
        CheckFailedError: the graph has other convolutions than these.
    """
    graph = model.graph
    convolutions = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")]
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    found = [tuple(tensors[node.input[1]].dims) if node.input[1] in tensors else () for node in convolutions]
    if found != [grid.weight.shape for grid in grids]:
        raise CheckFailedError("the exported graph has not the convolutions of the network, and takes no grids")
    by_output = {node.output[0]: node for node in graph.node}
    helper = require("onnx.helper", extra="onnx")
    for node, grid in zip(convolutions, grids, strict=True):
        weight, scale, zero = f"{grid.name}.weight_int8", f"{grid.name}.weight_scale", f"{grid.name}.weight_zero_point"
        _store(graph, weight, grid.weight)
        _store(graph, scale, grid.weight_scale)
        _store(graph, zero, np.zeros(grid.weight_scale.shape, np.int8))
        dequantized = f"{grid.name}.weight_dequantized"
        of_weight = helper.make_node(
            "DequantizeLinear", [weight, scale, zero], [dequantized], name=dequantized, axis=grid.axis
        )
        _insert(graph, node, [of_weight])
        node.input[1] = dequantized
        if grid.scale is not None:
            _quantize_input(graph, node, by_output.get(node.input[0]), grid)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _quantize_input(graph: onnx.GraphProto, node: onnx.NodeProto, before: onnx.NodeProto | None, grid: Grid) -> None:
    """Put Q/DQ before a convolution, with the Pad before it, if there is one, between the two."""
    helper = require("onnx.helper", extra="onnx")
    assert grid.scale is not None
    scale, zero = f"{grid.name}.input_scale", f"{grid.name}.input_zero_point"
    quantized, padded, seen = (f"{grid.name}.input_{what}" for what in ("quantized", "padded", "dequantized"))
    _store(graph, scale, np.array(grid.scale, np.float32))
    _store(graph, zero, np.array(grid.zero_point, np.uint8))
    readers = [other for other in graph.node if before is not None and before.output[0] in other.input]
    pad = before if before is not None and before.op_type == "Pad" and len(readers) == 1 else None
    source = node.input[0] if pad is None else pad.input[0]
    at = node if pad is None else pad
    _insert(graph, at, [helper.make_node("QuantizeLinear", [source, scale, zero], [quantized], name=quantized)])
    if pad is not None:
        pad.input[0], pad.output[0] = quantized, padded
        quantized = padded
    _insert(graph, node, [helper.make_node("DequantizeLinear", [quantized, scale, zero], [seen], name=seen)])
    node.input[0] = seen


def _store(graph: onnx.GraphProto, name: str, values: Array) -> None:
    graph.initializer.append(require("onnx.numpy_helper", extra="onnx").from_array(np.asarray(values), name))


def _insert(graph: onnx.GraphProto, node: onnx.NodeProto, new: Sequence[onnx.NodeProto]) -> None:
    """Put nodes before a node of the graph."""
    place = next(number for number, other in enumerate(graph.node) if other is node or other == node)
    for offset, one in enumerate(new):
        graph.node.insert(place + offset, one)

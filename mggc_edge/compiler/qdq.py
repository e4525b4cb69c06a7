"""A graph pass: put 8-bit grids into an ONNX graph, as QuantizeLinear and DequantizeLinear (Q/DQ).

Every convolution's weight becomes int8 in the file, with a DequantizeLinear behind it; what it reads goes through a
pair of QuantizeLinear and DequantizeLinear. Where an explicit Pad stands before the convolution it is moved between
the two, where it copies bytes and not floats: padding by reflection commutes with rounding. So a convolution whose
output is quantized at once, or after a ReLU, can run in int8 in an engine that looks for that; a grid may ask for a
pair behind the convolution as well. The grids are those that a network was trained on (`mggc_edge.compiler.quantized`),
or follow from calibration (`mggc_edge.compiler.precision.int8`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from mggc_edge.errors import CheckFailedError
from mggc_edge.lazy import require
from mggc_edge.tensors import Array, FloatArray

if TYPE_CHECKING:
    import onnx

COPYING = (b"reflect", b"edge", b"wrap")  # modes of Pad that give no other values than there are


@dataclass(frozen=True)
class Grid:
    """The grids of one convolution.

    Attributes:
        name: of its row in the layer table, or of its node; tensors of the graph are named after it.
        weight: int8, in the shape of the convolution's weight; its value is weight * weight_scale.
        weight_scale: float32, [channels] along `axis`, or [] where the whole weight has one.
        axis: of the weight's output channels.
        scale, zero_point: of what it reads, (q - zero_point) * scale; None: it reads floats.
        output: scale and zero point of what it gives, see `given_by`; None: who reads it says.
        levels: type of the levels of what it reads and gives.
    """

    name: str
    weight: Array
    weight_scale: FloatArray
    axis: int
    scale: float | None
    zero_point: int = 0
    output: tuple[float, int] | None = None
    levels: Literal["uint8", "int8"] = "uint8"


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
    put_grids(graph, list(zip(convolutions, grids, strict=True)))


def put_grids(
    graph: onnx.GraphProto, placed: Sequence[tuple[onnx.NodeProto, Grid]], *, pads_between: bool = True
) -> None:
    """Put grids at convolutions of a graph, in place; weights that nobody reads any more are taken out.

    Args:
        placed: nodes of `graph`, each with its grid; every grid has a name of its own.
        pads_between: whether a Pad before a convolution is moved between Q and DQ.
    """
    helper = require("onnx.helper", extra="onnx")
    for node, grid in placed:
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
    for node, grid in placed:
        if grid.output is not None:
            _quantize_output(graph, node, grid, grid.output)
    for node, grid in placed:
        if grid.scale is not None:
            _quantize_input(graph, node, grid, grid.scale, pads_between=pads_between)
    used = names_read(graph)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def names_read(graph: onnx.GraphProto) -> set[str]:
    """Return the names of all tensors that nodes read, those of subgraphs too, and of the outputs."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node.input)
        for inner in subgraphs(node):
            names |= names_read(inner)
    return names


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the graphs that a node holds."""
    return [g for entry in node.attribute for g in (*([entry.g] if entry.HasField("g") else []), *entry.graphs)]


def read_by(graph: onnx.GraphProto, node: onnx.NodeProto) -> tuple[str, onnx.NodeProto | None]:
    """Return the tensor that a convolution reads, with None; or that a Pad before it reads, with that Pad.

    A Pad counts where it copies values that are there, and nobody else reads it.
    """
    before = next((other for other in graph.node if node.input[0] in other.output), None)
    if before is None or before.op_type != "Pad" or len(_readers(graph, node.input[0])) != 1:
        return node.input[0], None
    modes = [entry.s for entry in before.attribute if entry.name == "mode"]
    return (before.input[0], before) if modes and modes[0] in COPYING else (node.input[0], None)


def given_by(graph: onnx.GraphProto, node: onnx.NodeProto) -> str:
    """Return the tensor that a convolution gives; where a ReLU alone reads it, what the ReLU gives."""
    name: str = node.output[0]
    readers = _readers(graph, name)
    alone = len(readers) == 1 and name not in {value.name for value in graph.output}
    return str(readers[0].output[0]) if alone and readers[0].op_type == "Relu" else name


def _quantize_output(graph: onnx.GraphProto, node: onnx.NodeProto, grid: Grid, output: tuple[float, int]) -> None:
    """Let all who read what a convolution gives read it from behind a pair of Q and DQ."""
    source = given_by(graph, node)
    readers = _readers(graph, source)
    scale, zero = _store_grid(graph, f"{grid.name}.output", *output, grid.levels)
    quantized, seen = f"{grid.name}.output_quantized", f"{grid.name}.output_dequantized"
    writer = next(other for other in graph.node if source in other.output)
    for reader in readers:
        for place, name in enumerate(reader.input):
            if name == source:
                reader.input[place] = seen
    helper = require("onnx.helper", extra="onnx")
    pair = [
        helper.make_node("QuantizeLinear", [source, scale, zero], [quantized], name=quantized),
        helper.make_node("DequantizeLinear", [quantized, scale, zero], [seen], name=seen),
    ]
    _insert(graph, writer, pair, after=True)


def _quantize_input(
    graph: onnx.GraphProto, node: onnx.NodeProto, grid: Grid, step: float, *, pads_between: bool
) -> None:
    """Put Q/DQ before a convolution, with the Pad before it, if there is one, between the two.

    Where it reads the pair behind another convolution, that pair is its own too: both have the range of one tensor.
    """
    helper = require("onnx.helper", extra="onnx")
    source, pad = read_by(graph, node) if pads_between else (node.input[0], None)
    before = next((other for other in graph.node if source in other.output), None)
    quantized, padded, seen = (f"{grid.name}.input_{what}" for what in ("quantized", "padded", "dequantized"))
    if before is not None and before.op_type == "DequantizeLinear":
        if pad is None:
            return
        quantized, scale, zero = before.input
    else:
        scale, zero = _store_grid(graph, f"{grid.name}.input", step, grid.zero_point, grid.levels)
        quantize = helper.make_node("QuantizeLinear", [source, scale, zero], [quantized], name=quantized)
        _insert(graph, node if pad is None else pad, [quantize])
    if pad is not None:
        pad.input[0], pad.output[0] = quantized, padded
        quantized = padded
    _insert(graph, node, [helper.make_node("DequantizeLinear", [quantized, scale, zero], [seen], name=seen)])
    node.input[0] = seen


def _readers(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    return [other for other in graph.node if name in other.input]


def _store_grid(graph: onnx.GraphProto, name: str, scale: float, zero_point: int, levels: str) -> tuple[str, str]:
    _store(graph, f"{name}_scale", np.array(scale, np.float32))
    _store(graph, f"{name}_zero_point", np.array(zero_point, levels))
    return f"{name}_scale", f"{name}_zero_point"


def _store(graph: onnx.GraphProto, name: str, values: Array) -> None:
    graph.initializer.append(require("onnx.numpy_helper", extra="onnx").from_array(np.asarray(values), name))


def _insert(
    graph: onnx.GraphProto, node: onnx.NodeProto, new: Sequence[onnx.NodeProto], *, after: bool = False
) -> None:
    """Put nodes before a node of the graph, or after it."""
    place = after + next(number for number, other in enumerate(graph.node) if other is node or other == node)
    for offset, one in enumerate(new):
        graph.node.insert(place + offset, one)

"""Post-training int8: an fp32 graph and the ranges of its activations become a graph with Q/DQ pairs.

Convolutions alone are quantized. Weights: int8, one scale for each output channel, max|w| / 127. What a convolution
reads and what it gives: 8 bits, one grid a tensor, see `Int8Form`. Biases stay floats, rounded to whole multiples of
(scale of the input x scale of the weight): that is what an engine which sums in int32 computes with, and ONNX Runtime
makes the int32 by itself. The pair behind a convolution is what makes ONNX Runtime run it as QLinearConv; where the
only reader is another quantized convolution, the pair before that one does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mggc_edge.calibration.ranges import ActivationRanges
from mggc_edge.compiler.facts import constants_of, opset_of
from mggc_edge.compiler.passes.editor import STANDARD
from mggc_edge.compiler.precision.form import Int8Form
from mggc_edge.compiler.qdq import Grid, given_by, names_read, put_grids, read_by
from mggc_edge.compiler.tensorrt_lint import few_channels
from mggc_edge.errors import ArtifactError
from mggc_edge.lazy import require
from mggc_edge.tensors import Array, FloatArray

if TYPE_CHECKING:
    import onnx

MIN_OPSET = 13  # of scales per channel
# As in `mggc_edge.models.fake_quant`: the smallest scale of a channel, as a part of the largest and at all.
LEAST_PART, LEAST_WEIGHT = 1e-3, 1e-6
MOST_BIAS = 2**31 - 1  # whole multiples that int32 holds
ASKED = "left in float as asked for"
LAST = "the last convolution gives the picture, which would show the steps of 8 bits"
THIN = "it has too few channels to be faster in 8 bits"


@dataclass(frozen=True)
class Layer:
    """A convolution of a graph: the name of its node, and why it stays in float; None: it is quantized."""

    name: str
    reason: str | None


@dataclass(frozen=True)
class _Tensors:
    """What a convolution reads (before a Pad that goes between Q and DQ) and gives (after a ReLU)."""

    read: str
    given: str


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a graph in which every node has a name of its own; names that are there stay."""
    copy = type(model)()
    copy.CopyFrom(model)
    taken: set[str] = set()
    for node in copy.graph.node:
        name, number = node.name or f"{node.op_type}_{node.output[0]}", 0
        while name in taken:
            number += 1
            name = f"{node.name or node.op_type}_{number}"
        node.name = name
        taken.add(name)
    return copy


def find_layers(
    model: onnx.ModelProto,
    form: Int8Form | None = None,
    *,
    keep_float: Collection[str] = (),
    last_in_float: bool = True,
) -> tuple[Layer, ...]:
    """Return every convolution and transposed convolution of a graph, in its order, and which stay in float.

    Args:
        model: as `named` returns it.
        form: of the target, which may leave convolutions with few channels in float, unless there are no others; None:
            they are quantized.
        keep_float: names of nodes that are to stay in float.
        last_in_float: whether the convolutions that no other one follows do.

    Raises:
        ArtifactError: the opset knows no scales per channel, the graph is quantized already, or has no such node.
    """
    opset = opset_of(model)
    if opset < MIN_OPSET:
        raise ArtifactError(
            f"8-bit weights with a scale per channel need opset {MIN_OPSET}, and the file has opset {opset}",
            hint="export it with a newer opset",
        )
    shadowed = {function.name for function in model.functions if function.domain in STANDARD}
    kinds = {"Conv", "ConvTranspose"} - shadowed
    nodes = [node for node in model.graph.node if node.op_type in kinds and node.domain in STANDARD]
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear", "QLinearConv") for node in model.graph.node):
        raise ArtifactError("the file is in 8 bits already", hint="give the float32 file that it was made from")
    for name in keep_float:
        if name not in {node.name for node in nodes}:
            raise ArtifactError(
                f"quantize.keep_float names '{name}', which is no convolution of the graph",
                hint=f"such as {', '.join(node.name for node in nodes[:4])}",
            )
    constants, fed = constants_of(model), {value.name for value in model.graph.input}
    weights = {name: tensor for name, tensor in constants.items() if name not in fed}
    last = _last(model.graph) if last_in_float else frozenset[str]()
    reasons = [_reason(node, weights, keep_float, last) for node in nodes]
    if form is not None and form.thin_in_float:
        thin = [
            THIN if reason is None and _is_thin(node, weights) else reason
            for node, reason in zip(nodes, reasons, strict=True)
        ]
        reasons = thin if None in thin else reasons  # a file that is asked for is made; the lint says that it is slow
    return tuple(Layer(node.name, reason) for node, reason in zip(nodes, reasons, strict=True))


def _is_thin(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> bool:
    return few_channels(node, list(weights[node.input[1]].dims))


def _reason(
    node: onnx.NodeProto,
    weights: Mapping[str, onnx.TensorProto],
    keep_float: Collection[str],
    last: Collection[str],
) -> str | None:
    """Return why a convolution stays in float; None where it need not."""
    if node.op_type == "ConvTranspose":
        return "transposed convolutions have no 8-bit kernels; a pass may make convolutions of them"
    constants = [weights.get(name) for name in node.input[1:] if name]
    if None in constants or not constants:
        return "its weights are not constant"
    float32 = require("onnx", extra="onnx").TensorProto.FLOAT
    if any(tensor is not None and tensor.data_type != float32 for tensor in constants):
        return "its weights are not float32"
    if constants[0] is not None and len(constants[0].dims) != 4:
        return "it is not two-dimensional"
    if node.name in keep_float:
        return ASKED
    return LAST if node.name in last else None


def _last(graph: onnx.GraphProto) -> frozenset[str]:
    """Return the convolutions from which an output is reached without passing another convolution."""
    writers = {name: node for node in graph.node for name in node.output}
    found, seen = set(), set[str]()
    waiting = [value.name for value in graph.output]
    while waiting:
        name = waiting.pop()
        node = writers.get(name)
        if name in seen or node is None:
            continue
        seen.add(name)
        if node.op_type in ("Conv", "ConvTranspose"):
            found.add(node.name)
        else:
            waiting.extend(node.input)
    return frozenset(found)


def tensors_to_observe(model: onnx.ModelProto, layers: Sequence[Layer], form: Int8Form) -> tuple[str, ...]:
    """Return the names of the tensors that need a range, each once, in the order of the graph."""
    tensors = _tensors(model.graph, layers, form)
    names = ((one.read, one.given) if form.outputs else (one.read,) for one in tensors.values())
    return tuple(dict.fromkeys(name for pair in names for name in pair))


def _tensors(graph: onnx.GraphProto, layers: Sequence[Layer], form: Int8Form) -> dict[str, _Tensors]:
    nodes = {node.name: node for node in graph.node}
    chosen = [nodes[layer.name] for layer in layers if layer.reason is None]
    return {
        node.name: _Tensors(read_by(graph, node)[0] if form.pads_between else node.input[0], given_by(graph, node))
        for node in chosen
    }


def quantized(
    model: onnx.ModelProto, ranges: ActivationRanges, form: Int8Form, layers: Sequence[Layer]
) -> tuple[onnx.ModelProto, tuple[Layer, ...]]:
    """Return a copy of a graph with its convolutions on 8-bit grids, and what became of each of them.

    Args:
        model: as `named` returns it.
        ranges: of all tensors that `tensors_to_observe` names.
        layers: see `find_layers`. One whose numbers no grid holds is left in float, with the reason.

    Raises:
        ArtifactError: a tensor has no range.
    """
    copy = type(model)()
    copy.CopyFrom(model)
    graph, numpy_helper = copy.graph, require("onnx.numpy_helper", extra="onnx")
    constants = constants_of(copy)
    layers = tuple(_checked(layer, copy, constants, ranges, form) for layer in layers)
    tensors = _tensors(graph, layers, form)
    outputs = {value.name for value in graph.output}
    read = {one.read for one in tensors.values()}
    placed, more = [], _suffix(graph, tensors)
    for node in [node for node in graph.node if node.name in tensors]:
        one, bias = tensors[node.name], node.input[2] if len(node.input) > 2 else ""
        levels, scales = weight_grid(numpy_helper.to_array(constants[node.input[1]]), form.weight_limit)
        scale, zero_point = form.grid(*ranges.of(one.read))
        if bias:
            steps = scales * np.float32(scale)
            rounded = np.rint(numpy_helper.to_array(constants[bias]) / steps) * steps
            name = f"{node.name}{more}.bias"
            graph.initializer.append(numpy_helper.from_array(rounded.astype(np.float32), name))
            node.input[2] = name
        # The pair before its only reader, if that is a quantized convolution, is the pair behind this one.
        alone = one.given in read and sum(one.given in other.input for other in graph.node) == 1
        pair = form.outputs and not alone and one.given not in outputs
        output = form.grid(*ranges.of(one.given)) if pair else None
        placed.append((node, Grid(f"{node.name}{more}", levels, scales, 0, scale, zero_point, output, form.levels)))
    put_grids(graph, placed, pads_between=form.pads_between)
    used = names_read(graph)
    for node in [node for node in graph.node if node.op_type == "Constant" and node.output[0] not in used]:
        graph.node.remove(node)
    require("onnx", extra="onnx").checker.check_model(copy)
    return copy, layers


def _suffix(graph: onnx.GraphProto, nodes: Collection[str]) -> str:
    """Return what is put behind the names of nodes, so that no tensor is named after one yet ("conv1.bias")."""
    taken = names_read(graph) | {tensor.name for tensor in graph.initializer}
    taken |= {name for node in graph.node for name in node.output}
    suffix, first = "", tuple(f"{node}." for node in nodes)
    while any(name.startswith(first) for name in taken):
        suffix += "_"
        first = tuple(f"{node}{suffix}." for node in nodes)
    return suffix


def _checked(
    layer: Layer,
    model: onnx.ModelProto,
    constants: Mapping[str, onnx.TensorProto],
    ranges: ActivationRanges,
    form: Int8Form,
) -> Layer:
    """Return a layer as it was, or with the reason why no grid holds its numbers."""
    if layer.reason is not None:
        return layer
    numpy_helper = require("onnx.numpy_helper", extra="onnx")
    (node,) = (node for node in model.graph.node if node.name == layer.name)
    weight = numpy_helper.to_array(constants[node.input[1]])
    bias = numpy_helper.to_array(constants[node.input[2]]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    if not (weight.size and np.isfinite(weight).all() and np.isfinite(bias).all()):
        return replace(layer, reason="its weights are not finite")
    read = _tensors(model.graph, [layer], form)[layer.name].read
    scale, _ = form.grid(*ranges.of(read))
    steps = weight_grid(weight, form.weight_limit)[1].astype(np.float64) * scale
    if (np.abs(bias) > MOST_BIAS * steps).any():
        return replace(layer, reason="its bias has more steps than int32 holds")
    return layer


def weight_grid(weight: FloatArray, limit: int) -> tuple[Array, FloatArray]:
    """Return the levels of a convolution's weight [out, in/group, kH, kW], int8, and its scales, float32 [out]."""
    largest = np.abs(weight).max(axis=(1, 2, 3))
    least = np.maximum(np.float32(LEAST_PART) * largest.max(), np.float32(LEAST_WEIGHT))
    scales = (np.maximum(largest, least) / np.float32(limit)).astype(np.float32)
    levels = np.rint(weight / scales[:, None, None, None])
    return np.clip(levels, -limit, limit).astype(np.int8), scales

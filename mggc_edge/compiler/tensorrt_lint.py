"""What TensorRT's documents say against a typed ONNX graph, before a device is at hand.

Each rule is a function that yields `Finding`s and names its source. A finding is one of: "refused" (the parser or the
builder says no), "slow" (it builds, but int8 is lost at that place) and "version" (not every TensorRT takes it).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from mggc_edge.compiler.facts import constants_of, opset_of, read_onnx
from mggc_edge.errors import counted
from mggc_edge.lazy import require
from mggc_edge.tensors import Array

if TYPE_CHECKING:
    import onnx

Severity = Literal["refused", "slow", "version"]
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
CONVOLUTIONS = ("Conv", "ConvTranspose")
FUSED_AFTER = ("Relu", "LeakyRelu", "BatchNormalization", "InstanceNormalization", "Tanh", "Sigmoid", "Clip")
# "N" in the operators' table of onnx-tensorrt (docs/operators.md, of TensorRT 8.5, 10.0 and 10.15 alike).
UNSUPPORTED = (
    "BitShift", "Col2Im", "ConvInteger", "DFT", "Det", "DynamicQuantizeLinear", "MatMulInteger", "MaxRoiPool",
    "MaxUnpool", "Multinomial", "QLinearConv", "QLinearMatMul", "SequenceAt", "SequenceConstruct", "SequenceEmpty",
)  # fmt: skip
OPSETS = {"8": 17, "10.0": 20, "10.15": 24}  # TensorRT -> the last opset that its operators' table is about


@dataclass(frozen=True)
class Finding:
    """What a rule says of one node.

    Attributes:
        rule: name of the rule.
        severity: see above.
        node: name of the node, or of what it gives.
        text: what is wrong, without the node.
    """

    rule: str
    severity: Severity
    node: str
    text: str


class Graph:
    """A graph with who makes and who reads each tensor, and its constants; subgraphs are not looked into."""

    def __init__(self, model: onnx.ModelProto) -> None:
        to_array = require("onnx.numpy_helper", extra="onnx").to_array
        self.nodes: Sequence[onnx.NodeProto] = model.graph.node
        self.opset = opset_of(model)
        self.maker = {name: node for node in self.nodes for name in node.output if name}
        self.constants: dict[str, Array] = {name: to_array(tensor) for name, tensor in constants_of(model).items()}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def made_by(self, tensor: str, *operators: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor, if it is one of these operators."""
        node = self.maker.get(tensor)
        return node if node is not None and node.op_type in operators else None

    def of(self, *operators: str) -> list[onnx.NodeProto]:
        """Return the nodes of some operators."""
        return [node for node in self.nodes if node.op_type in operators]


def _name(node: onnx.NodeProto) -> str:
    return node.name or next(iter(node.output), node.op_type)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)


def _weight_of(graph: Graph, node: onnx.NodeProto) -> tuple[Array | None, onnx.NodeProto | None]:
    """Return a convolution's weight, and the DequantizeLinear between the two."""
    dequantize = graph.made_by(node.input[1], DEQUANTIZE)
    source = node.input[1] if dequantize is None else dequantize.input[0]
    if dequantize is not None and (quantize := graph.made_by(source, QUANTIZE)) is not None:
        source = quantize.input[0]
    return graph.constants.get(source), dequantize


def _int8(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a convolution reads picture and weight from DequantizeLinear, and so can run in int8."""
    return all(graph.made_by(name, DEQUANTIZE) is not None for name in node.input[:2])


def symmetric(graph: Graph) -> Iterator[Finding]:
    """Zero points are 0 and levels int8.

    TensorRT Operator's Reference, Quantize: "the zero_point must only contain zero-valued coefficients", output int8;
    onnx-tensorrt docs/operators.md: `y_zero_point` must be 0, UINT8 for inputs and outputs of a network alone.
    """
    for node in graph.of(QUANTIZE, DEQUANTIZE):
        if len(node.input) < 3 or not node.input[2]:
            if node.op_type == QUANTIZE:  # ONNX: without a zero point the levels are uint8
                yield Finding("symmetric", "refused", _name(node), "uint8 levels (no zero point): only int8 is taken")
            continue
        zero = graph.constants.get(node.input[2])
        if zero is None:
            yield Finding("symmetric", "refused", _name(node), "a zero point that is no constant")
        elif zero.dtype != np.int8:
            yield Finding("symmetric", "refused", _name(node), f"{zero.dtype} levels: only int8 is taken")
        elif zero.any():
            yield Finding("symmetric", "refused", _name(node), "a zero point that is not 0")


def constant_scales(graph: Graph) -> Iterator[Finding]:
    """Scales are constants, finite and positive.

    TensorRT Operator's Reference, Quantize and Dequantize: "the scale tensor must be a build-time constant".
    """
    for node in graph.of(QUANTIZE, DEQUANTIZE):
        scale = graph.constants.get(node.input[1])
        if scale is None:
            yield Finding("constant_scales", "refused", _name(node), "a scale that is no constant")
        elif not (np.isfinite(scale).all() and (scale > 0).all()):
            yield Finding("constant_scales", "refused", _name(node), "a scale that is not finite and positive")


def channel_scales(graph: Graph) -> Iterator[Finding]:
    """Activations have one scale; weights one, or one for each output: axis 0 of Conv, axis 1 of ConvTranspose.

    TensorRT Developer Guide, Quantization Schemes: per-channel scales for weights alone, along the output channels.
    """
    for node in graph.of(*CONVOLUTIONS):
        _, dequantize = _weight_of(graph, node)
        if dequantize is None:
            continue
        scale, axis = graph.constants.get(dequantize.input[1]), 0 if node.op_type == "Conv" else 1
        if scale is not None and scale.size > 1 and _attribute(dequantize, "axis", 1) != axis:
            text = f"scales along axis {_attribute(dequantize, 'axis', 1)} of a {node.op_type}'s weight, not {axis}"
            yield Finding("channel_scales", "refused", _name(node), text)
    for node in graph.of(QUANTIZE):
        scale = graph.constants.get(node.input[1])
        if scale is not None and scale.size > 1 and node.input[0] not in graph.constants:
            yield Finding("channel_scales", "refused", _name(node), "more than one scale for an activation")


def all_inputs(graph: Graph) -> Iterator[Finding]:
    """Of a convolution both inputs are quantized, or none.

    TensorRT Developer Guide, Q/DQ Layer-Placement Recommendations: "Quantize all inputs of weighted-operations".
    """
    for node in graph.of(*CONVOLUTIONS):
        picture, weight = (graph.made_by(name, DEQUANTIZE) is not None for name in node.input[:2])
        if picture != weight:
            what = "its weight is quantized and what it reads is not" if weight else "its weight is not quantized"
            yield Finding("all_inputs", "slow", _name(node), f"{what}: it runs in floats")


def before_fusion(graph: Graph) -> Iterator[Finding]:
    """Nothing is quantized between a convolution and the norm or activation that is fused into it.

    The same: "By default, don't quantize the outputs of weighted-operations", and "Don't simulate batch-normalization
    and ReLU fusions in the training framework".
    """
    for node in graph.of(QUANTIZE):
        source = graph.made_by(node.input[0], *CONVOLUTIONS)
        if source is None:
            continue
        dequantized = [
            reader.output[0] for reader in graph.readers.get(node.output[0], ()) if reader.op_type == DEQUANTIZE
        ]
        after = {reader.op_type for name in dequantized for reader in graph.readers.get(name, ())} & set(FUSED_AFTER)
        if after:
            text = f"its output is quantized before {', '.join(sorted(after))}, which then cannot be fused into it"
            yield Finding("before_fusion", "slow", _name(source), text)


def residual_input(graph: Graph) -> Iterator[Finding]:
    """What is added to an int8 convolution's output is quantized too.

    The same: "Quantize the residual input in skip-connections"; otherwise the convolution gives floats.
    """
    for node in graph.of("Add"):
        convolutions = [graph.made_by(name, *CONVOLUTIONS) for name in node.input]
        for convolution, other in zip(convolutions, reversed(node.input), strict=True):
            if convolution is None or not _int8(graph, convolution) or other in graph.constants:
                continue
            if graph.made_by(other, DEQUANTIZE) is None:
                text = "an int8 convolution is added to what is not quantized, and so gives floats"
                yield Finding("residual_input", "slow", _name(node), text)


def int8_groups(graph: Graph) -> Iterator[Finding]:
    """Groups of int8 convolutions have multiples of 4 channels.

    NvInfer.h, IConvolutionLayer::setNbGroups and IDeconvolutionLayer::setNbGroups: "When using groups in int8 mode, the
    size of the groups must be a multiple of 4 for both input and output".
    """
    for node in graph.of(*CONVOLUTIONS):
        groups = _attribute(node, "group", 1)
        weight, _ = _weight_of(graph, node)
        if groups == 1 or weight is None or not _int8(graph, node):
            continue
        first, second = weight.shape[:2]  # Conv [out, in / groups, ...], ConvTranspose [in, out / groups, ...]
        if (first // groups) % 4 or second % 4:
            yield Finding(
                "int8_groups", "refused", _name(node), f"int8 groups of {first // groups} and {second} channels"
            )


def few_channels(node: onnx.NodeProto, sizes: Sequence[int]) -> bool:
    """Whether a convolution has too few channels to gain anything in int8.

    NVIDIA Model Optimizer, modelopt/onnx/quantization/graph_utils.py: convolutions with fewer than 16 inputs or outputs
    are left out, unless ungrouped, with a multiple of 8 on one side and 16 on the other.

    Args:
        node: Conv or ConvTranspose.
        sizes: of its weight, [out, in / groups, ...] or [in, out / groups, ...].
    """
    sides = sizes[:2]
    enough = max(sides) >= 16 and any(size % 8 == 0 for size in sides) and _attribute(node, "group", 1) == 1
    return min(sides) < 16 and not enough


def int8_channels(graph: Graph) -> Iterator[Finding]:
    """Convolutions with few channels gain nothing in int8: NVIDIA Model Optimizer's rule, see `few_channels`."""
    for node in graph.of(*CONVOLUTIONS):
        weight, _ = _weight_of(graph, node)
        if weight is None or not _int8(graph, node):
            continue
        if few_channels(node, weight.shape):
            first, second = weight.shape[:2]
            yield Finding("int8_channels", "slow", _name(node), f"int8 with {first} x {second} channels")


def int8_transposed(graph: Graph) -> Iterator[Finding]:
    """A transposed convolution gives floats, whatever is quantized behind it.

    TensorRT issues 2597, 4366 and 4668: the QuantizeLinear after it is not fused, so that it loses to float16.
    """
    for node in graph.of("ConvTranspose"):
        if _int8(graph, node):
            text = (
                "an int8 transposed convolution is often slower than one in float16: leave it in floats, or rewrite it"
            )
            yield Finding("int8_transposed", "slow", _name(node), text)


def operators(graph: Graph) -> Iterator[Finding]:
    """Every operator is one that the parser knows.

    onnx-tensorrt, docs/operators.md, of TensorRT 8.5, 10.0 and 10.15.
    """
    for node in graph.nodes:
        if node.op_type in UNSUPPORTED:
            yield Finding("operators", "refused", _name(node), f"{node.op_type} is not supported")
        elif node.domain not in ("", "ai.onnx"):
            yield Finding("operators", "refused", _name(node), f"{node.op_type} of '{node.domain}' needs a plugin")


def opset(graph: Graph) -> Iterator[Finding]:
    """The opset is one that the operators' table of a TensorRT is about (docs/operators.md of onnx-tensorrt)."""
    short = [version for version, last in OPSETS.items() if graph.opset > last]
    if short:
        last = OPSETS[short[-1]]
        text = f"opset {graph.opset}: the documents of TensorRT {short[-1]} end at opset {last}"
        yield Finding("opset", "version", "the file", text)


RULES: tuple[Callable[[Graph], Iterator[Finding]], ...] = (
    symmetric,
    constant_scales,
    channel_scales,
    all_inputs,
    before_fusion,
    residual_input,
    int8_groups,
    int8_channels,
    int8_transposed,
    operators,
    opset,
)


def lint(model: onnx.ModelProto) -> tuple[Finding, ...]:
    """Return what all rules find in a graph, in the order of the rules."""
    graph = Graph(model)
    return tuple(finding for rule in RULES for finding in rule(graph))


def lint_file(path: Path) -> tuple[Finding, ...]:
    """Return what all rules find in an ONNX file."""
    return lint(read_onnx(path))


def summary(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Return a line for every text, with its number of places and the first of them; "refused" first."""
    groups: dict[tuple[Severity, str], list[str]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.text), []).append(finding.node)
    order = ("refused", "slow", "version")
    return tuple(
        f"{severity}: {text} ({counted(len(nodes), 'place')}, first {nodes[0]})"
        for (severity, text), nodes in sorted(groups.items(), key=lambda group: order.index(group[0][0]))
    )

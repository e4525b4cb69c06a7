"""Widths between two convolutions are filled up with channels of zeros, to a multiple that an engine likes.

The first convolution gets filters of zeros. What stands between works on every channel for itself and keeps the new
ones finite; the readers give them weights of zero. So nothing else changes, however the convolutions pad.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mggc_edge.compiler.passes.editor import Editor, Filters, Tensor, Unfit

if TYPE_CHECKING:
    import onnx_ir as ir

CHANNELWISE = frozenset({"Relu", "LeakyRelu", "Tanh", "Sigmoid"})


@dataclass(frozen=True)
class PadWidths:
    """Conv, channelwise operators, Conv -> the same with zeros in the weights.

    Attributes:
        multiple: what widths are filled up to.
    """

    multiple: int
    name: ClassVar[str] = "pad_widths"
    operators: ClassVar[frozenset[str]] = frozenset({"Conv", "ConvTranspose"})

    def rewrite(self, node: ir.Node, graph: Editor) -> None:
        """Preconditions: no groups; a chain of Relu, Tanh, Pad or norm leads to one convolution."""
        conv = graph.filters(node)
        width = conv.weight.shape[1 if node.op_type == "ConvTranspose" else 0]
        more = -width % self.multiple
        if conv.group != 1:
            raise Unfit("it is grouped")
        if not more:
            raise Unfit("its width is such a multiple")
        norms, reader, between = _chain(node, graph)
        after = graph.filters(reader)
        if after.group != 1:
            raise Unfit("the convolution that reads it is grouped")
        scales = [[graph.constant(graph.input(norm, index)) for index in (1, 2)] for norm in norms]
        if any(part is None for parts in scales for part in parts):
            raise Unfit("the norm that reads it has no constant scale")
        _widen(node, conv, graph, more, out=True)
        for norm, parts in zip(norms, scales, strict=True):
            for index, part in enumerate(parts, start=1):
                assert part is not None
                norm.replace_input_with(index, graph.initializer("wide", np.pad(part, (0, more))))
        _widen(reader, after, graph, more, out=False)
        for value in between:
            value.shape = None


def _chain(node: ir.Node, graph: Editor) -> tuple[list[ir.Node], ir.Node, list[ir.Value]]:
    """Return the norms on the way to the convolution that reads a node, that convolution, and all values between."""
    norms: list[ir.Node] = []
    values = [node.outputs[0]]
    while True:
        reader = graph.sole_reader(values[-1])
        if reader is None:
            raise Unfit("more than one chain reads it")
        if graph.is_a(reader, "Conv", "ConvTranspose"):
            return norms, reader, values
        if graph.is_a(reader, "InstanceNormalization"):
            if not graph.attribute(reader, "epsilon", 1e-5) > 0:  # 0 / 0, which no weight of zero takes away
                raise Unfit("the norm that reads it divides by zero where nothing varies")
            norms.append(reader)
        elif not graph.is_a(reader, *CHANNELWISE) and not _pads_pictures(reader, graph):
            raise Unfit("what reads it joins channels, or is not known")
        values.append(reader.outputs[0])


def _pads_pictures(node: ir.Node, graph: Editor) -> bool:
    pads = graph.constant(graph.input(node, 1)) if graph.is_a(node, "Pad") and graph.input(node, 3) is None else None
    return pads is not None and len(pads) == 8 and not pads[[0, 1, 4, 5]].any()


def _widen(node: ir.Node, conv: Filters, graph: Editor, more: int, *, out: bool) -> None:
    outputs_axis = 1 if node.op_type == "ConvTranspose" else 0
    axis = outputs_axis if out else 1 - outputs_axis
    weight: Tensor = np.pad(conv.weight, [(0, more if n == axis else 0) for n in range(4)])
    bias = conv.bias
    if bias is not None and out:
        bias = np.pad(bias, (0, more))
    graph.set_weights(node, weight, bias)

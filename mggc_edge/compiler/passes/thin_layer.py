"""A convolution with few outputs, such as the last one, computes a block of pixels at once at a larger stride.

Engines put output channels into the lanes of a vector: 3 outputs leave 13 of 16 lanes empty. With W [O, I, k, k] and a
block b, output pixel (b y + i, b x + j) of channel o becomes pixel (y, x) of channel (o, i, j):

    W'[(o, i, j), c, i + u, j + v] = W[o, c, u, v],  0 elsewhere;  kernel k + b - 1, stride b, the same pads

and DepthToSpace (CRD: the channel varies slowest) puts the pixels in their places. Each output is the same sum with
zeros added. What is executed grows by (k + b - 1)^2 / k^2, what fills the lanes by b^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mggc_edge.compiler.passes.editor import Editor, Pair, Unfit

if TYPE_CHECKING:
    import onnx_ir as ir

MOST_OUTPUTS = 4
BLOCKS = (2, 4)
WORTH = 0.8  # of the cost that it has now, at most: below that, what DepthToSpace moves would eat the gain
POINTWISE = frozenset({"Relu", "LeakyRelu", "Tanh", "Sigmoid"})  # engines fuse them into the convolution before


@dataclass(frozen=True)
class ThinLayer:
    """Conv with at most 4 outputs and stride 1 -> Conv with stride 2 or 4, and DepthToSpace.

    Attributes:
        lanes: floats in a vector of the target.
    """

    lanes: int
    name: ClassVar[str] = "thin_layer"
    operators: ClassVar[frozenset[str]] = frozenset({"Conv"})

    def rewrite(self, node: ir.Node, graph: Editor) -> None:
        """Preconditions: stride, dilation and group 1, at most 4 outputs, known and even output size, cheaper so."""
        conv = graph.convolution(node)
        weight = conv.weight
        outputs = weight.shape[0]
        if outputs > MOST_OUTPUTS:
            raise Unfit("it has more than 4 outputs")
        if conv.strides != (1, 1) or conv.dilations != (1, 1):
            raise Unfit("its stride or dilation is not 1")
        if conv.group != 1:
            raise Unfit("it is grouped")
        sides = (graph.shape(node.inputs[0]) or ())[2:]
        if len(sides) != 2 or None in sides:
            raise Unfit("its output size is not known")
        out = [
            (size or 0) + before + after - kernel + 1
            for size, before, after, kernel in zip(sides, conv.begin, conv.end, conv.kernel, strict=True)
        ]
        blocks = [block for block in BLOCKS if all(side > 0 and side % block == 0 for side in out)]
        if not blocks:
            raise Unfit("its output size is odd")
        block = min(blocks, key=lambda block: self._cost(outputs, block, conv.kernel))
        if self._cost(outputs, block, conv.kernel) > WORTH * self._cost(outputs, 1, conv.kernel):
            raise Unfit("no block makes it cheaper")
        height, width = conv.kernel
        graph.check_count(outputs * block**2 * weight.shape[1] * (height + block - 1) * (width + block - 1))
        wide = np.zeros((outputs, block, block, weight.shape[1], height + block - 1, width + block - 1), weight.dtype)
        for i in range(block):
            for j in range(block):
                wide[:, i, j, :, i : i + height, j : j + width] = weight
        bias = None if conv.bias is None else conv.bias.repeat(block * block)
        graph.set_weights(node, wide.reshape(-1, *wide.shape[3:]), bias)
        graph.set_geometry(node, wide.shape[4:], (block, block), (*conv.begin, *conv.end))
        spread(node, block, graph)

    def _cost(self, outputs: int, block: int, kernel: Pair) -> float:
        """Return multiplications per output pixel with those of empty lanes, in units of the input's channels."""
        filled = math.ceil(outputs * block**2 / self.lanes) * self.lanes
        return filled / block**2 * math.prod(side + block - 1 for side in kernel)


def spread(node: ir.Node, block: int, graph: Editor) -> ir.Node:
    """Insert DepthToSpace after a convolution, and after a pointwise function that alone reads it; return the node."""
    reader = graph.sole_reader(node.outputs[0])
    last = reader if reader is not None and graph.is_a(reader, *POINTWISE) and len(reader.inputs) == 1 else node
    old = last.outputs[0]
    for value in {node.outputs[0], old}:
        if not value.is_graph_output():
            value.shape = None
    made = graph.node("DepthToSpace", [old], {"blocksize": block, "mode": "CRD"}, after=last)
    graph.replace(old, made.outputs[0], but=[made])
    old.shape = None
    return made

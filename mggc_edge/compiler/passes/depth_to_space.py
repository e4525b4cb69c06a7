"""DepthToSpace as two transpositions, each of which an engine does in long strides.

[N, C, b, b, H, W] -> [N, C, H, b, W, b] moves two axes at once, which ONNX Runtime does value by value. One at a time,
the inner phase goes inside (a transposition of small matrices), and then whole rows take their places:

    [N C b, b, H W] -> [N C b, H W, b]        [N C, b, H, W b] -> [N C, H, b, W b]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mggc_edge.compiler.passes.editor import Editor, Unfit

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class DepthToSpace:
    """DepthToSpace -> Reshape, Transpose, Reshape, Transpose, Reshape."""

    name: ClassVar[str] = "depth_to_space"
    operators: ClassVar[frozenset[str]] = frozenset({"DepthToSpace"})

    def rewrite(self, node: ir.Node, graph: Editor) -> None:
        """Preconditions: channels vary slowest (mode CRD), known sizes; the number of pictures may be open."""
        block = graph.attribute(node, "blocksize", 1)
        if graph.attribute(node, "mode", "DCR") != "CRD":
            raise Unfit("its channels do not vary slowest")
        sizes = graph.shape(node.inputs[0])
        if sizes is None or len(sizes) != 4 or None in sizes[1:]:
            raise Unfit("its size is not known")
        channels, height, width = (size or 0 for size in sizes[1:])
        if block < 1 or not channels or channels % block**2:
            raise Unfit("its channels are no blocks")
        value, last = node.inputs[0], node
        for shape, order in (
            ((-1, block, height * width), (0, 2, 1)),
            ((-1, block, height, width * block), (0, 2, 1, 3)),
            ((-1, channels // block**2, height * block, width * block), None),
        ):
            target = graph.initializer("interleaved_shape", np.array(shape, np.int64))
            last = graph.node("Reshape", [value, target], after=last)
            if order is not None:
                last = graph.node("Transpose", [last.outputs[0]], {"perm": order}, after=last)
            value = last.outputs[0]
        graph.replace(node.outputs[0], last.outputs[0])
        graph.remove(node)

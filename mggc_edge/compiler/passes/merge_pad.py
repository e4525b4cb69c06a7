"""Zeros that a Pad puts around pictures are padding of the convolution that reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mggc_edge.compiler.passes.editor import Editor, Unfit

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class MergePad:
    """Pad with zeros, and Conv -> Conv with more padding."""

    name: ClassVar[str] = "merge_pad"
    operators: ClassVar[frozenset[str]] = frozenset({"Pad"})

    def rewrite(self, node: ir.Node, graph: Editor) -> None:
        """Preconditions: constant zeros, on both axes of a picture only, read by two-dimensional convolutions only."""
        if graph.attribute(node, "mode", "constant") != "constant":
            raise Unfit("it does not pad with a constant")
        begin, end = pad_amounts(node, graph)
        value = graph.input(node, 2)
        filled = graph.constant(value)
        if value is not None and (filled is None or filled.any()):
            raise Unfit("it does not pad with zeros")
        output = node.outputs[0]
        uses = tuple(output.uses())
        if output.is_graph_output() or any(
            not graph.is_a(reader, "Conv") or index or reader.graph is not graph.graph for reader, index in uses
        ):
            raise Unfit("others than convolutions read it")
        for reader, conv in [(reader, graph.convolution(reader)) for reader, _ in uses]:
            before = [a + b for a, b in zip(conv.begin, begin, strict=True)]
            after = [a + b for a, b in zip(conv.end, end, strict=True)]
            graph.set_geometry(reader, conv.kernel, conv.strides, (*before, *after))
        source = node.inputs[0]
        assert source is not None
        graph.replace(output, source, but=[node])
        graph.remove(node)


def pad_amounts(node: ir.Node, graph: Editor) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return what a Pad adds to a [N, C, H, W] tensor: (top, left) and (bottom, right).

    Raises:
        Unfit: it is computed, negative, or not on the last two of four axes.
    """
    pads, axes_value = graph.constant(graph.input(node, 1)), graph.input(node, 3)  # axes: from opset 18 on
    axes = graph.constant(axes_value)
    if pads is None or (axes_value is not None and axes is None):
        raise Unfit("its amounts are not constant")
    sizes = graph.shape(node.inputs[0])
    if (len(sizes) if sizes is not None else 4 if axes is None and len(pads) == 8 else 0) != 4:
        raise Unfit("it does not pad pictures")
    names = [int(axis) % 4 for axis in (range(4) if axes is None else axes)]
    if len(set(names)) < len(names) or len(pads) != 2 * len(names):
        raise Unfit("its amounts and axes do not fit together")
    amounts = {axis: (int(pads[n]), int(pads[n + len(names)])) for n, axis in enumerate(names)}
    if any(any(amounts.get(axis, (0, 0))) for axis in (0, 1)) or any(min(pair) < 0 for pair in amounts.values()):
        raise Unfit("it does not pad pictures")
    (top, bottom), (left, right) = (amounts.get(axis, (0, 0)) for axis in (2, 3))
    return (top, left), (bottom, right)

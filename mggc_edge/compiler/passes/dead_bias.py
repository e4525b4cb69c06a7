"""A bias before an instance norm has no effect: the norm subtracts the mean of every channel, and the bias with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mggc_edge.compiler.passes.editor import Editor, Unfit

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class DeadBias:
    """Conv or ConvTranspose with a bias, and InstanceNormalization -> the same without the bias."""

    name: ClassVar[str] = "dead_bias"
    operators: ClassVar[frozenset[str]] = frozenset({"InstanceNormalization"})

    def rewrite(self, node: ir.Node, graph: Editor) -> None:
        """Preconditions: a convolution with a bias stands before it, and nobody else reads that."""
        source = node.inputs[0]
        conv = None if source is None else source.producer()
        if source is None or conv is None or not graph.is_a(conv, "Conv", "ConvTranspose"):
            raise Unfit("no convolution stands before it")
        if graph.input(conv, 2) is None:
            raise Unfit("the convolution before it has no bias")
        if graph.sole_reader(source) is not node:
            raise Unfit("others read the convolution before it")
        conv.resize_inputs(2)

"""A reflecting Pad as slices and concatenations, for accelerators that have no such Pad (NNAPI, Core ML).

Per axis, with p values before and q after: x[p], ..., x[1] | x | x[-2], ..., x[-1 - q].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mggc_edge.compiler.passes.editor import Editor, Unfit
from mggc_edge.compiler.passes.merge_pad import pad_amounts

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class ReflectPad:
    """Pad(mode="reflect") -> Slice backwards and Concat, one axis after the other."""

    name: ClassVar[str] = "reflect_pad"
    operators: ClassVar[frozenset[str]] = frozenset({"Pad"})

    def rewrite(self, node: ir.Node, graph: Editor) -> None:
        """Preconditions: reflection, constant amounts of 0 or more, on the axes of a picture."""
        if graph.attribute(node, "mode", "constant") != "reflect":
            raise Unfit("it does not reflect")
        begin, end = pad_amounts(node, graph)
        if not any((*begin, *end)):
            raise Unfit("it pads nothing")
        value, last = node.inputs[0], node
        for axis, before, after in zip((2, 3), begin, end, strict=True):
            parts = [value]
            for amount, start, at in ((before, before, 0), (after, -2, 2)):
                if not amount:
                    continue
                # ends: the value where slicing stops, itself left out
                stop = 0 if at == 0 else -2 - amount
                bounds = [
                    graph.initializer(f"reflected_{what}", np.array([number], np.int64))
                    for what, number in (("starts", start), ("ends", stop), ("axes", axis), ("steps", -1))
                ]
                last = graph.node("Slice", [value, *bounds], after=last)
                parts.insert(at, last.outputs[0])
            if len(parts) > 1:
                last = graph.node("Concat", parts, {"axis": axis}, after=last)
                value = last.outputs[0]
        assert value is not None
        graph.replace(node.outputs[0], value)
        graph.remove(node)

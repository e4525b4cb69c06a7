"""Batch norm by running statistics is folded into the convolution before it, or into the one after it.

In inference y = a x + c per channel, a = scale / sqrt(var + epsilon), c = shift - mean a, in double precision.

    before, Conv or ConvTranspose:  W' = W a (by output channel), b' = b a + c
    after, Conv without padding:    W' = W a (by input channel),  b' = b + sum over W c;  padding would add zeros to x
                                    where c should stand, so with padding only c = 0 is exact

Where a convolution pads, and how much, is asked only in the last case: it may follow from the picture's size elsewhere.
An instance norm with running statistics is exported as batch norm between two reshapes; one that changes no size is
looked through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mggc_edge.compiler.passes.editor import Editor, Filters, Tensor, Unfit

if TYPE_CHECKING:
    import onnx_ir as ir

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


@dataclass(frozen=True)
class FoldBatchNorm:
    """BatchNormalization and a convolution beside it -> the convolution with other weights."""

    name: ClassVar[str] = "fold_batch_norm"
    operators: ClassVar[frozenset[str]] = frozenset({"BatchNormalization"})

    def rewrite(self, node: ir.Node, graph: Editor) -> None:
        """Preconditions: constant statistics, inference, a float32 or float64 convolution that nobody else reads."""
        parts = [graph.constant(graph.input(node, index)) for index in range(1, 5)]
        if any(part is None for part in parts):
            raise Unfit("its statistics are not constant")
        if graph.attribute(node, "training_mode", 0) or any(value.uses() for value in node.outputs[1:]):
            raise Unfit("it is in training mode")
        scale, shift, mean, variance = (np.asarray(part, np.float64) for part in parts)
        if scale.ndim != 1 or len({part.shape for part in (scale, shift, mean, variance)}) > 1:
            raise Unfit("its statistics do not fit together")
        variance = variance + graph.attribute(node, "epsilon", 1e-5)
        if not (variance > 0).all():
            raise Unfit("its variance is not above zero")
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found in the weights
            factor = scale / np.sqrt(variance)
            offset = shift - mean * factor
        source = node.inputs[0]
        before, reshape = _written_by(node, graph)
        after = graph.sole_reader(node.outputs[0])
        if before is not None:
            _into_the_one_before(before, factor, offset, graph)
            graph.replace(node.outputs[0], before.outputs[0])
        elif after is not None and graph.is_a(after, "Conv") and source is not None:
            _into_the_one_after(after, factor, offset, graph)
            graph.replace(node.outputs[0], source, but=[node])
        else:
            raise Unfit("no convolution stands beside it alone")
        graph.remove(node)
        if reshape is not None:
            graph.remove(reshape)


def _written_by(node: ir.Node, graph: Editor) -> tuple[ir.Node | None, ir.Node | None]:
    """Return the convolution that only this node reads, None without, and a reshape between that changes nothing."""
    source = node.inputs[0]
    writer = None if source is None else source.producer()
    if source is None or writer is None or graph.sole_reader(source) is not node:
        return None, None
    reshape = None
    if graph.is_a(writer, "Reshape") and writer.inputs[0] is not None:
        inner, reshape = writer.inputs[0], writer
        sizes, writer = graph.shape(inner), inner.producer()
        if sizes is None or None in sizes or sizes != graph.shape(source) or graph.sole_reader(inner) is not reshape:
            return None, None
    return (writer, reshape) if writer is not None and graph.is_a(writer, *CONVOLUTIONS) else (None, None)


@np.errstate(over="ignore", invalid="ignore")  # see _set_finite
def _into_the_one_before(node: ir.Node, factor: Tensor, offset: Tensor, graph: Editor) -> None:
    conv = _precise(graph.filters(node))
    weight = conv.weight.astype(np.float64)
    if len(factor) != (weight.shape[1] * conv.group if node.op_type == "ConvTranspose" else len(weight)):
        raise Unfit("its statistics do not fit together")
    if node.op_type == "ConvTranspose":  # [in, out/group, kH, kW], outputs of one group after the other
        groups = weight.reshape(conv.group, -1, *weight.shape[1:])
        weight = (groups * factor.reshape(conv.group, 1, -1, 1, 1)).reshape(weight.shape)
    else:
        weight = weight * factor[:, None, None, None]
    bias = offset if conv.bias is None else conv.bias * factor + offset
    _set_finite(node, weight.astype(conv.weight.dtype), bias, graph)


@np.errstate(over="ignore", invalid="ignore")
def _into_the_one_after(node: ir.Node, factor: Tensor, offset: Tensor, graph: Editor) -> None:
    conv = _precise(graph.filters(node))
    if offset.any():
        placed = graph.convolution(node)
        if any((*placed.begin, *placed.end)):
            raise Unfit("the convolution after it pads")
    shape, per_group = conv.weight.shape, conv.weight.shape[1]
    if len(factor) != per_group * conv.group:
        raise Unfit("its statistics do not fit together")
    weight = conv.weight.astype(np.float64).reshape(conv.group, -1, *shape[1:])  # [group, out, in, kH, kW]
    added = np.einsum("goihw,gi->go", weight, offset.reshape(conv.group, per_group)).reshape(-1)
    weight = weight * factor.reshape(conv.group, 1, per_group, 1, 1)
    bias = added if conv.bias is None else conv.bias + added
    weight = weight.reshape(shape).astype(conv.weight.dtype)
    _set_finite(node, weight, bias if conv.bias is not None or added.any() else None, graph)


def _set_finite(node: ir.Node, weight: Tensor, bias: Tensor | None, graph: Editor) -> None:
    """Set weights that are finite in their own precision; Unfit for others, which the graph as it is may never meet."""
    if not np.isfinite(weight).all() or (bias is not None and not np.isfinite(bias.astype(weight.dtype)).all()):
        raise Unfit("the folded weights would not be finite")
    graph.set_weights(node, weight, bias)


def _precise(conv: Filters) -> Filters:
    if conv.weight.dtype.name == "float16":
        raise Unfit("float16 weights would be rounded")
    return conv

"""A transposed convolution with stride s becomes a convolution whose outputs are the s x s phases, and DepthToSpace.

Along one axis, with weights w[k], padding p and z = y + p: y[z] = sum over taps t of x[q - t] w[r + s t], where
z = s q + r. So phase r of all z is a convolution with m = ceil(k / s) taps, and DepthToSpace puts the phases in their
places. Of what then stands at z, the first p mod s values (the q before are not computed) and those beyond the output
are cropped. Weights that begin with zeros shift the phases: where that takes no further tap, nothing is cropped.

    4x4, stride 2, padding 1:                   2x2 at (H + 1) x (W + 1) positions, 1 cropped all around; no more MACs
    3x3, stride 2, padding 1, output padding 1: 2x2 at H x W positions, nothing cropped; 16 / 9 times the MACs
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mggc_edge.compiler.passes.editor import Editor, Unfit
from mggc_edge.compiler.passes.thin_layer import spread

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class _Axis:
    """One axis: zeros before the weights, taps, padding of the convolution, and what is cropped."""

    zeros: int
    taps: int
    begin: int
    end: int
    crop_begin: int
    crop_end: int


@dataclass(frozen=True)
class TransposedConvolution:
    """ConvTranspose -> Conv, DepthToSpace and, where needed, Slice.

    Attributes:
        name: "transposed_convolution", or "transposed_convolution_any" without the limit.
        limit: as many times the multiplications are allowed, the border aside; None: any.
    """

    name: str = "transposed_convolution"
    limit: float | None = 1.0
    operators: frozenset[str] = frozenset({"ConvTranspose"})

    def rewrite(self, node: ir.Node, graph: Editor) -> None:
        """Preconditions: one stride above 1, dilation 1, explicit padding below the kernel's size."""
        conv = graph.convolution(node)
        stride = conv.strides[0]
        if conv.strides != (stride, stride) or stride == 1:
            raise Unfit("its strides are 1, or differ")
        if conv.dilations != (1, 1):
            raise Unfit("its dilation is not 1")
        axes = [
            _axis(kernel, stride, before, after, more)
            for kernel, before, after, more in zip(conv.kernel, conv.begin, conv.end, conv.output_padding, strict=True)
        ]
        if any(min(axis.begin, axis.end) < 0 for axis in axes):
            raise Unfit("its padding is wider than its kernel")
        growth = math.prod(axis.taps * stride for axis in axes) / math.prod(conv.kernel)
        if self.limit is not None and growth > self.limit:
            raise Unfit("it would multiply more than before")
        ((top, left), (m, n)) = [axis.zeros for axis in axes], [axis.taps for axis in axes]
        inputs, per_group, height, width = conv.weight.shape
        graph.check_count(inputs * per_group * m * n * stride**2)
        padded = np.zeros((inputs, per_group, m * stride, n * stride), conv.weight.dtype)
        padded[:, :, top : top + height, left : left + width] = conv.weight
        # [group, in, out, tap, phase, tap, phase], taps from far to near -> [group, out, phase, phase, in, tap, tap]
        split = padded.reshape(conv.group, -1, per_group, m, stride, n, stride)[:, :, :, ::-1, :, ::-1]
        weight = split.transpose(0, 2, 4, 6, 1, 3, 5).reshape(-1, inputs // conv.group, m, n)
        bias = None if conv.bias is None else conv.bias.repeat(stride * stride)
        graph.change_operator(node, "Conv")
        graph.set_weights(node, weight, bias)
        graph.set_geometry(node, (m, n), (1, 1), [axis.begin for axis in axes] + [axis.end for axis in axes])
        made = spread(node, stride, graph)
        crops = [axis.crop_begin for axis in axes], [axis.crop_end for axis in axes]
        if any(map(any, crops)):
            _crop(made, *crops, graph)


def _axis(kernel: int, stride: int, before: int, after: int, more: int) -> _Axis:
    zeros = -before % stride
    if math.ceil((kernel + zeros) / stride) > math.ceil(kernel / stride):
        zeros = 0
    taps = math.ceil((kernel + zeros) / stride)
    skipped, crop = divmod(before + zeros, stride)
    # The output has (H - 1) s + k - before - after + more values; the convolution must give `positions` more than H.
    beyond = crop + kernel - stride - before - after + more
    positions = math.ceil(beyond / stride)
    begin = taps - 1 - skipped
    return _Axis(zeros, taps, begin, positions + taps - 1 - begin, crop, positions * stride - beyond)


def _crop(spread_node: ir.Node, begin: list[int], end: list[int], graph: Editor) -> None:
    whole = spread_node.outputs[0]
    bounds = [begin, [-size if size else np.iinfo(np.int64).max for size in end], [2, 3]]
    names = ("crop_starts", "crop_ends", "crop_axes")
    values = [graph.initializer(name, np.array(bound, np.int64)) for name, bound in zip(names, bounds, strict=True)]
    made = graph.node("Slice", [whole, *values], after=spread_node)
    graph.replace(whole, made.outputs[0], but=[made])
    whole.shape = None

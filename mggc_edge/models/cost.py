"""Parameters and multiply-accumulate operations of a layer table, in both conventions of the literature.

`macs_true` counts the multiplications that are needed; `macs_paper` counts a transposed convolution at its output
positions, as the literature does (4 times too many at stride 2). Convolutions only: no bias, norm or activation.
"""

from __future__ import annotations

import math
from typing import Literal

from mggc_edge.models.layers import Layer, LayerTable

MacsConvention = Literal["true", "paper"]


def layer_macs(layer: Layer, convention: MacsConvention) -> int:
    """Return the multiply-accumulate operations of one row for one picture.

    Conv: Hout * Wout * k^2 * Cin * Cout (depthwise: without Cin). ConvTranspose: the same with input positions
    ("true") or output positions ("paper").
    """
    if layer.op == "constant":
        return 0
    at_input = layer.op == "conv_transpose" and convention == "true"
    height, width = layer.in_size if at_input else layer.out_size
    per_position = layer.kernel**2 * (1 if layer.op == "depthwise_conv" else layer.in_channels) * layer.out_channels
    return height * width * per_position


def macs(table: LayerTable, convention: MacsConvention = "true") -> int:
    """Return the multiply-accumulate operations of a network for one picture."""
    return sum(layer_macs(layer, convention) for layer in table.layers)


def parameters(table: LayerTable) -> int:
    """Return the number of trainable parameters of a network."""
    return sum(math.prod(tensor.shape) for tensor in table.tensors.values() if tensor.parameter)

"""Fake quantization: values rounded to an 8-bit grid and kept as floats, with gradients that pass through the rounding.

The grid is the one that `QuantizeLinear` and `DequantizeLinear` of ONNX have, so what is trained is what is exported:

    activations  y = (clamp(round(x / s) + z, 0, 255) - z) s      uint8, one scale s and zero point z for a tensor
    weights      w' = round(w / t) t,  t = max|w| / 127           int8 from -127 to 127, t for each output channel
    biases       b' = round(b / (s t)) s t                         floats that an engine may hold as int32

`round` takes halves to the even neighbor. The weights' scale follows the weights, so no weight is ever clamped. That
of an activation is stored as its logarithm and can be learned: a step of Adam then changes it by a fraction of itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mggc_edge.errors import SpecError
from mggc_edge.models.layers import Layer

MAX_WEIGHT, MAX_LEVEL = 127, 255
# A channel of zeros has a scale too. It is no smaller than this part of the largest, so that a bias stays an int32.
LEAST_PART, LEAST_WEIGHT = 1e-3, 1e-6


def weight_scale(weight: Tensor, layer: Layer) -> Tensor:
    """Return the scale of a convolution's weight: [out], or [1] where the whole tensor has one."""
    every = weight.detach().abs().amax().reshape(1)
    if layer.quantization == "int8_tensor":
        return every.clamp_min(LEAST_WEIGHT) / MAX_WEIGHT
    axis = output_axis(layer)
    largest = weight.detach().abs().amax(dim=[dim for dim in range(4) if dim != axis])
    return torch.maximum(largest, LEAST_PART * every).clamp_min(LEAST_WEIGHT) / MAX_WEIGHT


def output_axis(layer: Layer) -> int:
    """Return a weight's axis of output channels. Conv: [out, in, kH, kW]; ConvTranspose: [in, out, kH, kW]."""
    return 1 if layer.op == "conv_transpose" else 0


def weight_levels(weight: Tensor, layer: Layer) -> Tensor:
    """Return the whole numbers from -127 to 127, as floats, that a weight is stored as."""
    return (weight.detach() / _beside(weight_scale(weight, layer), layer)).round()


def rounded_weight(weight: Tensor, layer: Layer, like: Tensor | None = None) -> Tensor:
    """Return a weight rounded to its grid, or to that of `like`; its gradient is the weight's own."""
    scale = _beside(weight_scale(weight if like is None else like, layer), layer)
    rounded: Tensor = _RoundedWeight.apply(weight, scale)  # type: ignore[no-untyped-call]
    return rounded


def open_part(weight: Tensor, layer: Layer, inputs: Tensor | None, outputs: Tensor | None) -> Tensor:
    """Return a weight with zeros wherever masks close what it reads or gives, [in] and [out]; None closes nothing.

    Its grid is that of the weight which slicing leaves.
    """
    left, axis = weight.detach(), output_axis(layer)
    if inputs is not None and layer.op != "depthwise_conv":
        left = left * (inputs.detach() != 0).view((-1, 1, 1, 1) if axis else (1, -1, 1, 1))
    return left if outputs is None else left * _beside(outputs.detach() != 0, layer)


def rounded_bias(bias: Tensor, weight: Tensor, log_scale: Tensor, layer: Layer) -> Tensor:
    """Return a bias, [out], in whole multiples of what one step of input and weight gives; its gradient is its own."""
    rounded: Tensor = _RoundedWeight.apply(bias, log_scale.detach().exp() * weight_scale(weight, layer))  # type: ignore[no-untyped-call]
    return rounded


def rounded_input(x: Tensor, log_scale: Tensor, zero_point: Tensor) -> Tensor:
    """Return activations rounded to their grid, in float32 (or float64) whatever they came in.

    The gradient passes where they lie on the grid, and is 0 where they were clamped. That of the scale is
    round(x / s) - x / s on the grid, and the last level beyond it (Esser et al., LSQ, ICLR 2020, eq. 3).
    """
    x = x if x.dtype == torch.float64 else x.float()
    rounded: Tensor = _RoundedInput.apply(x, log_scale.exp(), zero_point)  # type: ignore[no-untyped-call]
    return rounded


def input_levels(x: Tensor, log_scale: Tensor, zero_point: Tensor) -> Tensor:
    """Return the whole numbers from 0 to 255, as floats, that activations are rounded to."""
    return (x.detach() / log_scale.detach().exp()).round_().add_(zero_point).clamp_(0, MAX_LEVEL)


def input_grid(log_scale: Tensor, zero_point: Tensor) -> tuple[float, int]:
    """Return the scale and the zero point of an activation's grid.

    Raises:
        SpecError: they are no grid.
    """
    scale, zero = log_scale.detach().exp().item(), zero_point.item()
    if not (1e-30 < scale < 1e30 and 0 <= zero <= MAX_LEVEL and zero == int(zero)):
        raise SpecError(f"scale {scale:g} and zero point {zero:g} are no grid for 8-bit activations")
    return scale, int(zero)


def _beside(scale: Tensor, layer: Layer) -> Tensor:
    """Return values of output channels, [out] or [1], in a shape that goes with the weight."""
    return scale.view((1, -1, 1, 1) if output_axis(layer) else (-1, 1, 1, 1))


class _RoundedWeight(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, weight: Tensor, scale: Tensor) -> Tensor:
        return (weight / scale).round_().mul_(scale)

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _RoundedInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale, zero_point)
        return (x / scale).round_().add_(zero_point).clamp_(0, MAX_LEVEL).sub_(zero_point).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, scale, zero_point = ctx.saved_tensors
        steps = x / scale
        nearest = steps.round()
        levels = nearest + zero_point
        inside = (levels >= 0) & (levels <= MAX_LEVEL)
        of_scale = None
        if ctx.needs_input_grad[1]:
            slope = torch.where(inside, nearest - steps, levels.clamp_(0, MAX_LEVEL).sub_(zero_point))
            of_scale = (gradient * slope).sum().reshape(1)
        return gradient * inside, of_scale, None

"""Network: a torch module that runs a layer table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from mggc_edge.errors import SpecError
from mggc_edge.models.fake_quant import open_part, rounded_bias, rounded_input, rounded_weight
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import INPUT, INPUT_GRID, NORM_PARAMETERS, REMOVABLE_SUFFIX, Activation, Layer, LayerTable
from mggc_edge.models.spec import DEFAULT_EPSILON, NetworkSpec

Masks = Mapping[str, Tensor]
# "module": batch norm as the module's mode has it. "batch": by the batch's statistics, and none are kept.
Statistics = Literal["module", "batch"]
# A value inside the network: what a row's convolution sees (joined and activated, before it is quantized), its norm's
# output, or its output.
Tap = tuple[str, Literal["input", "norm", "output"]]
LEAKY_SLOPE = 0.2
DROPOUT_RATE = 0.5
NORM_EPSILON = DEFAULT_EPSILON


class Network(nn.Module):
    """A network built from its layer table, with the state-dict keys of the implementation it came from.

    Pictures are [N, C, H, W] float tensors, for generators in the spec's colour order and range. New weights are drawn
    as CycleGAN and pix2pix do: normal with standard deviation 0.02, norm scales around 1.
    """

    def __init__(self, spec: NetworkSpec, table: LayerTable | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.table = layer_table(spec) if table is None else table
        # Where a whole group that may vanish is closed, an instance norm sees a constant, the bias: without it an exact
        # zero, of which there is no rounding to multiply by 1 / sqrt(epsilon). The norm takes any bias away again.
        self._biasless_when_masked = {
            layer.name
            for layer in self.table.layers
            if layer.op == "conv"
            and layer.norm_kind in ("instance", "instance_affine")
            and any(group.endswith(REMOVABLE_SUFFIX) for group in layer.inputs)
        }
        self._last_use = {name: layer.name for layer in self.table.layers for name in _operands(layer)}
        for layer in self.table.layers:
            if layer.op == "constant":
                _place(self, layer.name, _Constant(layer.out_channels))
                continue
            _place(self, layer.name, _convolution(layer))
            if layer.norm is not None:
                _place(self, layer.norm, _norm(layer))

    @classmethod
    def from_tensors(cls, spec: NetworkSpec, table: LayerTable, tensors: Mapping[str, Tensor]) -> Network:
        """Return a network that holds these tensors, by the keys of `table.tensors`. No weight is drawn."""
        with torch.device("meta"):
            network = cls(spec, table)
        # Batch norm counts its batches, which no one reads: the count starts anew.
        counts = {key: torch.zeros((), dtype=torch.long) for key in network.state_dict() if key not in tensors}
        network.load_state_dict({**tensors, **counts}, strict=True, assign=True)
        return network

    def forward(self, picture: Tensor, masks: Masks | None = None, statistics: Statistics = "module") -> Tensor:
        """Run the network; `masks` closes channels: per group a [C] tensor of zeros and ones, or of gates.

        Raises:
            SpecError: a mask is for a channel group that the network does not have.
        """
        return self._forward(picture, masks, statistics, {})

    def features(
        self, picture: Tensor, taps: Sequence[Tap], masks: Masks | None = None, statistics: Statistics = "module"
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the network and return its output, and the values at `taps`, each [N, C, H, W].

        Raises:
            SpecError: the network has no such row, or the row no norm.
        """
        found: dict[Tap, Tensor | None] = dict.fromkeys(taps)
        output = self._forward(picture, masks, statistics, found)
        values = []
        for name, place in taps:  # a tap that is named twice is given twice
            if (value := found[name, place]) is None:
                raise SpecError(f"this network has no '{place}' of a layer '{name}' to look at")
            values.append(value)
        return output, values

    def _forward(
        self, picture: Tensor, masks: Masks | None, statistics: Statistics, found: dict[Tap, Tensor | None]
    ) -> Tensor:
        if masks and (unknown := sorted(set(masks) - {group.name for group in self.table.groups})):
            raise SpecError(
                f"this network has no channel group '{unknown[0]}' to mask",
                hint=f"its groups: {', '.join(group.name for group in self.table.groups)}",
            )
        values = {INPUT: picture}
        y = picture
        for layer in self.table.layers:
            y = values[layer.name] = self._run(layer, values, masks or {}, statistics, found)
            if (tap := (layer.name, "output")) in found:
                found[tap] = y  # type: ignore[index]
            for name in _operands(layer):
                if self._last_use[name] == layer.name:
                    values.pop(name, None)
        return y

    def _run(
        self,
        layer: Layer,
        values: Mapping[str, Tensor],
        masks: Masks,
        statistics: Statistics,
        found: dict[Tap, Tensor | None],
    ) -> Tensor:
        mask = masks.get(layer.output) if layer.gate_after else None
        if layer.op == "constant":
            assert layer.adds is not None
            constant = self.get_submodule(layer.name).constant
            assert isinstance(constant, Tensor)
            constant = constant if mask is None else constant * mask
            return values[layer.adds] + constant[:, None, None]
        sources = [values[name] for name in layer.reads]
        x = sources[0] if len(sources) == 1 else torch.cat(sources, dim=1)
        x = activate(x, layer.pre_activation)
        if (layer.name, "input") in found:
            found[layer.name, "input"] = x
        conv = self.get_submodule(layer.name)
        biased = not (masks and layer.name in self._biasless_when_masked)
        if masks and layer.quantization != "none":
            y = _convolve(layer, conv, x, biased=biased, masks=(self._mask_of_inputs(layer, masks), mask))
        else:
            y = _convolve(layer, conv, x, biased=biased)
            if mask is not None and layer.gate_after == "conv":
                y = y * mask.to(y.dtype)[:, None, None]
        if layer.norm is not None:
            gate = mask if layer.gate_after == "norm" else None
            y = _normalise(y, self.get_submodule(layer.norm), gate, statistics)
            if (layer.name, "norm") in found:
                found[layer.name, "norm"] = y
        y = activate(y, layer.activation)
        if layer.dropout:
            y = F.dropout(y, DROPOUT_RATE, self.training)
        return y if layer.adds is None else values[layer.adds] + y

    def _mask_of_inputs(self, layer: Layer, masks: Masks) -> Tensor | None:
        """Return the mask of all that a row reads, [in]; None where there is none."""
        if (given := next((masks[group] for group in layer.inputs if group in masks), None)) is None:
            return None
        parts = (masks.get(group, given.new_ones(self.table.spec.width(group))) for group in layer.inputs)
        return torch.cat(list(parts))


class _Constant(nn.Module):
    """One value per channel: what a removed residual block with an affine norm leaves behind."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.zeros(channels))


class _NamedInstanceNorm(nn.Module):
    """An affine instance norm whose parameters have other names than PyTorch's `weight` and `bias`."""

    def __init__(self, channels: int, eps: float, names: tuple[str, str]) -> None:
        super().__init__()
        self.eps = eps
        self._names = names
        self.register_parameter(names[0], nn.Parameter(torch.ones(channels)))
        self.register_parameter(names[1], nn.Parameter(torch.zeros(channels)))

    @property
    def weight(self) -> nn.Parameter:
        return self.get_parameter(self._names[0])

    @property
    def bias(self) -> nn.Parameter:
        return self.get_parameter(self._names[1])

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


def _normalise(y: Tensor, norm: nn.Module, gate: Tensor | None, statistics: Statistics) -> Tensor:
    """Norm and gate in one: norm(y) * gate, the gate multiplied into the norm's scale and shift.

    This reads and writes each picture once less than a multiplication after the norm would.
    """
    if isinstance(norm, (nn.InstanceNorm2d, _NamedInstanceNorm)):
        if gate is None:
            return F.instance_norm(y, weight=norm.weight, bias=norm.bias, eps=norm.eps)
        scale = gate if norm.weight is None else norm.weight * gate
        shift = None if norm.bias is None else norm.bias * gate
        return F.instance_norm(
            y, weight=scale.to(y.dtype), bias=None if shift is None else shift.to(y.dtype), eps=norm.eps
        )
    assert isinstance(norm, nn.BatchNorm2d)
    if gate is None and statistics == "module":
        result: Tensor = norm(y)
        return result
    scale, shift = (norm.weight, norm.bias) if gate is None else (norm.weight * gate, norm.bias * gate)
    if statistics == "batch":
        return F.batch_norm(y, None, None, scale, shift, training=True, eps=norm.eps)
    if norm.training:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
    assert norm.momentum is not None, "a cumulative mean is for recalibration, which gates nothing"
    return F.batch_norm(y, norm.running_mean, norm.running_var, scale, shift, norm.training, norm.momentum, norm.eps)


def norm_scale_shift(state: Mapping[str, Tensor], norm: str, epsilon: float = NORM_EPSILON) -> tuple[Tensor, Tensor]:
    """Return what the batch norm under the key prefix `norm` does in evaluation mode: y = x * scale + shift.

    Both are [C], in double precision: a tiny running variance would otherwise cost digits.
    scale = gamma / sqrt(var + eps), shift = beta - mean * scale.
    """
    gamma, beta, mean, variance = (
        state[f"{norm}.{name}"].double() for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / torch.sqrt(variance + epsilon)
    return scale, beta - mean * scale


def _operands(layer: Layer) -> tuple[str, ...]:
    return layer.reads if layer.adds is None else (*layer.reads, layer.adds)


def _place(root: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` at the dotted path `name`, so that its state-dict keys start with it."""
    *path, last = name.split(".")
    for part in path:
        if part not in dict(root.named_children()):
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, module)


def _convolve(
    layer: Layer,
    conv: nn.Module,
    x: Tensor,
    *,
    biased: bool,
    masks: tuple[Tensor | None, Tensor | None] = (None, None),
) -> Tensor:
    """Return the convolution of a row, of quantized values where it has a grid; `biased` False leaves its bias out.

    `masks`: of what it reads and of what it gives, for a row on grids. Slicing changes the largest weight, and with it
    the grid: so the grid is that of what the masks leave, and a gate after a convolution is a factor of its weight
    before that is rounded. Then the masked row computes what the sliced one does.
    """
    if layer.quantized_input:
        log_scale, zero_point = (getattr(conv, name) for name in INPUT_GRID)
        x = rounded_input(x, log_scale, zero_point)
    if layer.padding and layer.padding_mode == "reflect":
        x = F.pad(x, (layer.padding,) * 4, mode="reflect")
    if biased and layer.quantization == "none":
        result: Tensor = conv(x)
        return result
    assert isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d))
    weight: Tensor = conv.weight
    bias: Tensor | None = conv.bias if biased else None
    if layer.quantization != "none":
        inputs, outputs = masks
        if outputs is not None and layer.gate_after == "conv":
            weight = weight * outputs.view((1, -1, 1, 1) if layer.op == "conv_transpose" else (-1, 1, 1, 1))
            bias = None if bias is None else bias * outputs
        like = open_part(weight, layer, inputs, outputs)
        weight = rounded_weight(weight, layer, like)
        if layer.quantized_input and bias is not None:
            bias = rounded_bias(bias, like, getattr(conv, INPUT_GRID[0]), layer)
    padding = 0 if layer.padding_mode == "reflect" else layer.padding
    if layer.op == "conv_transpose":
        return F.conv_transpose2d(x, weight, bias, layer.stride, padding, layer.output_padding)
    return F.conv2d(x, weight, bias, layer.stride, padding, groups=conv.groups)


def _convolution(layer: Layer) -> nn.Module:
    padding = 0 if layer.padding_mode == "reflect" else layer.padding
    conv: nn.Conv2d | nn.ConvTranspose2d
    if layer.op == "conv_transpose":
        conv = nn.ConvTranspose2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel,
            layer.stride,
            padding,
            layer.output_padding,
            bias=layer.bias,
        )
    else:
        groups = layer.in_channels if layer.op == "depthwise_conv" else 1
        conv = nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel, layer.stride, padding, groups=groups, bias=layer.bias
        )
    nn.init.normal_(conv.weight, 0.0, 0.02)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    if layer.quantized_input:  # until it is calibrated, the paper's: [0, 4] in 256 levels
        log_scale, zero_point = INPUT_GRID
        conv.register_parameter(log_scale, nn.Parameter(torch.full((1,), math.log(4 / 256))))
        conv.register_buffer(zero_point, torch.zeros(1))
    return conv


def _norm(layer: Layer) -> nn.Module:
    if layer.norm_kind == "batch":
        norm: nn.Module = nn.BatchNorm2d(layer.out_channels, eps=layer.epsilon)
    elif layer.norm_parameters != NORM_PARAMETERS:
        norm = _NamedInstanceNorm(layer.out_channels, layer.epsilon, layer.norm_parameters)
    else:
        norm = nn.InstanceNorm2d(layer.out_channels, eps=layer.epsilon, affine=layer.norm_kind == "instance_affine")
    if layer.norm_kind != "instance":
        nn.init.normal_(norm.get_parameter(layer.norm_parameters[0]), 1.0, 0.02)
    return norm


def activate(x: Tensor, activation: Activation | None) -> Tensor:
    """Return what a row's activation gives, of any shape."""
    if activation == "relu":
        return F.relu(x)
    if activation == "leaky_relu":
        return F.leaky_relu(x, LEAKY_SLOPE)
    if activation == "tanh":
        return torch.tanh(x)
    return x

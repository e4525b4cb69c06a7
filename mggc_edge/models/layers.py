"""The layer table: one list of rows from which a network is built, counted, gated, sliced and timed.

A row is a convolution with everything that belongs to it: what it reads (the outputs of earlier rows, concatenated),
its padding, norm, gate, activation, and the earlier output that is added at its end. Rows are in execution order, so
that the table is also the program that `mggc_edge.models.network` runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from mggc_edge.errors import SpecError
from mggc_edge.models.spec import DEFAULT_EPSILON, NetworkSpec, NormKind, PaddingMode, Quantization

Op = Literal["conv", "depthwise_conv", "conv_transpose", "constant"]
Activation = Literal["relu", "leaky_relu", "tanh"]
Size = tuple[int, int]

INPUT = "input"
OUTPUT = "output"
# A group of this name belongs to a residual branch that vanishes with it, so it may lose its last channel.
REMOVABLE_SUFFIX = ".inner"
NORM_PARAMETERS = ("weight", "bias")  # as PyTorch calls them
INPUT_GRID = ("input_log_scale", "input_zero_point")  # what the keys of a quantized input's grid end in, each [1]


@dataclass(frozen=True)
class Layer:
    """One row of the layer table.

    Attributes:
        name: prefix of its keys in a state dict.
        op: "constant" adds one value per channel: what remains of a removed residual block with an affine norm.
        reads: names of the rows whose outputs are concatenated along the channels; "input" is the picture.
        inputs, output: the channel groups of `reads`, and the group it writes. "input" and "output" are the pictures.
        in_channels, out_channels: sums of their widths.
        norm, norm_kind: prefix of the norm's keys, None without one; its kind.
        norm_parameters: what the keys of the norm's scale (gamma) and shift (beta) end in.
        epsilon: what the norm adds to the variance.
        gate_after: where a channel gate sits. After the norm: a gate before a norm with parameters would let the norm
            revive closed channels. None where the output is no prunable group.
        pre_activation: applied to what is read. activation: applied after norm and gate.
        adds: name of the row whose output is added at the end.
        quantization: the grid of its weight. quantized_input: whether what it reads is quantized too.
        in_size, out_size: (height, width) of input and output in pixels.
    """

    name: str
    op: Op
    reads: tuple[str, ...]
    inputs: tuple[str, ...]
    output: str
    in_channels: int
    out_channels: int
    in_size: Size
    out_size: Size
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    output_padding: int = 0
    padding_mode: PaddingMode = "zeros"
    bias: bool = False
    norm: str | None = None
    norm_kind: NormKind = "none"
    norm_parameters: tuple[str, str] = NORM_PARAMETERS
    epsilon: float = DEFAULT_EPSILON
    gate_after: Literal["norm", "conv"] | None = None
    pre_activation: Activation | None = None
    activation: Activation | None = None
    dropout: bool = False
    adds: str | None = None
    quantization: Quantization = "none"
    quantized_input: bool = False


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are kept or removed together, with the rows that write and read them."""

    name: str
    size: int
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    minimum: int = 1


@dataclass(frozen=True)
class TensorShape:
    """Shape of one tensor of a state dict, and whether it is a parameter: running statistics and grids are none."""

    shape: tuple[int, ...]
    parameter: bool = True


@dataclass(frozen=True)
class LayerTable:
    """The rows of a network at one picture size."""

    spec: NetworkSpec
    image_size: Size
    layers: tuple[Layer, ...]

    @cached_property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """The prunable channel groups, in the order of the spec."""
        return tuple(
            ChannelGroup(
                name=group,
                size=width,
                writers=tuple(layer.name for layer in self.layers if layer.output == group),
                readers=tuple(layer.name for layer in self.layers if group in layer.inputs),
                minimum=0 if group.endswith(REMOVABLE_SUFFIX) else 1,
            )
            for group, width in self.spec.widths
        )

    @cached_property
    def tensors(self) -> Mapping[str, TensorShape]:
        """Shape of every tensor in the state dict, by key (`num_batches_tracked`, which no one reads, is left out)."""
        shapes: dict[str, TensorShape] = {}
        for layer in self.layers:
            if layer.op == "constant":
                shapes[f"{layer.name}.constant"] = TensorShape((layer.out_channels,))
                continue
            shapes[f"{layer.name}.weight"] = TensorShape(weight_shape(layer))
            if layer.bias:
                shapes[f"{layer.name}.bias"] = TensorShape((layer.out_channels,))
            if layer.quantized_input:
                for name in INPUT_GRID:
                    shapes[f"{layer.name}.{name}"] = TensorShape((1,), parameter=False)
            if layer.norm is not None and layer.norm_kind in ("instance_affine", "batch"):
                for name in layer.norm_parameters:
                    shapes[f"{layer.norm}.{name}"] = TensorShape((layer.out_channels,))
            if layer.norm is not None and layer.norm_kind == "batch":
                for name in ("running_mean", "running_var"):
                    shapes[f"{layer.norm}.{name}"] = TensorShape((layer.out_channels,), parameter=False)
        return shapes


def weight_shape(layer: Layer) -> tuple[int, int, int, int]:
    """Return the shape of a row's convolution weight.

    Conv: [out, in, kH, kW]. ConvTranspose: [in, out, kH, kW]. Depthwise: [out, 1, kH, kW].
    """
    square = (layer.kernel, layer.kernel)
    if layer.op == "conv_transpose":
        return (layer.in_channels, layer.out_channels, *square)
    return (layer.out_channels, 1 if layer.op == "depthwise_conv" else layer.in_channels, *square)


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


class TableBuilder:
    """Writes the rows of a network: a family states what is particular, the builder fills in widths and sizes."""

    def __init__(
        self, spec: NetworkSpec, image_size: Size, *, norm_parameters: tuple[str, str] = NORM_PARAMETERS
    ) -> None:
        self.spec = spec
        self.image_size = image_size
        self._norm_parameters = norm_parameters
        self._layers: dict[str, Layer] = {}

    def conv(
        self,
        name: str,
        reads: str | tuple[str, ...],
        output: str,
        *,
        kernel: int,
        op: Op = "conv",
        stride: int = 1,
        padding: int = 0,
        output_padding: int = 0,
        padding_mode: PaddingMode = "zeros",
        bias: bool,
        norm: str | None = None,
        pre_activation: Activation | None = None,
        activation: Activation | None = None,
        dropout: bool = False,
        adds: str | None = None,
    ) -> str:
        """Append a convolution and return its name.

        Raises:
            SpecError: the picture is too small for it, the things it joins or adds differ in size or channel group, or
                it is depthwise and writes another group than it reads.
        """
        reads = (reads,) if isinstance(reads, str) else reads
        sizes = {self._size(source) for source in reads}
        if len(sizes) != 1:
            raise SpecError(f"layer {name} joins pictures of different sizes: {sorted(sizes)}")
        (in_size,) = sizes
        if op == "conv_transpose":
            height, width = ((n - 1) * stride - 2 * padding + kernel + output_padding for n in in_size)
        else:
            height, width = ((n + 2 * padding - kernel) // stride + 1 for n in in_size)
        out_size = (height, width)
        if min(out_size) < 1 or (padding_mode == "reflect" and min(in_size) <= padding):
            raise SpecError(f"a picture of {_by(self.image_size)} is too small for this network")
        inputs = tuple(map(self.group, reads))
        if op == "depthwise_conv" and inputs != (output,):
            raise SpecError(f"layer {name} is depthwise, but reads {', '.join(inputs)} and writes {output}")
        if adds is not None and (self.group(adds), self._size(adds)) != (output, out_size):
            raise SpecError(
                f"layer {name} writes {output} at {_by(out_size)}, and cannot add {self.group(adds)} at "
                f"{_by(self._size(adds))}"
            )
        widths = [self.spec.width(group) for group in (*inputs, output)]
        if min(widths) < 1:
            raise SpecError(f"layer {name} has no channels to read or to write")
        norm_kind = self.spec.norm if norm is not None else "none"
        normed = norm_kind != "none"
        self._layers[name] = Layer(
            name=name,
            op=op,
            reads=reads,
            inputs=inputs,
            output=output,
            in_channels=sum(widths[:-1]),
            out_channels=widths[-1],
            in_size=in_size,
            out_size=out_size,
            kernel=kernel,
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            padding_mode=padding_mode,
            bias=bias,
            norm=norm if normed else None,
            norm_kind=norm_kind,
            norm_parameters=self._norm_parameters,
            epsilon=self.spec.epsilon,
            gate_after=None if output == OUTPUT else "norm" if normed else "conv",
            pre_activation=pre_activation,
            activation=activation,
            dropout=dropout,
            adds=adds,
            quantization=self.spec.quantization,
            quantized_input=self.spec.quantization != "none" and INPUT not in reads,
        )
        return name

    def constant(self, name: str, adds: str) -> str:
        """Append what a removed block leaves, one value per channel added to the output of `adds`; return its name."""
        group, size = self.group(adds), self._size(adds)
        width = self.spec.width(group)
        self._layers[name] = Layer(
            name=name,
            op="constant",
            reads=(),
            inputs=(),
            output=group,
            in_channels=0,
            out_channels=width,
            in_size=size,
            out_size=size,
            gate_after="conv",
            adds=adds,
        )
        return name

    def finish(self) -> LayerTable:
        """Return the table."""
        return LayerTable(self.spec, self.image_size, tuple(self._layers.values()))

    def group(self, source: str) -> str:
        """Return the channel group that the row `source`, or the picture, writes."""
        return INPUT if source == INPUT else self._layers[source].output

    def _size(self, source: str) -> Size:
        return self.image_size if source == INPUT else self._layers[source].out_size

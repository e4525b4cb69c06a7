"""ResNet generators of CycleGAN: a 7x7 stem, two halvings, n residual blocks, two doublings, a 7x7 head.

Keys follow the well-known PyTorch implementation of CycleGAN and pix2pix, where the network is one sequence `model`:
1 stem, 4 and 7 halvings, 10 .. 9+n blocks, then doublings and head. The separable ("mobile") form, in which only the
residual convolutions are depthwise-separable, follows GAN Compression (Li et al., CVPR 2020).
"""

from __future__ import annotations

import re
from itertools import pairwise

from mggc_edge.errors import CheckpointError, SpecError
from mggc_edge.models.family import (
    INDEX,
    Family,
    NormStats,
    Shapes,
    infer_norm,
    inner_group,
    inner_groups,
    weight,
)
from mggc_edge.models.layers import INPUT, OUTPUT, Activation, LayerTable, Size, TableBuilder
from mggc_edge.models.spec import MAX_BLOCKS, NetworkSpec, NormKind, PaddingMode

FIRST_BLOCK = 10
_BLOCK_KEY = re.compile(rf"model\.{INDEX}\.(?:conv_block\.|constant$)")
_TOP_KEY = re.compile(rf"model\.{INDEX}\.weight$")
_RESIDUAL_CONV_KEY = re.compile(rf"model\.{INDEX}\.conv_block\.{INDEX}(\.conv\.2)?\.weight$")


def resnet_spec(
    *,
    blocks: int = 9,
    ngf: int = 64,
    in_channels: int = 3,
    out_channels: int = 3,
    norm: NormKind = "instance",
    padding: PaddingMode = "reflect",
    dropout: bool = False,
    separable: bool = False,
) -> NetworkSpec:
    """Return the spec of an unpruned ResNet generator with `ngf` channels after the stem."""
    return NetworkSpec(
        family="resnet",
        in_channels=in_channels,
        out_channels=out_channels,
        blocks=blocks,
        widths=(
            ("stem", ngf),
            ("down1", 2 * ngf),
            ("trunk", 4 * ngf),
            *((inner_group(block), 4 * ngf) for block in range(1, blocks + 1)),
            ("up1", 2 * ngf),
            ("up2", ngf),
        ),
        norm=norm,
        bias=norm != "batch",
        padding=padding,
        dropout=dropout,
        separable=separable,
    )


def draw(spec: NetworkSpec, image_size: Size) -> LayerTable:
    """Return the layer table; both sides of the picture must be multiples of 4."""
    if any(side % 4 or side < 8 for side in image_size):
        raise SpecError(
            f"a ResNet generator cannot run at {image_size[0]}x{image_size[1]}",
            hint="both sides must be multiples of 4 and at least 8",
        )
    table = TableBuilder(spec, image_size)
    bias = spec.bias
    x = table.conv(
        "model.1",
        INPUT,
        "stem",
        kernel=7,
        padding=3,
        padding_mode="reflect",
        bias=bias,
        norm="model.2",
        activation="relu",
    )
    x = table.conv("model.4", x, "down1", kernel=3, stride=2, padding=1, bias=bias, norm="model.5", activation="relu")
    x = table.conv("model.7", x, "trunk", kernel=3, stride=2, padding=1, bias=bias, norm="model.8", activation="relu")
    for block in range(1, spec.blocks + 1):
        x = _draw_block(table, f"model.{FIRST_BLOCK + block - 1}", x, inner_group(block))
    index = FIRST_BLOCK + spec.blocks
    for group in ("up1", "up2"):
        x = table.conv(
            f"model.{index}",
            x,
            group,
            op="conv_transpose",
            kernel=3,
            stride=2,
            padding=1,
            output_padding=1,
            bias=bias,
            norm=f"model.{index + 1}",
            activation="relu",
        )
        index += 3
    table.conv(
        f"model.{index + 1}", x, OUTPUT, kernel=7, padding=3, padding_mode="reflect", bias=True, activation="tanh"
    )
    return table.finish()


def _draw_block(table: TableBuilder, name: str, x: str, inner: str) -> str:
    spec = table.spec
    if spec.width(inner) == 0:
        # With nothing between its two convolutions the branch is norm(constant): zero for plain instance norm, so the
        # block is the identity; a constant per channel for every other norm.
        return x if spec.norm == "instance" else table.constant(name, adds=x)
    first, second = (f"{name}.conv_block.{index}" for index in _conv_indices(spec.padding, spec.dropout))
    h = _residual_conv(table, first, x, inner, activation="relu", dropout=spec.dropout)
    return _residual_conv(table, second, h, "trunk", adds=x)


def _residual_conv(
    table: TableBuilder,
    name: str,
    x: str,
    output: str,
    *,
    activation: Activation | None = None,
    dropout: bool = False,
    adds: str | None = None,
) -> str:
    spec = table.spec
    head, _, index = name.rpartition(".")
    kernel, padding, padding_mode = 3, 1, spec.padding
    if spec.separable:
        # The depthwise norm would revive closed channels, so its row writes, and is gated with, the group it reads.
        x = table.conv(
            f"{name}.conv.0",
            x,
            table.group(x),
            op="depthwise_conv",
            kernel=kernel,
            padding=padding,
            padding_mode=padding_mode,
            bias=spec.bias,
            norm=f"{name}.conv.1",
        )
        name, kernel, padding, padding_mode = f"{name}.conv.2", 1, 0, "zeros"
    return table.conv(
        name,
        x,
        output,
        kernel=kernel,
        padding=padding,
        padding_mode=padding_mode,
        bias=spec.bias,
        norm=f"{head}.{int(index) + 1}",
        activation=activation,
        dropout=dropout,
        adds=adds,
    )


def _conv_indices(padding: PaddingMode, dropout: bool) -> tuple[int, int]:
    """Indices of a block's two convolutions: a reflection pad before each and a dropout layer between shift them."""
    first = 1 if padding == "reflect" else 0
    return first, first + 3 + int(dropout) + int(padding == "reflect")


def recognises(shapes: Shapes) -> bool:
    """Whether any key belongs to a residual block, or (all blocks removed) the stem and halvings are a ResNet's."""
    kernels = [shapes.get(f"model.{index}.weight", ())[2:] for index in (1, 4, 7)]
    return any(_BLOCK_KEY.match(key) for key in shapes) or kernels == [(7, 7), (3, 3), (3, 3)]


def infer(shapes: Shapes, norm_stats: NormStats = "instance") -> NetworkSpec:
    """Return the spec that a ResNet state dict was saved from; removed blocks leave a hole in the numbering."""
    blocks = sorted({int(match[1]) for key in shapes if (match := _BLOCK_KEY.match(key))})
    tops = sorted({int(match[1]) for key in shapes if (match := _TOP_KEY.match(key))})
    last = max(blocks, default=FIRST_BLOCK - 1)
    after = [index for index in tops if index > last and len(shapes[f"model.{index}.weight"]) == 4]
    if not after or min(blocks, default=FIRST_BLOCK) < FIRST_BLOCK:
        raise CheckpointError("this looks like a ResNet generator, but its layers are not at the expected indices")
    up1 = after[0]
    count = up1 - FIRST_BLOCK
    if _is_resize_convolution(shapes, up1, after):
        raise CheckpointError(
            "this generator enlarges pictures by resizing and convolving, a fork that mggc-edge does not build",
            hint="only transposed convolutions are supported; retrain with the original ResNet generator",
        )
    if count > MAX_BLOCKS:
        raise CheckpointError(f"a ResNet generator with {count} blocks is not supported")
    up2, head = up1 + 3, up1 + 7
    padding, dropout, separable = _block_layout(shapes)
    first, _ = _conv_indices(padding, dropout)
    stem, down1, trunk = weight(shapes, "model.1"), weight(shapes, "model.4"), weight(shapes, "model.7")
    inner = {}
    for block in range(1, count + 1):
        prefix = f"model.{FIRST_BLOCK + block - 1}.conv_block.{first}"
        present = FIRST_BLOCK + block - 1 in blocks and f"model.{FIRST_BLOCK + block - 1}.constant" not in shapes
        inner[inner_group(block)] = weight(shapes, f"{prefix}.conv.2" if separable else prefix)[0] if present else 0
    return NetworkSpec(
        family="resnet",
        in_channels=stem[1],
        out_channels=weight(shapes, f"model.{head}")[0],
        blocks=count,
        widths=(
            ("stem", stem[0]),
            ("down1", down1[0]),
            ("trunk", trunk[0]),
            *inner.items(),
            ("up1", weight(shapes, f"model.{up1}")[1]),  # ConvTranspose weight: [in, out, kH, kW]
            ("up2", weight(shapes, f"model.{up2}")[1]),
        ),
        norm=_norm(shapes, norm_stats),
        bias="model.1.bias" in shapes,
        padding=padding,
        dropout=dropout,
        separable=separable,
    )


def _norm(shapes: Shapes, norm_stats: NormStats) -> NormKind:
    return infer_norm(shapes, conv="model.1", norm="model.2", norm_stats=norm_stats)


def _is_resize_convolution(shapes: Shapes, up1: int, after: list[int]) -> bool:
    # The fork puts [upsample, reflection pad, convolution, norm, ReLU] where a transposed convolution has
    # [transposed convolution, norm, ReLU]: its convolutions are 5 apart, not 3, and 4-D of [out, in].
    steps = [b - a for a, b in pairwise(after)]
    return bool(steps) and steps[0] != 3 and weight(shapes, f"model.{up1}")[2] == 3


def _block_layout(shapes: Shapes) -> tuple[PaddingMode, bool, bool]:
    """Return (padding, dropout layer present, separable) from the indices of the convolutions inside the blocks."""
    found = [
        (int(match[2]), match[3])
        for key, shape in shapes.items()
        if len(shape) == 4 and (match := _RESIDUAL_CONV_KEY.match(key))
    ]
    if not found:  # every block has been removed
        return "reflect", False, False
    separable = any(suffix for _, suffix in found)
    indices = sorted({index for index, suffix in found if bool(suffix) == separable})
    for padding in ("reflect", "zeros"):
        for dropout in (False, True):
            if tuple(indices) == _conv_indices(padding, dropout):
                return padding, dropout, separable
    raise CheckpointError(
        f"the residual blocks have convolutions at {indices}, a layout that mggc-edge does not know",
        hint="known are reflection and zero padding, with and without a dropout layer",
    )


FAMILY = Family(
    name="resnet",
    role="generator",
    recognises=recognises,
    infer=infer,
    draw=draw,
    title=lambda spec: f"{'mobile_' if spec.separable else ''}resnet_{spec.blocks}blocks",
    default_image_size=lambda _: (256, 256),
    removable_groups=inner_groups,
)

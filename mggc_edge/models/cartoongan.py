"""CartoonGAN's generator: a 7x7 stem, two halvings, n residual blocks, two doublings, a 7x7 head; pictures in BGR.

Chen et al., CVPR 2018, with the keys of the published weights, which number convolutions and norms by their stage:
`conv01_1` stem, `conv02_1 conv02_2` and `conv03_1 conv03_2` halvings, `conv04_1 conv04_2` to `conv11_1 conv11_2`
blocks, `deconv01_1 deconv01_2` and `deconv02_1 deconv02_2` doublings, `deconv03_1` head. Only the first of each
doubling is a transposed convolution. The norms are `inXX_Y` with `scale` and `shift`: those of a block have the
numbers of its convolutions, those of the doublings the next two (12 and 13 after eight blocks).

Between the two convolutions of a halving or a doubling there is nothing: no norm and no activation.
"""

from __future__ import annotations

import re

from mggc_edge.errors import CheckpointError, SpecError
from mggc_edge.models.family import Family, NormStats, Shapes, inner_group, inner_groups, weight
from mggc_edge.models.layers import INPUT, OUTPUT, LayerTable, Size, TableBuilder
from mggc_edge.models.spec import MAX_BLOCKS, NetworkSpec

FIRST_BLOCK = 4  # the stage that is residual block 1
EPSILON = 1e-9
NORM_PARAMETERS = ("scale", "shift")
_NUMBER = "(0[1-9]|[1-9][0-9]{1,2})"  # of a stage, written in the one way that leads back to the key
_KEY = re.compile(rf"(?:conv|deconv){_NUMBER}_[12]\.(?:weight|bias)$|in{_NUMBER}_[12]\.\w+$")
_BLOCK_KEY = re.compile(rf"conv{_NUMBER}(?:_[12]\.\w+|\.constant)$")


def cartoongan_spec(*, blocks: int = 8, ngf: int = 64, in_channels: int = 3, out_channels: int = 3) -> NetworkSpec:
    """Return the spec of an unpruned CartoonGAN generator with `ngf` channels after the stem."""
    return _spec(
        blocks=blocks,
        in_channels=in_channels,
        out_channels=out_channels,
        widths=(
            ("stem", ngf),
            ("down1.first", 2 * ngf),
            ("down1", 2 * ngf),
            ("down2.first", 4 * ngf),
            ("trunk", 4 * ngf),
            *((inner_group(block), 4 * ngf) for block in range(1, blocks + 1)),
            ("up1.first", 2 * ngf),
            ("up1", 2 * ngf),
            ("up2.first", ngf),
            ("up2", ngf),
        ),
    )


def _spec(*, blocks: int, in_channels: int, out_channels: int, widths: tuple[tuple[str, int], ...]) -> NetworkSpec:
    return NetworkSpec(
        family="cartoongan",
        in_channels=in_channels,
        out_channels=out_channels,
        blocks=blocks,
        widths=widths,
        norm="instance_affine",
        bias=True,
        padding="reflect",
        epsilon=EPSILON,
        color_order="BGR",
    )


def draw(spec: NetworkSpec, image_size: Size) -> LayerTable:
    """Return the layer table; both sides of the picture must be multiples of 4."""
    layout = (spec.norm, spec.bias, spec.padding, spec.dropout, spec.separable)
    if layout != ("instance_affine", True, "reflect", False, False):
        raise SpecError("a CartoonGAN generator has affine instance norms, biases and reflection padding, and no other")
    if any(side % 4 or side < 8 for side in image_size):
        raise SpecError(
            f"a CartoonGAN generator cannot run at {image_size[0]}x{image_size[1]}",
            hint="both sides must be multiples of 4 and at least 8",
        )
    table = TableBuilder(spec, image_size, norm_parameters=NORM_PARAMETERS)
    x = table.conv(
        "conv01_1",
        INPUT,
        "stem",
        kernel=7,
        padding=3,
        padding_mode="reflect",
        bias=True,
        norm="in01_1",
        activation="relu",
    )
    for stage, first, group in (("02", "down1.first", "down1"), ("03", "down2.first", "trunk")):
        x = table.conv(f"conv{stage}_1", x, first, kernel=3, stride=2, padding=1, bias=True)
        x = table.conv(
            f"conv{stage}_2", x, group, kernel=3, padding=1, bias=True, norm=f"in{stage}_1", activation="relu"
        )
    for block in range(1, spec.blocks + 1):
        x = _draw_block(table, _stage(block), x, inner_group(block))
    for stage, norm, group in (("01", spec.blocks + 1, "up1"), ("02", spec.blocks + 2, "up2")):
        x = table.conv(
            f"deconv{stage}_1",
            x,
            f"{group}.first",
            op="conv_transpose",
            kernel=3,
            stride=2,
            padding=1,
            output_padding=1,
            bias=True,
        )
        x = table.conv(
            f"deconv{stage}_2", x, group, kernel=3, padding=1, bias=True, norm=f"in{_stage(norm)}_1", activation="relu"
        )
    table.conv("deconv03_1", x, OUTPUT, kernel=7, padding=3, padding_mode="reflect", bias=True, activation="tanh")
    return table.finish()


def _stage(block: int) -> str:
    """Return the number that the keys of a residual block have; block n + 1 and n + 2 are the doublings' norms."""
    return f"{FIRST_BLOCK + block - 1:02d}"


def _draw_block(table: TableBuilder, stage: str, x: str, inner: str) -> str:
    if table.spec.width(inner) == 0:
        return table.constant(f"conv{stage}", adds=x)  # of the branch norm(constant), the norm's shift is left
    h = table.conv(
        f"conv{stage}_1",
        x,
        inner,
        kernel=3,
        padding=1,
        padding_mode="reflect",
        bias=True,
        norm=f"in{stage}_1",
        activation="relu",
    )
    return table.conv(
        f"conv{stage}_2",
        h,
        "trunk",
        kernel=3,
        padding=1,
        padding_mode="reflect",
        bias=True,
        norm=f"in{stage}_2",
        adds=x,
    )


def recognises(shapes: Shapes) -> bool:
    """Whether any key is that of a numbered convolution or norm."""
    return any(_KEY.match(key) for key in shapes)


def infer(shapes: Shapes, _norm_stats: NormStats = "instance") -> NetworkSpec:
    """Return the spec that a CartoonGAN state dict was saved from; its norms have no running statistics to choose."""
    stages = [int(match[1]) for key in shapes if (match := _BLOCK_KEY.match(key))]
    blocks = max(stages, default=0) - FIRST_BLOCK + 1
    if blocks < 1:
        raise CheckpointError(
            "this looks like a CartoonGAN generator, but has no residual blocks",
            hint=f"the first would have the key 'conv{FIRST_BLOCK:02d}_1.weight'",
        )
    if blocks > MAX_BLOCKS:
        raise CheckpointError(f"a CartoonGAN generator with {blocks} blocks is not supported")
    if "in01_1.weight" in shapes or "in01_1.running_mean" in shapes:
        raise CheckpointError(
            "this looks like a CartoonGAN generator, but its norms are not the published ones",
            hint="they have 'scale' and 'shift', and take every picture's own statistics",
        )
    inner = {}
    for block in range(1, blocks + 1):
        name = f"conv{_stage(block)}"
        inner[inner_group(block)] = 0 if f"{name}.constant" in shapes else weight(shapes, f"{name}_1")[0]
    stem = weight(shapes, "conv01_1")
    return _spec(
        blocks=blocks,
        in_channels=stem[1],
        out_channels=weight(shapes, "deconv03_1")[0],
        widths=(
            ("stem", stem[0]),
            ("down1.first", weight(shapes, "conv02_1")[0]),
            ("down1", weight(shapes, "conv02_2")[0]),
            ("down2.first", weight(shapes, "conv03_1")[0]),
            ("trunk", weight(shapes, "conv03_2")[0]),
            *inner.items(),
            ("up1.first", weight(shapes, "deconv01_1")[1]),  # ConvTranspose weight: [in, out, kH, kW]
            ("up1", weight(shapes, "deconv01_2")[0]),
            ("up2.first", weight(shapes, "deconv02_1")[1]),
            ("up2", weight(shapes, "deconv02_2")[0]),
        ),
    )


FAMILY = Family(
    name="cartoongan",
    role="generator",
    recognises=recognises,
    infer=infer,
    draw=draw,
    title=lambda spec: f"cartoongan_{spec.blocks}blocks",
    default_image_size=lambda _: (256, 256),
    removable_groups=inner_groups,
)

"""PatchGAN, the discriminator of pix2pix and CycleGAN: 4x4 convolutions that judge overlapping patches.

Keys follow the well-known PyTorch implementation: `model.0`, then every third layer from `model.2` on.
"""

from __future__ import annotations

import re

from mggc_edge.errors import CheckpointError, SpecError
from mggc_edge.models.family import INDEX, Family, NormStats, Shapes, infer_norm, weight
from mggc_edge.models.layers import INPUT, OUTPUT, LayerTable, Size, TableBuilder
from mggc_edge.models.spec import NetworkSpec, NormKind

MAX_LAYERS = 8
_CONV_KEY = re.compile(rf"model\.{INDEX}\.weight$")


def _conv_index(layer: int) -> int:
    """Index of convolution `layer`, counted from 0: 0, 2, 5, 8, 11, ..."""
    return 0 if layer == 0 else 3 * layer - 1


def patchgan_spec(*, in_channels: int = 3, ndf: int = 64, layers: int = 3, norm: NormKind = "instance") -> NetworkSpec:
    """Return the spec of an unpruned PatchGAN; pix2pix's sees condition and picture, 6 channels."""
    return NetworkSpec(
        family="patchgan",
        in_channels=in_channels,
        out_channels=1,
        blocks=layers,
        widths=tuple((f"layer{layer}", min(2 ** (layer - 1), 8) * ndf) for layer in range(1, layers + 2)),
        norm=norm,
        bias=norm != "batch",
    )


def draw(spec: NetworkSpec, image_size: Size) -> LayerTable:
    """Return the layer table; the first `blocks` convolutions halve the picture, two more follow at stride 1."""
    if spec.blocks > MAX_LAYERS:
        raise SpecError(f"a PatchGAN has at most {MAX_LAYERS} layers, not {spec.blocks}")
    table = TableBuilder(spec, image_size)
    x = INPUT
    for layer in range(spec.blocks + 1):
        index = _conv_index(layer)
        first = layer == 0
        x = table.conv(
            f"model.{index}",
            x,
            f"layer{layer + 1}",
            kernel=4,
            stride=2 if layer < spec.blocks else 1,
            padding=1,
            bias=spec.bias or first,
            norm=None if first else f"model.{index + 1}",
            activation="leaky_relu",
        )
    table.conv(f"model.{_conv_index(spec.blocks + 1)}", x, OUTPUT, kernel=4, padding=1, bias=True)
    return table.finish()


def _conv_indices(shapes: Shapes) -> list[int]:
    return sorted(int(match[1]) for key, shape in shapes.items() if len(shape) == 4 and (match := _CONV_KEY.match(key)))


def recognises(shapes: Shapes) -> bool:
    """Whether the convolutions sit exactly where a PatchGAN has them."""
    indices = _conv_indices(shapes)
    return len(indices) >= 3 and indices == [_conv_index(layer) for layer in range(len(indices))]


def infer(shapes: Shapes, norm_stats: NormStats = "instance") -> NetworkSpec:
    """Return the spec that a PatchGAN state dict was saved from."""
    convs = [weight(shapes, f"model.{index}") for index in _conv_indices(shapes)]
    if convs[-1][0] != 1 or any(conv[2:] != (4, 4) for conv in convs):
        raise CheckpointError(
            "this looks like a PatchGAN discriminator, but it does not end in one 4x4 judgement per patch"
        )
    return NetworkSpec(
        family="patchgan",
        in_channels=convs[0][1],
        out_channels=1,
        blocks=len(convs) - 2,
        widths=tuple((f"layer{layer}", conv[0]) for layer, conv in enumerate(convs[:-1], start=1)),
        norm=infer_norm(shapes, conv="model.2", norm="model.3", norm_stats=norm_stats),
        bias="model.2.bias" in shapes,
    )


FAMILY = Family(
    name="patchgan",
    role="discriminator",
    recognises=recognises,
    infer=infer,
    draw=draw,
    title=lambda _: "patchgan",
    default_image_size=lambda _: (256, 256),
)

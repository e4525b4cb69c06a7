"""U-Net generators of pix2pix: n halvings, n doublings, and a skip connection between the two at every size.

Keys follow the well-known PyTorch implementation, where every block holds the next one: the outermost is
`model.model`, the second `model.model.1.model`, and each deeper one appends `.3.model`.
"""

from __future__ import annotations

from collections.abc import Iterator

from mggc_edge.errors import CheckpointError, SpecError
from mggc_edge.models.family import Family, NormStats, Shapes, infer_norm, weight
from mggc_edge.models.layers import INPUT, OUTPUT, LayerTable, Size, TableBuilder
from mggc_edge.models.spec import NetworkSpec, NormKind

MIN_HALVINGS = 2
MAX_HALVINGS = 12


def _prefixes() -> Iterator[str]:
    """Yield the key prefix of block 1 (outermost), 2, 3, ..."""
    prefix = "model.model"
    yield prefix
    prefix += ".1.model"
    while True:
        yield prefix
        prefix += ".3.model"


def _down_key(prefix: str, block: int) -> str:
    return f"{prefix}.{0 if block == 1 else 1}"


def _up_key(prefix: str, block: int, halvings: int) -> str:
    # Between the two convolutions of a block: activation, inner block, activation, norm, as far as it has them.
    return f"{prefix}.{3 if block in (1, halvings) else 5}"


def unet_spec(
    *,
    halvings: int = 8,
    ngf: int = 64,
    in_channels: int = 3,
    out_channels: int = 3,
    norm: NormKind = "batch",
    dropout: bool = True,
) -> NetworkSpec:
    """Return the spec of an unpruned U-Net: `halvings` is 8 for U-Net-256 and 7 for U-Net-128."""
    down = [min(2**block, 8) * ngf for block in range(halvings)]
    return NetworkSpec(
        family="unet",
        in_channels=in_channels,
        out_channels=out_channels,
        blocks=halvings,
        widths=(
            *((f"down{block}", down[block - 1]) for block in range(1, halvings + 1)),
            *((f"up{block}", down[block - 2]) for block in range(halvings, 1, -1)),
        ),
        norm=norm,
        bias=norm != "batch",
        dropout=dropout,
    )


def draw(spec: NetworkSpec, image_size: Size) -> LayerTable:
    """Return the layer table; both sides of the picture must be multiples of 2^halvings."""
    halvings, multiple = spec.blocks, 2**spec.blocks
    if not MIN_HALVINGS <= halvings <= MAX_HALVINGS:
        raise SpecError(f"a U-Net has between {MIN_HALVINGS} and {MAX_HALVINGS} halvings, not {halvings}")
    if any(side % multiple or side < multiple for side in image_size):
        raise SpecError(
            f"a U-Net that halves the picture {halvings} times cannot run at {image_size[0]}x{image_size[1]}",
            hint=f"both sides must be multiples of {multiple}",
        )
    table = TableBuilder(spec, image_size)
    prefixes = [prefix for prefix, _ in zip(_prefixes(), range(halvings), strict=False)]
    down: dict[int, str] = {}
    x = INPUT
    for block, prefix in enumerate(prefixes, start=1):
        name = _down_key(prefix, block)
        index = int(name.rpartition(".")[2])
        normed = 1 < block < halvings
        x = down[block] = table.conv(
            name,
            x,
            f"down{block}",
            kernel=4,
            stride=2,
            padding=1,
            bias=spec.bias,
            norm=f"{prefix}.{index + 1}" if normed else None,
            pre_activation=None if block == 1 else "leaky_relu",
        )
    for block in range(halvings, 0, -1):
        prefix = prefixes[block - 1]
        name = _up_key(prefix, block, halvings)
        index = int(name.rpartition(".")[2])
        x = table.conv(
            name,
            (x,) if block == halvings else (down[block], x),  # the skip comes first
            OUTPUT if block == 1 else f"up{block}",
            op="conv_transpose",
            kernel=4,
            stride=2,
            padding=1,
            bias=spec.bias or block == 1,
            norm=None if block == 1 else f"{prefix}.{index + 1}",
            pre_activation="relu",
            activation="tanh" if block == 1 else None,
            dropout=spec.dropout and 5 <= block < halvings,
        )
    return table.finish()


def recognises(shapes: Shapes) -> bool:
    """Whether any key lies inside nested U-Net blocks."""
    return any(key.startswith("model.model.1.model.") for key in shapes)


def infer(shapes: Shapes, norm_stats: NormStats = "instance") -> NetworkSpec:
    """Return the spec that a U-Net state dict was saved from.

    Dropout leaves no trace in a U-Net's keys: it is taken as pix2pix has it.
    """
    prefixes: list[str] = []
    for block, prefix in enumerate(_prefixes(), start=1):
        if f"{_down_key(prefix, block)}.weight" not in shapes:
            break
        prefixes.append(prefix)
        if block > MAX_HALVINGS:
            raise CheckpointError(f"a U-Net with more than {MAX_HALVINGS} halvings is not supported")
    halvings = len(prefixes)
    if halvings < MIN_HALVINGS:
        raise CheckpointError("this looks like a U-Net generator, but its layers are not at the expected indices")
    down = [weight(shapes, _down_key(prefix, block)) for block, prefix in enumerate(prefixes, start=1)]
    up = [weight(shapes, _up_key(prefix, block, halvings)) for block, prefix in enumerate(prefixes, start=1)]
    up_conv = _up_key(prefixes[-1], halvings, halvings)
    return NetworkSpec(
        family="unet",
        in_channels=down[0][1],
        out_channels=up[0][1],  # ConvTranspose weight: [in, out, kH, kW]
        blocks=halvings,
        widths=(
            *((f"down{block}", down[block - 1][0]) for block in range(1, halvings + 1)),
            *((f"up{block}", up[block - 1][1]) for block in range(halvings, 1, -1)),
        ),
        norm=infer_norm(shapes, conv=up_conv, norm=f"{prefixes[-1]}.4", norm_stats=norm_stats),
        bias=f"{up_conv}.bias" in shapes,
        dropout=True,
    )


FAMILY = Family(
    name="unet",
    role="generator",
    recognises=recognises,
    infer=infer,
    draw=draw,
    title=lambda spec: f"unet_{2**spec.blocks}",
    default_image_size=lambda spec: (2**spec.blocks, 2**spec.blocks),
)

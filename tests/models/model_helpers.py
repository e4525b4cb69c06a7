"""What the tests of networks share: small networks of every kind, realistic random weights, plans and masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import LayerTable, Size
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec, NormKind, PaddingMode
from mggc_edge.models.unet import unet_spec

# The networks here are too small to share out: a second thread only waits, and on a busy machine for long.
torch.set_num_threads(1)

Kept = dict[str, tuple[int, ...]]

NORMS: tuple[NormKind, ...] = ("instance", "instance_affine", "batch")
PADDINGS: tuple[PaddingMode, ...] = ("reflect", "zeros")


def small_resnets(blocks: int = 3) -> list[NetworkSpec]:
    """Every kind of ResNet there is, 4 channels after the stem."""
    return [
        resnet_spec(blocks=blocks, ngf=4, norm=norm, padding=padding, dropout=dropout, separable=separable)
        for norm, padding, dropout, separable in product(NORMS, PADDINGS, (False, True), (False, True))
    ]


def small_unets(halvings: int = 6) -> list[NetworkSpec]:
    """Every kind of U-Net there is, 4 channels after the first convolution."""
    return [
        unet_spec(halvings=halvings, ngf=4, norm=norm, dropout=dropout) for norm in NORMS for dropout in (False, True)
    ]


def small_patchgans() -> list[NetworkSpec]:
    """Every kind of PatchGAN there is, 4 channels after the first convolution, on 3 and on 6 channels."""
    return [patchgan_spec(ndf=4, norm=norm, in_channels=channels) for norm in NORMS for channels in (3, 6)]


def small_networks() -> list[NetworkSpec]:
    """Every kind of network there is, small."""
    return [*small_resnets(), *small_unets(), cartoongan_spec(blocks=3, ngf=4), *small_patchgans()]


def spec_id(spec: NetworkSpec) -> str:
    """What a test with this spec is called."""
    words = [spec.family, spec.norm]
    if spec.family == "resnet":
        words += [spec.padding] + ["separable"] * spec.separable
    if spec.family == "patchgan":
        words.append(f"{spec.in_channels}channels")
    return "-".join([*words, *["dropout"] * spec.dropout])


def size_for(spec: NetworkSpec) -> Size:
    """A small picture on which the network runs; not square, so that height and width cannot be swapped unseen."""
    if spec.family == "unet":
        return (2**spec.blocks, 2 ** (spec.blocks + 1))
    return (32, 44)


def randomise(module: torch.nn.Module, seed: int = 0) -> None:
    """Fill every weight and running statistic with values as a trained network has them; no beta or mean is 0.

    Betas are smaller than gammas, so that no ReLU closes a channel on every picture: a network that computes on
    rounding noise alone tells nothing.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor, spread: float) -> Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.dtype) * spread

    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            last = key.rpartition(".")[2]
            if last == "num_batches_tracked":
                continue
            if last == "running_var":
                tensor.copy_(0.5 + normal(tensor, 0.5).abs())
            elif last == "weight" and tensor.ndim == 4:
                tensor.copy_(normal(tensor, tensor[0].numel() ** -0.5))  # 1 / sqrt(fan in), near enough
            elif last in ("weight", "scale"):  # gamma, of both signs
                values = normal(tensor, 0.5)
                tensor.copy_(torch.where(values < 0, -0.7, 0.7) + values)
            else:
                tensor.copy_(normal(tensor, 0.2))


def network_of(
    spec: NetworkSpec, *, seed: int = 0, size: Size | None = None, dtype: torch.dtype = torch.float64
) -> Network:
    """A network with random weights in evaluation mode, its table drawn at `size`."""
    network = Network(spec, layer_table(spec, size or size_for(spec)))
    randomise(network, seed)
    return network.to(dtype).eval()


def picture_for(network: Network, *, batch: int = 1, seed: int = 1) -> Tensor:
    """A picture of the size of the network's table, values between -1 and 1."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, network.spec.in_channels, *network.table.image_size)
    dtype = next(network.parameters()).dtype
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1).to(dtype)


def some_kept(spec: NetworkSpec, seed: int, *, remove_blocks: bool = True) -> Kept:
    """Random channels of every group: between one and all of them, and none in about every third residual block."""
    random = np.random.default_rng(seed)
    kept: Kept = {}
    for group, width in spec.widths:
        if width == 0 or (remove_blocks and group.endswith(".inner") and random.random() < 0.3):
            kept[group] = ()
            continue
        count = int(random.integers(1, width + 1))
        kept[group] = tuple(sorted(random.choice(width, count, replace=False).tolist()))
    return kept


def all_kept(spec: NetworkSpec) -> Kept:
    """Every channel of every group."""
    return {group: tuple(range(width)) for group, width in spec.widths}


def masks_of(
    table: LayerTable, kept: Mapping[str, Sequence[int]], dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """Per group a [C] tensor: 1 for the channels that stay, 0 for the others."""
    masks = {}
    for group in table.groups:
        masks[group.name] = torch.zeros(group.size, dtype=dtype)
        masks[group.name][list(kept[group.name])] = 1
    return masks


@torch.no_grad()
def run(module: torch.nn.Module, picture: Tensor, *arguments: object) -> Tensor:
    """The module's output, without gradients."""
    output = module(picture, *arguments)
    assert isinstance(output, Tensor)
    return output


def difference(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference of two tensors of one shape."""
    assert a.shape == b.shape
    return float((a - b).abs().max())

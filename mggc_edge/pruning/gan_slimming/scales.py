"""The scales of GAN Slimming: one factor gamma a channel, taken out of the norms so that it can be trained apart.

A norm w * n(x) + b becomes gamma * (w' * n(x) + b') with gamma = |w|, w' = w / gamma, b' = b / gamma: the same.
Rows that add to one residual sum share its scales, which begin at the root mean square of their |w|.
So gamma stands where a gate stands (`Network.forward` with masks), and where gamma is 0 the channel is an exact 0: the
paper's beta is gamma * b' here and vanishes with gamma. A plain instance norm has w' = 1 and b' = 0 at first. Channels
without a norm have gamma as a factor of their convolution's output, which can be folded into its weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from mggc_edge.models.convert import affine_instance_norm
from mggc_edge.models.layers import ChannelGroup, Layer, LayerTable
from mggc_edge.models.network import Network
from mggc_edge.pruning.magnitude import filter_norms

LEAST = 1e-3  # a scale that begins nearer to 0 begins here; its norm then has a weight below 1


def scaled_groups(table: LayerTable, sums: bool = True) -> tuple[ChannelGroup, ...]:
    """Return the groups whose channels have scales: all, or without `sums` those that are no residual sum."""
    added = {layer.output for layer in table.layers if layer.adds is not None}
    return tuple(group for group in table.groups if group.size and (sums or group.name not in added))


def with_scales(
    network: Network, original: Network | None = None, *, sums: bool = True, even: bool = True
) -> tuple[Network, dict[str, Tensor]]:
    """Return a copy whose norms are affine and have given up their scales, and the scales, [C] a group.

    With the scales as masks it computes what `network` computes. Scales of groups without a norm begin at the median of
    the others, so that one L1 norm is fair to all; their convolutions are divided by it.

    Args:
        network: what computes.
        original: the network before its batch norms were folded, in which scales still stand.
        sums: residual sums have scales too, one for what all rows add to a channel.
        even: the scales of every group begin evenly spaced from 0.5 to 1.5, in the order of their norms' weights, and
            of their filters' L1 norms where those are equal or there are none; norms and convolutions take over the
            rest. One L1 norm then asks every group for the same part of it, until gradients say otherwise.
    """
    copied = affine_instance_norm(copy.deepcopy(network))
    normed = copied if original is None else affine_instance_norm(original)
    groups = scaled_groups(copied.table, sums)
    scales: dict[str, Tensor] = {}
    for group in groups:
        norms = [row for row in _writers(normed.table, group) if row.norm is not None and row.norm_kind != "none"]
        if norms:
            weights = [normed.get_submodule(str(row.norm)).get_parameter(row.norm_parameters[0]) for row in norms]
            sizes = torch.stack([weight.detach() for weight in weights]).square().mean(dim=0).sqrt()
            scales[group.name] = sizes.clamp_min(LEAST).clone()
    usual = torch.cat(list(scales.values())).median().item() if scales else 1.0
    for group in groups:
        if group.name not in scales:
            like = copied.get_submodule(group.writers[0]).get_parameter("weight")
            scales[group.name] = torch.full((group.size,), usual).to(like)
    if even:
        scales = {group.name: _spaced(scales[group.name], normed, group) for group in groups}
    _multiply(copied, {name: 1 / scale for name, scale in scales.items()})
    return copied, {group.name: scales[group.name] for group in groups}


def _spaced(sizes: Tensor, network: Network, group: ChannelGroup) -> Tensor:
    """Return evenly spaced scales in the order of `sizes`, then of the filters' norms, with a mean of 1: [C]."""
    filters = filter_norms(network, group.name, group.size)
    order = sorted(range(group.size), key=lambda channel: (sizes[channel].item(), filters[channel]))
    spaced = torch.empty_like(sizes)
    spaced[order] = 0.5 + (torch.arange(group.size).to(sizes) + 0.5) / group.size
    return spaced


def fold_scales(network: Network, scales: Mapping[str, Tensor]) -> Network:
    """Return a network that computes without masks what `network` computes with `scales` as masks."""
    folded = copy.deepcopy(network)
    _multiply(folded, scales)
    return folded


@torch.no_grad()
def _multiply(network: Network, factors: Mapping[str, Tensor]) -> None:
    """Multiply what every row of a group gives, in its norm or else in its convolution or constant, in place."""
    for layer in network.table.layers:
        factor = factors.get(layer.output)
        if factor is None:
            continue
        if layer.op == "constant":
            network.get_submodule(layer.name).get_parameter("constant").mul_(factor)
            continue
        if layer.norm is not None:
            norm = network.get_submodule(layer.norm)
            for name in layer.norm_parameters:
                norm.get_parameter(name).mul_(factor)
            continue
        conv = network.get_submodule(layer.name)
        # Conv weight: [out, in, kH, kW]; ConvTranspose: [in, out, kH, kW].
        shape = (1, -1, 1, 1) if layer.op == "conv_transpose" else (-1, 1, 1, 1)
        conv.get_parameter("weight").mul_(factor.view(shape))
        if layer.bias:
            conv.get_parameter("bias").mul_(factor)


def _writers(table: LayerTable, group: ChannelGroup) -> list[Layer]:
    return [layer for layer in table.layers if layer.output == group.name]


@torch.no_grad()
def give_back(scale: Tensor, first: Tensor) -> None:
    """Give open channels, in place, the size that they had at `first`, where proximal steps have left less of it."""
    grown = scale.sign() * torch.maximum(scale.abs(), first)
    scale.copy_(torch.where(scale != 0, grown, scale))


@torch.no_grad()
def shrink(scale: Tensor, amount: float, minimum: int) -> bool:
    """Do the proximal step of `amount` * |gamma| in place: gamma <- sign(gamma) * max(|gamma| - amount, 0).

    Of a group that must keep channels, `minimum` of the largest keep what they had where all would be 0.

    Returns:
        Whether channels were kept in that way.
    """
    before = scale.clone()
    scale.copy_(before.sign() * (before.abs() - amount).clamp_min(0))
    if int((scale != 0).sum()) >= minimum:
        return False
    spared = before.abs().topk(minimum).indices
    scale[spared] = before[spared]
    return True

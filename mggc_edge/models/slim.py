"""slim: cut channels out of a network, exactly. What is left computes what the masked network computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from mggc_edge.errors import PlanError
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import Layer, LayerTable
from mggc_edge.models.network import NORM_EPSILON, Network
from mggc_edge.models.spec import NetworkSpec

Kept = Mapping[str, Sequence[int]]


def slim_spec(spec: NetworkSpec, kept: Kept) -> NetworkSpec:
    """Return the spec of the network that is left when only the channels `kept` stay in each group.

    Raises:
        PlanError: a group is missing or unknown, an index is out of range, repeated or out of order, or a group that
            cannot vanish is empty.
    """
    groups = layer_table(spec).groups
    names = {group.name for group in groups}
    if set(kept) != names:
        odd = sorted(set(kept) ^ names)
        raise PlanError(f"the plan and the network do not have the same channel groups: {', '.join(odd[:5])}")
    for group in groups:
        indices = kept[group.name]
        if any(b <= a for a, b in pairwise(indices)) or any(
            not 0 <= index < group.size for index in (*indices[:1], *indices[-1:])
        ):
            raise PlanError(f"group '{group.name}' must keep rising channel numbers between 0 and {group.size - 1}")
        if len(indices) < group.minimum and group.size > 0:
            raise PlanError(f"group '{group.name}' must keep at least {group.minimum} channel")
    return spec.with_widths({name: len(indices) for name, indices in kept.items()})


def slim(network: Network, kept: Kept) -> Network:
    """Return a new, physically smaller network with the channels `kept`, per group rising channel numbers.

    In evaluation mode it equals the network with the other channels closed by their gates (`Network.forward` with
    masks) up to rounding. A residual block without inner channels is removed; for norms with parameters the constant
    that its branch gave is kept.

    Raises:
        PlanError: see `slim_spec`.
    """
    spec = slim_spec(network.spec, kept)
    slender = Network(spec, layer_table(spec, network.table.image_size))
    reference = next(network.parameters())
    slender.to(device=reference.device, dtype=reference.dtype)
    source = {layer.name: layer for layer in network.table.layers}
    state = dict(network.state_dict())
    target: dict[str, Tensor] = {}
    for layer in slender.table.layers:
        if layer.name in source:
            target.update(_sliced(network.table, source[layer.name], state, kept))
        else:
            target[f"{layer.name}.constant"] = _branch_constant(network.table, layer, state)[_index(kept, layer.output)]
    slender.load_state_dict(target, strict=False)  # num_batches_tracked starts anew
    missing = set(slender.table.tensors) - set(target)
    assert not missing, missing
    return slender.train(network.training)


def _index(kept: Kept, group: str) -> Tensor:
    return torch.tensor(list(kept[group]), dtype=torch.long)


def _sliced(table: LayerTable, layer: Layer, state: Mapping[str, Tensor], kept: Kept) -> dict[str, Tensor]:
    """Return the tensors of one row with the removed channels cut out of every axis that carries a group."""
    outputs = _index(kept, layer.output) if layer.output in kept else torch.arange(layer.out_channels)
    if layer.op == "constant":
        return {f"{layer.name}.constant": state[f"{layer.name}.constant"][outputs]}
    weight = state[f"{layer.name}.weight"]
    out_axis, in_axis = (1, 0) if layer.op == "conv_transpose" else (0, 1)
    weight = weight.index_select(out_axis, outputs)
    if layer.op != "depthwise_conv":
        weight = weight.index_select(in_axis, _inputs(table, layer, kept))
    tensors = {f"{layer.name}.weight": weight}
    per_channel = [f"{layer.name}.bias"] if layer.bias else []
    if layer.norm is not None:
        per_channel += [f"{layer.norm}.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    tensors.update({key: state[key][outputs] for key in per_channel if key in table.tensors})
    return tensors


def _inputs(table: LayerTable, layer: Layer, kept: Kept) -> Tensor:
    """Channel numbers to keep on the input axis: those of each group it reads, shifted by the groups before it."""
    parts, offset = [], 0
    for group in layer.inputs:
        width = table.spec.width(group)
        parts.append(offset + (_index(kept, group) if group in kept else torch.arange(width)))
        offset += width
    return torch.cat(parts)


def _branch_constant(table: LayerTable, removed: Layer, state: Mapping[str, Tensor]) -> Tensor:
    """Return what the branch of a removed residual block gives when all its inner channels are zero: norm(bias)."""
    last = next(
        layer
        for layer in table.layers
        if layer.name.startswith(f"{removed.name}.") and layer.adds is not None and layer.output == removed.output
    )
    weight = state[f"{last.name}.weight"]
    value = state[f"{last.name}.bias"] if last.bias else weight.new_zeros(last.out_channels)
    if last.norm is None:
        return value
    scale, shift = state[f"{last.norm}.weight"], state[f"{last.norm}.bias"]
    if last.norm_kind == "instance_affine":
        return shift  # the norm takes the constant away
    mean, variance = state[f"{last.norm}.running_mean"], state[f"{last.norm}.running_var"]
    return (value - mean) * scale / torch.sqrt(variance + NORM_EPSILON) + shift

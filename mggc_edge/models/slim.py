"""slim: cut channels out of a network, exactly. What is left computes what the masked network computes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import INPUT_GRID, Layer, LayerTable
from mggc_edge.models.network import Network, norm_scale_shift
from mggc_edge.models.selection import Kept, slim_spec


def slim(network: Network, kept: Kept) -> Network:
    """Return a new, physically smaller network with the channels `kept`, per group rising channel numbers.

    In evaluation mode it equals the network with the other channels closed by their gates (`Network.forward` with
    masks) up to rounding. A residual block without inner channels is removed; for norms with parameters the constant
    that its branch gave is kept.

    Raises:
        PlanError: see `slim_spec`.
    """
    spec = slim_spec(network.spec, kept)
    table = layer_table(spec, network.table.image_size)
    source = {layer.name: layer for layer in network.table.layers}
    state = dict(network.state_dict())
    target: dict[str, Tensor] = {}
    for layer in table.layers:
        if layer.name in source:
            target.update(_sliced(network.table, source[layer.name], state, kept))
        else:
            constant = _branch_constant(network.table, layer, state)
            target[f"{layer.name}.constant"] = constant[_index(kept, layer.output, constant)]
    return Network.from_tensors(spec, table, target).train(network.training)


def _index(kept: Kept, group: str, beside: Tensor) -> Tensor:
    return torch.tensor(list(kept[group]), dtype=torch.long, device=beside.device)


def _sliced(table: LayerTable, layer: Layer, state: Mapping[str, Tensor], kept: Kept) -> dict[str, Tensor]:
    """Return the tensors of one row with the removed channels cut out of every axis that carries a group."""
    if layer.op == "constant":
        constant = state[f"{layer.name}.constant"]
        return {f"{layer.name}.constant": constant[_index(kept, layer.output, constant)]}
    weight = state[f"{layer.name}.weight"]
    every = torch.arange(layer.out_channels, device=weight.device)
    outputs = _index(kept, layer.output, weight) if layer.output in kept else every
    out_axis, in_axis = (1, 0) if layer.op == "conv_transpose" else (0, 1)
    sliced = weight.index_select(out_axis, outputs)
    if layer.op != "depthwise_conv":
        sliced = sliced.index_select(in_axis, _inputs(table, layer, kept, weight))
    tensors = {f"{layer.name}.weight": sliced}
    if layer.quantized_input:  # one grid for all channels; that of the weight follows what is left of it
        tensors.update({f"{layer.name}.{name}": state[f"{layer.name}.{name}"] for name in INPUT_GRID})
    per_channel = [f"{layer.name}.bias"] if layer.bias else []
    if layer.norm is not None:
        per_channel += [f"{layer.norm}.{name}" for name in (*layer.norm_parameters, "running_mean", "running_var")]
    tensors.update({key: state[key][outputs] for key in per_channel if key in table.tensors})
    return tensors


def _inputs(table: LayerTable, layer: Layer, kept: Kept, beside: Tensor) -> Tensor:
    """Channel numbers to keep on the input axis: those of each group it reads, shifted by the groups before it."""
    parts, offset = [], 0
    for group in layer.inputs:
        width = table.spec.width(group)
        whole = torch.arange(width, device=beside.device)
        parts.append(offset + (_index(kept, group, beside) if group in kept else whole))
        offset += width
    return torch.cat(parts)


def _branch_constant(table: LayerTable, removed: Layer, state: Mapping[str, Tensor]) -> Tensor:
    """Return what the branch of a removed residual block gives when all its inner channels are zero: norm(bias)."""
    last = next(
        layer
        for layer in table.layers
        if layer.name.startswith((f"{removed.name}.", f"{removed.name}_"))
        and layer.adds is not None
        and layer.output == removed.output
    )
    weight = state[f"{last.name}.weight"]
    value = state[f"{last.name}.bias"] if last.bias else weight.new_zeros(last.out_channels)
    if last.norm is None:
        return value
    if last.norm_kind == "instance_affine":
        return state[f"{last.norm}.{last.norm_parameters[1]}"]  # the norm takes the constant away
    scale, shift = norm_scale_shift(state, last.norm, last.epsilon)
    return (value.double() * scale + shift).to(value.dtype)

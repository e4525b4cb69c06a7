"""Take out the channels whose norm has the scale 0, as in checkpoints of GAN Slimming (Wang et al., ECCV 2020).

Where gamma = 0 a norm gives beta at every position, and the rows that read the channel see a constant c = act(beta).
A convolution makes of it

    b' = b + sum over the closed channels i and the kernel of W[:, i] * c_i

at every position at which its whole kernel lies inside the picture: everywhere, where it pads by reflection. With zeros
around the picture the border differs, and of a transposed convolution with stride s the s^2 places of a period do;
there b' has the mean, sum W * c / s^2. What that costs has to be measured (`pipeline.export_folder`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mggc_edge.errors import PlanError, SpecError
from mggc_edge.models.layers import Layer
from mggc_edge.models.network import Network, activate
from mggc_edge.models.selection import Kept


@dataclass(frozen=True)
class Dropped:
    """A network whose channels with a scale of 0 give 0, so that `slim` with `kept` takes them out exactly.

    Attributes:
        kept: per group, the channels whose scale is not 0.
        inexact: the rows at whose input a constant was folded that they do not see everywhere.
    """

    network: Network
    kept: Kept
    inexact: tuple[str, ...]


def drop_zero_scales(network: Network) -> Dropped:
    """Return the network with the constants of channels whose scale is 0 folded into what reads them.

    A group that several rows write, such as the trunk, is left as it is, and so is one without a norm. In a group that
    must keep a channel the first one stays, with its constant.

    Raises:
        PlanError: no channel's scale is 0, or only those of groups that are left as they are.
        SpecError: a constant is read by a layer that it cannot be folded into: a depthwise convolution, or one that has
            neither a bias nor a norm.
    """
    table = network.table
    state = {key: value.clone() for key, value in network.state_dict().items()}
    kept: dict[str, tuple[int, ...]] = {}
    constants: dict[str, Tensor] = {}  # by the row that gives them: [C], 0 where the channel stays
    left: list[str] = []  # groups with closed channels that stay
    for group in table.groups:
        kept[group.name] = tuple(range(group.size))
        rows = [layer for layer in table.layers if layer.output == group.name]
        row = rows[0] if rows else None
        if row is None or row.norm is None or row.norm_kind == "instance":
            continue
        scale, shift = (state[f"{row.norm}.{name}"] for name in row.norm_parameters)
        closed = scale == 0
        if len(rows) > 1:
            _check_written_once(rows, closed)
            left += [group.name] if bool(closed.any()) else []
            continue
        if bool(closed.all()) and group.minimum:
            closed[: group.minimum] = False
        if not bool(closed.any()):
            continue
        kept[group.name] = tuple(torch.nonzero(~closed)[:, 0].tolist())
        constants[row.name] = torch.where(closed, activate(shift, row.activation), 0.0)
        shift[closed] = 0
    if not constants and left:
        raise PlanError(
            f"the channels with the scale 0 are those of {', '.join(left)}, which several layers write, and they stay",
            hint="leave --drop-zero-scales out",
        )
    if not constants:
        raise PlanError(
            "no channel of this network has a norm with the scale 0",
            hint="--drop-zero-scales is for checkpoints of GAN Slimming; give a --plan, or leave it out",
        )
    inexact = [
        layer.name
        for layer in table.layers
        if not constants.keys().isdisjoint(layer.reads) and not _fold(layer, constants, network, state)
    ]
    folded = Network.from_tensors(network.spec, table, {key: state[key] for key in table.tensors})
    return Dropped(folded.train(network.training), kept, tuple(inexact))


def _check_written_once(rows: Sequence[Layer], closed: Tensor) -> None:
    """Raise SpecError where a depthwise convolution, which writes the group that it reads, gets a constant."""
    deep = next((layer.name for layer in rows if layer.op == "depthwise_conv"), None)
    if deep is not None and all(layer.adds is None for layer in rows) and bool(closed.any()):
        raise SpecError(
            f"'{deep}' is a depthwise convolution, into which constants of channels with the scale 0 cannot be folded",
            hint="export the network as it is, without --drop-zero-scales",
        )


def _fold(layer: Layer, constants: Mapping[str, Tensor], network: Network, state: Mapping[str, Tensor]) -> bool:
    """Fold into one row what it reads, changing `state` in place; return whether that is exact."""
    parts = []
    for source in layer.reads:
        row = next(other for other in network.table.layers if other.name == source)
        seen = constants.get(source, state[f"{layer.name}.weight"].new_zeros(row.out_channels))
        parts.append(activate(seen, layer.pre_activation))
    c = torch.cat(parts).double()
    if not bool(c.any()):
        return True
    weight = state[f"{layer.name}.weight"].double()
    transposed = layer.op == "conv_transpose"  # [in, out, kH, kW]
    change = torch.einsum("iohw,i->o" if transposed else "oihw,i->o", weight, c)
    change = change / layer.stride**2 if transposed else change
    exact = layer.padding_mode == "reflect" or (not transposed and layer.padding == 0)
    if layer.bias:
        state[f"{layer.name}.bias"].copy_(state[f"{layer.name}.bias"].double() + change)
    elif layer.norm_kind == "batch":  # whose mean was taken with the constant
        mean = state[f"{layer.norm}.running_mean"]
        mean.copy_(mean.double() - change)
    elif layer.norm is None:
        raise SpecError(
            f"'{layer.name}' has neither a bias nor a norm, and constants of channels with the scale 0 cannot be "
            "folded into it",
            hint="export the network as it is, without --drop-zero-scales",
        )  # an instance norm takes any constant away
    return exact

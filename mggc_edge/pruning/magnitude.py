"""Norm pruning: the channels whose filters weigh least go first. The field's baseline."""

from __future__ import annotations

import torch
from torch import Tensor

from mggc_edge.models.cost import MacsConvention
from mggc_edge.models.network import Network
from mggc_edge.pruning.align import meet_aligned_budget
from mggc_edge.pruning.plan import PruningPlan


def magnitude_plan(
    network: Network,
    budget: float,
    *,
    seed: int = 0,
    convention: MacsConvention = "true",
    source_sha256: str | None = None,
    align: int = 1,
) -> PruningPlan:
    """Return a plan that keeps the channels with the largest filter L1 norms, under one threshold for all groups.

    A group that several convolutions write has the mean of their norms, as in GCC (NeurIPS 2021). Arguments and what
    is raised: as in `random_plan`; the seed is only kept.
    """
    table = network.table
    scores = {group.name: tuple(filter_norms(network, group.name, group.size)) for group in table.groups}
    kept = meet_aligned_budget(table, scores, budget, align, convention)
    return PruningPlan.of_choice(
        table,
        kept,
        scores,
        criterion="magnitude",
        seed=seed,
        budget=budget,
        convention=convention,
        source_sha256=source_sha256,
        align=align,
    )


def filter_norms(network: Network, group: str, size: int) -> list[float]:
    """Return the L1 norm of every filter that writes a channel of the group, [size]; several writers: their mean."""
    norms: list[Tensor] = []
    for layer in network.table.layers:
        if layer.output != group or layer.op == "constant":
            continue
        weight = network.get_submodule(layer.name).get_parameter("weight").detach().double()
        # Conv weight: [out, in, kH, kW]; ConvTranspose: [in, out, kH, kW].
        axes = (0, 2, 3) if layer.op == "conv_transpose" else (1, 2, 3)
        norms.append(weight.abs().sum(axes))
    values: list[float] = torch.stack(norms).mean(0).tolist() if norms else [0.0] * size
    return values

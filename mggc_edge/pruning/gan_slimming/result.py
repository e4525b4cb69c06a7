"""What GAN Slimming ends in: a plan within the budget, and the slim network with the weights that were trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mggc_edge.models.cost import MacsConvention
from mggc_edge.models.network import Network
from mggc_edge.models.slim import slim
from mggc_edge.pruning.align import meet_aligned_budget
from mggc_edge.pruning.gan_slimming.scales import fold_scales
from mggc_edge.pruning.gan_slimming.stage import GanSlimming
from mggc_edge.pruning.magnitude import filter_norms
from mggc_edge.pruning.plan import PruningPlan


@dataclass(frozen=True)
class Slimmed:
    """A plan and its network, and what the repair of the budget did to the channels that the scales had left open.

    Attributes:
        plan: for the original. network: slim, with the trained weights, in evaluation mode, on the CPU.
        opened, closed: how many channels the repair opened and closed.
        fraction: of the MACs, what the scales had left open.
        in_first_order: of the channels with scales that stay, the part that would also stay at these widths if the
            scales had kept the order in which they began: 1 where training moved none of them past another.
    """

    plan: PruningPlan
    network: Network
    opened: int
    closed: int
    fraction: float
    in_first_order: float


def slimmed(
    generator: Network,
    stage: GanSlimming,
    *,
    budget: float,
    seed: int,
    convention: MacsConvention,
    source_sha256: str | None,
    align: int = 1,
) -> Slimmed:
    """Return what a finished stage ends in.

    A score is |gamma|; of a closed channel a negative number, higher the later it was closed; the channels of residual
    sums, which have no scales, score above all others, by the L1 norms of the original's filters.

    `align`: the multiple that widths are rounded to; what fills them up are channels that had been closed last.

    Raises:
        PlanError: no choice within the budget's tolerance was found.
    """
    scales = {name: scale.detach().cpu() for name, scale in stage.scales.items()}
    table = generator.table
    scores = channel_scores(generator, scales, stage.since, stage.steps)
    kept = meet_aligned_budget(table, scores, budget, align, convention)
    plan = PruningPlan.of_choice(
        table,
        kept,
        scores,
        criterion="gan-slimming",
        seed=seed,
        budget=budget,
        convention=convention,
        source_sha256=source_sha256,
        align=align,
    )
    opened = closed = 0
    ready = {}
    for name, scale in scales.items():
        stays = torch.zeros(len(scale), dtype=torch.bool)
        stays[list(kept[name])] = True
        is_open = scale != 0
        opened += int((stays & ~is_open).sum())
        closed += int((is_open & ~stays).sum())
        ready[name] = torch.where(stays, _awake(scale, scales), 0.0)
    network = slim(fold_scales(stage.student.cpu(), ready), kept).eval()
    return Slimmed(
        plan, network, opened, closed, stage.steering.fraction(scales), in_first_order(stage.first_scales, kept)
    )


def in_first_order(first: Mapping[str, Tensor], kept: Mapping[str, Sequence[int]]) -> float:
    """Return which part of the channels that stay are the largest of their group by `first` as well."""
    same = total = 0
    for name, scale in first.items():
        largest = scale.abs().argsort(descending=True, stable=True)[: len(kept[name])]
        same += len(set(largest.tolist()) & set(kept[name]))
        total += len(kept[name])
    return same / total if total else 1.0


def channel_scores(
    generator: Network, scales: Mapping[str, Tensor], since: Mapping[str, Tensor], steps: int
) -> dict[str, tuple[float, ...]]:
    """Return one number a channel, see `slimmed`."""
    most = max((float(scale.abs().max()) for scale in scales.values()), default=0.0)
    scores = {}
    for group in generator.table.groups:
        if group.name in scales:
            scale, closed_at = scales[group.name], since[group.name].cpu()
            values = torch.where(scale != 0, scale.abs(), (closed_at - steps) / steps)
            scores[group.name] = tuple(values.tolist())
        else:
            norms = filter_norms(generator, group.name, group.size)
            scores[group.name] = tuple(1 + most + norm / (max(norms) or 1.0) for norm in norms)
    return scores


def _awake(scale: Tensor, scales: Mapping[str, Tensor]) -> Tensor:
    """Return scales without zeros, so that a channel that the repair opened learns: the smallest one of its group."""
    sizes = scale.abs()[scale != 0]
    if not len(sizes):  # a block that had been closed as a whole
        sizes = torch.cat([other.abs()[other != 0] for other in scales.values()])
    return torch.where(scale != 0, scale, sizes.min() if len(sizes) else 1.0)

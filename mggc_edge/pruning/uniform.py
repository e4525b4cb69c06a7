"""Uniform width: every channel group is scaled by the same factor. The "0.5x" lines of the literature's tables."""

from __future__ import annotations

from mggc_edge.models.cost import MacsConvention
from mggc_edge.models.network import Network
from mggc_edge.pruning.align import meet_aligned_budget
from mggc_edge.pruning.budget import by_rank
from mggc_edge.pruning.magnitude import filter_norms
from mggc_edge.pruning.plan import PruningPlan


def uniform_plan(
    network: Network,
    budget: float,
    *,
    seed: int = 0,
    convention: MacsConvention = "true",
    source_sha256: str | None = None,
    align: int = 1,
) -> PruningPlan:
    """Return a plan that keeps round(s * C) channels of every group of C, those with the largest filter L1 norms.

    The factor s is the largest that the budget allows; single channels, in the order in which a growing s would add
    them, then fill it. Every group keeps a channel for as long as the budget allows that. A score says at which s its
    channel begins to stay: 1 - s. Arguments and what is raised: as in `random_plan`; the seed is only kept.
    """
    table = network.table
    scores = {group.name: by_rank(filter_norms(network, group.name, group.size)) for group in table.groups}
    kept = meet_aligned_budget(table, scores, budget, align, convention)
    return PruningPlan.of_choice(
        table,
        kept,
        scores,
        criterion="uniform",
        seed=seed,
        budget=budget,
        convention=convention,
        source_sha256=source_sha256,
        align=align,
    )

"""Random channels: the baseline that every method must beat."""

from __future__ import annotations

import numpy as np

from mggc_edge.models.cost import MacsConvention, macs
from mggc_edge.models.layers import LayerTable
from mggc_edge.pruning.budget import kept_macs, meet_budget
from mggc_edge.pruning.plan import PruningPlan


def random_plan(
    table: LayerTable,
    budget: float,
    *,
    seed: int = 0,
    convention: MacsConvention = "true",
    source_sha256: str | None = None,
) -> PruningPlan:
    """Return a plan that keeps channels by independent uniform scores, within 2 % under `budget`.

    Args:
        table: the layer table of the original network; its picture size is the one MACs are counted at.
        budget: fraction of the original's MACs, in (0, 1].
        seed: the same seed gives the same plan.
        convention: which MACs.
        source_sha256: hash of the original's weights, kept in the plan.

    Raises:
        PlanError: the budget cannot be met.
    """
    generator = np.random.default_rng(seed)
    scores = {group.name: tuple(generator.random(group.size).tolist()) for group in table.groups}
    kept = meet_budget(table, scores, budget, convention)
    return PruningPlan(
        spec=table.spec,
        kept=kept,
        scores=scores,
        criterion="random",
        seed=seed,
        budget=budget,
        budget_met=kept_macs(table, kept, convention) / macs(table, convention),
        convention=convention,
        image_size=table.image_size,
        source_sha256=source_sha256,
    )

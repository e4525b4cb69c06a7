"""Random channels: the baseline that every method must beat."""

from __future__ import annotations

import numpy as np

from mggc_edge.models.cost import MacsConvention
from mggc_edge.models.layers import LayerTable
from mggc_edge.pruning.align import meet_aligned_budget
from mggc_edge.pruning.plan import PruningPlan


def random_plan(
    table: LayerTable,
    budget: float,
    *,
    seed: int = 0,
    convention: MacsConvention = "true",
    source_sha256: str | None = None,
    align: int = 1,
) -> PruningPlan:
    """Return a plan that keeps channels by independent uniform scores, within 2 % under `budget`.

    Args:
        table: the layer table of the original network; its picture size is the one MACs are counted at.
        budget: fraction of the original's MACs, in (0, 1].
        seed: the same seed gives the same plan.
        convention: which MACs.
        source_sha256: hash of the original's weights, kept in the plan.
        align: multiple that widths are rounded to, see `mggc_edge.pruning.align`.

    Raises:
        PlanError: the budget cannot be met.
    """
    generator = np.random.default_rng(seed)
    scores = {group.name: tuple(generator.random(group.size).tolist()) for group in table.groups}
    kept = meet_aligned_budget(table, scores, budget, align, convention)
    return PruningPlan.of_choice(
        table,
        kept,
        scores,
        criterion="random",
        seed=seed,
        budget=budget,
        convention=convention,
        source_sha256=source_sha256,
        align=align,
    )

"""Meet a budget from below: turn a score per channel into a plan whose cost is within 2 % under what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mggc_edge.errors import PlanError
from mggc_edge.models.cost import MacsConvention, macs
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import LayerTable

TOLERANCE = 0.02

Scores = Mapping[str, Sequence[float]]
Kept = dict[str, tuple[int, ...]]


def kept_macs(table: LayerTable, kept: Mapping[str, Sequence[int]], convention: MacsConvention) -> int:
    """Return the MACs of the slim network that a choice of channels leaves, from its own layer table."""
    spec = table.spec.with_widths({group: len(indices) for group, indices in kept.items()})
    return macs(layer_table(spec, table.image_size), convention)


def meet_budget(table: LayerTable, scores: Scores, budget: float, convention: MacsConvention = "true") -> Kept:
    """Keep the best-scored channels of the whole network that the budget allows.

    One threshold over all groups is found by bisection; what is then left of the budget is filled with the best of
    the remaining channels that still fit, so that the result lies in [0.98, 1] of the budget. Every group keeps its
    best channels up to its minimum, whatever their score.

    Args:
        table: the layer table of the original network.
        scores: per group, one finite number for each channel; higher stays.
        budget: fraction of the original's MACs, in (0, 1].
        convention: which MACs.

    Returns:
        Per group, rising channel numbers.

    Raises:
        PlanError: the scores do not fit the network, or no choice of channels lies within the budget's tolerance.
    """
    if not 0 < budget <= 1:
        raise PlanError(f"a budget is a fraction above 0 and up to 1, not {budget:g}")
    for group in table.groups:
        given = len(scores.get(group.name, ()))
        if given != group.size:
            raise PlanError(f"group '{group.name}' has {group.size} channels, but {given} scores")
    total = macs(table, convention)
    limit = budget * total
    minimum = _minimum(table, scores)
    rest = sorted(
        ((score, group.name, index) for group in table.groups for index, score in enumerate(scores[group.name])
         if index not in minimum[group.name]),
        key=lambda entry: (-entry[0], entry[1], entry[2]),
    )  # fmt: skip

    def cost(kept: Mapping[str, Sequence[int] | set[int]]) -> int:
        return kept_macs(table, {group: sorted(indices) for group, indices in kept.items()}, convention)

    def best(count: int) -> dict[str, set[int]]:
        kept = {name: set(indices) for name, indices in minimum.items()}
        for _, name, index in rest[:count]:
            kept[name].add(index)
        return kept

    if cost(minimum) > limit:
        floor = cost(minimum) / total
        raise PlanError(
            f"a budget of {budget:g} cannot be met: one channel in every group already keeps {floor:.2g} of the MACs",
            hint=f"ask for more than {floor:.2g}",
        )
    low, high = 0, len(rest)  # best(low) fits; MACs rise with the count
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(best(middle)) <= limit else (low, middle - 1)
    kept, spent = best(low), cost(best(low))
    for _, name, index in rest[low:]:
        if spent >= (1 - TOLERANCE) * limit:
            break
        kept[name].add(index)
        if (tried := cost(kept)) <= limit:
            spent = tried
        else:
            kept[name].remove(index)
    if spent < (1 - TOLERANCE) * limit:
        raise PlanError(
            f"a budget of {budget:g} cannot be met within {TOLERANCE:.0%}: the nearest below is {spent / total:.4g}",
            hint="this network has too few channels for so fine a budget; ask for another one",
        )
    return {name: tuple(sorted(indices)) for name, indices in kept.items()}


def _minimum(table: LayerTable, scores: Scores) -> dict[str, set[int]]:
    """Return the best channels of every group, as many as it must keep."""
    minimum = {}
    for group in table.groups:
        ranked = sorted(enumerate(scores[group.name]), key=lambda entry: -entry[1])
        minimum[group.name] = {index for index, _ in ranked[: group.minimum]}
    return minimum

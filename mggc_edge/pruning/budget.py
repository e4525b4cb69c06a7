"""Meet a budget from below: turn a score per channel into a plan whose cost is within 2 % under what was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Set

from mggc_edge.errors import PlanError
from mggc_edge.models.cost import MacsConvention, macs
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import LayerTable

TOLERANCE = 0.02
MAX_EXCHANGES = 64

Scores = Mapping[str, Sequence[float]]
Kept = dict[str, tuple[int, ...]]
_Sets = dict[str, set[int]]
_Ranked = tuple[float, str, int]  # score, group, channel
_Cost = Callable[[Mapping[str, Set[int]]], int]


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
        PlanError: the scores do not fit the network, or no choice within the budget's tolerance was found.
    """
    if not 0 < budget <= 1:
        raise PlanError(f"a budget is a fraction above 0 and up to 1, not {budget:g}")
    for group in table.groups:
        given = len(scores.get(group.name, ()))
        if given != group.size:
            raise PlanError(f"group '{group.name}' has {group.size} channels, but {given} scores")
        if not all(map(math.isfinite, scores[group.name] if group.size else ())):
            raise PlanError(f"group '{group.name}' has a score that is not a finite number")
    total = macs(table, convention)
    limit = budget * total
    minimum = _minimum(table, scores)
    rest = sorted(
        ((score, group.name, index) for group in table.groups for index, score in enumerate(scores[group.name])
         if index not in minimum[group.name]),
        key=lambda entry: (-entry[0], entry[1], entry[2]),
    )  # fmt: skip

    def cost(kept: Mapping[str, Set[int]]) -> int:
        return kept_macs(table, {group: sorted(indices) for group, indices in kept.items()}, convention)

    def best(count: int) -> _Sets:
        kept = {name: set(indices) for name, indices in minimum.items()}
        for _, name, index in rest[:count]:
            kept[name].add(index)
        return kept

    if cost(minimum) > limit:
        least = cost(minimum) / total
        raise PlanError(
            f"a budget of {budget:g} cannot be met: one channel in every group already keeps {least:.2g} of the MACs",
            hint=f"ask for more than {least:.2g}",
        )
    low, high = 0, len(rest)  # best(low) fits; MACs rise with the count
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(best(middle)) <= limit else (low, middle - 1)
    kept = best(low)
    floor = (1 - TOLERANCE) * limit
    spent = _fill(kept, rest[low:], cost, floor, limit)
    if spent < floor:
        spent = _exchange(kept, rest, low, cost, floor, limit)
    if spent < floor:
        raise PlanError(
            f"no plan within {TOLERANCE:.0%} of the budget {budget:g} was found; the nearest keeps {spent / total:.4g}",
            hint="this network has too few channels for so fine a budget; ask for another one",
        )
    return {name: tuple(sorted(indices)) for name, indices in kept.items()}


def _fill(kept: _Sets, rest: Sequence[_Ranked], cost: _Cost, floor: float, limit: float) -> int:
    """Add the best of the remaining channels that still fit, until `floor` is reached; return the cost."""
    spent = cost(kept)
    for _, name, index in rest:
        if spent >= floor:
            break
        kept[name].add(index)
        if (tried := cost(kept)) <= limit:
            spent = tried
        else:
            kept[name].remove(index)
    return spent


def _exchange(kept: _Sets, rest: Sequence[_Ranked], low: int, cost: _Cost, floor: float, limit: float) -> int:
    """Add one channel that does not fit, and make room for it with the lowest-scored others; return the cost.

    Needed where every channel that is left costs more than the tolerance: a trunk channel of a narrow network.
    """
    for _, name, index in rest[low : low + MAX_EXCHANGES]:
        tried = {group: set(indices) for group, indices in kept.items()}
        tried[name].add(index)
        spent = cost(tried)
        for _, other, drop in reversed(rest[:low]):
            if spent <= limit:
                break
            tried[other].remove(drop)
            if (less := cost(tried)) >= floor:
                spent = less
            else:  # too much: something cheaper must go
                tried[other].add(drop)
        if floor <= spent <= limit:
            kept.update(tried)
            break
    return cost(kept)


def _minimum(table: LayerTable, scores: Scores) -> _Sets:
    """Return the best channels of every group, as many as it must keep."""
    minimum = {}
    for group in table.groups:
        ranked = sorted(enumerate(scores[group.name]), key=lambda entry: -entry[1])
        minimum[group.name] = {index for index, _ in ranked[: group.minimum]}
    return minimum

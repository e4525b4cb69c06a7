"""Widths on a grid: the channels of a plan rounded to a multiple that the target runs at full speed.

A vector with one channel in it takes as long as a full one. So a group of C channels has one of the widths

    a, 2a, 3a, ..., C        and 0, where the group may vanish

for a multiple a. What the scores leave of a group is rounded up: a step from one width to the next has the score of the
best channel that it adds, and stays if that one does. One threshold over the steps of all groups is then bisected until
the budget is met from below, by the search of `mggc_edge.pruning.budget`, whose channels are steps here. A group that
is smaller than the multiple fills no vector as it is, and stays whole.

Steps are coarse, and that search may end more than 2 % under the budget. Then every choice is tried that is one step
away from it, then two, three, ..., until one is within 2 %, MAX_TRIED at most. A grid of no more choices is searched as
a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mggc_edge.errors import PlanError
from mggc_edge.models.cost import MacsConvention, layer_macs, macs
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import ChannelGroup, LayerTable
from mggc_edge.models.spec import MAX_WIDTH
from mggc_edge.pruning.budget import TOLERANCE, Kept, Scores, Search, check_budget, meet_budget, rank

MAX_TRIED = 20_000

_Steps = tuple[int, ...]  # of every group, how many steps it is above its smallest width


def check_multiple(multiple: int) -> None:
    """Raise PlanError unless widths can be rounded to multiples of this number; 1 leaves them as they are."""
    if type(multiple) is not int or not 1 <= multiple <= MAX_WIDTH:
        raise PlanError(f"widths are rounded to multiples of a whole number from 1 to {MAX_WIDTH}, not of {multiple!r}")


def grid(group: ChannelGroup, multiple: int) -> tuple[int, ...]:
    """Return the widths that a group may have, rising: see the formula above."""
    least = min(group.minimum, group.size)
    return tuple(sorted(width for width in {*range(0, group.size, multiple), group.size} if width >= least))


def check_aligned_budget(
    table: LayerTable,
    budget: float,
    multiple: int,
    convention: MacsConvention = "true",
    *,
    asked: str | None = None,
) -> None:
    """Raise PlanError unless the smallest network on the grid meets a budget; arguments as in `check_budget`."""
    check_multiple(multiple)
    if multiple == 1:
        check_budget(table, budget, convention, asked=asked)
        return
    smallest = {group.name: grid(group, multiple)[0] for group in table.groups}
    check_budget(table, budget, convention, asked=asked, smallest=smallest, multiple=multiple)


def meet_aligned_budget(
    table: LayerTable, scores: Scores, budget: float, multiple: int, convention: MacsConvention = "true"
) -> Kept:
    """Keep the best-scored channels of the whole network that the budget allows, in widths on the grid.

    Args:
        table, scores, budget, convention: as in `meet_budget`.
        multiple: that widths are rounded to; 1 is `meet_budget`.

    Returns:
        Per group, rising channel numbers: what costs within [0.98, 1] of the budget wherever that was found, and else
        the dearest choice below it that was, see `shortfall`.

    Raises:
        PlanError: the scores do not fit the network, or the smallest network on the grid is above the budget.
    """
    check_multiple(multiple)
    if multiple == 1:
        return meet_budget(table, scores, budget, convention)
    check_aligned_budget(table, budget, multiple, convention)
    ranked = rank(table, scores)
    grids = {group.name: grid(group, multiple) for group in table.groups}
    steps = [
        (-scores[name][ranked[name][before]], name, step)
        for name, widths in grids.items()
        for step, before in enumerate(widths[:-1])
    ]
    cost, total = Cost(table, convention), macs(table, convention)
    search = Search(
        order=tuple(name for _, name, _ in sorted(steps)),
        minimum=dict.fromkeys(grids, 0),
        cost=lambda counts: cost({name: widths[counts[name]] for name, widths in grids.items()}),
        floor=(1 - TOLERANCE) * budget * total,
        limit=budget * total,
    )
    counts = search.run()
    if search.cost(counts) < search.floor:
        counts = _nearest(search, counts, {name: len(widths) - 1 for name, widths in grids.items()})
    return {name: tuple(sorted(order[: grids[name][counts[name]]])) for name, order in ranked.items()}


def shortfall(met: float, budget: float, multiple: int) -> str | None:
    """Return what is to be said of an aligned choice more than 2 % under its budget, both fractions; else None."""
    if met >= (1 - TOLERANCE) * budget:
        return None
    return (
        f"in widths of multiples of {multiple}, {met:.4g} of the MACs is the nearest below the budget {budget:.4g} "
        "that was found"
    )


def unaligned(
    table: LayerTable,
    kept: Mapping[str, Sequence[int]],
    budget: float,
    multiple: int,
    convention: MacsConvention = "true",
) -> str | None:
    """Return what is to be said of a choice most of whose widths are on no grid that meets the budget too; else None.

    Args:
        table, budget, convention: as in `meet_budget`.
        kept: the channels of every group.
        multiple: that the target runs at full speed.
    """
    groups = [group for group in table.groups if group.size]
    off = sum(len(kept[group.name]) not in grid(group, multiple) for group in groups)
    if 2 * off <= len(groups):
        return None
    try:
        check_aligned_budget(table, budget, multiple, convention)
    except PlanError:
        return None
    return (
        f"{off} of {len(groups)} widths are no multiples of {multiple}, which this machine runs at full speed: "
        "--align auto takes channels that cost no time, at the same budget"
    )


def _nearest(search: Search, start: Mapping[str, int], highest: Mapping[str, int]) -> dict[str, int]:
    """Return the choice within the tolerance that is the fewest steps away from `start`, else the dearest that fits.

    Of several as near, the one that goes least against the scores: its steps are the nearest to the threshold.
    """
    names = tuple(highest)
    places: dict[str, list[int]] = {name: [] for name in names}  # of the steps of a group, in the order of scores
    for place, name in enumerate(search.order):
        places[name].append(place)
    threshold = sum(start.values()) - 0.5
    first: _Steps = tuple(start[name] for name in names)
    best, most = first, search.cost(start)
    seen, edge = {first}, {first: 0.0}  # `edge`: what was reached last, and how far it goes against the scores
    while edge and len(seen) < MAX_TRIED:
        reached: dict[_Steps, float] = {}
        found: dict[_Steps, float] = {}
        for steps, against in edge.items():
            for index, name in enumerate(names):
                for change in (1, -1):
                    count = steps[index] + change
                    if not 0 <= count <= highest[name]:
                        continue
                    other = (*steps[:index], count, *steps[index + 1 :])
                    if other in seen or len(seen) >= MAX_TRIED:
                        continue
                    seen.add(other)
                    reached[other] = against + abs(places[name][min(count, steps[index])] - threshold)
                    spent = search.cost(dict(zip(names, other, strict=True)))
                    if most < spent <= search.limit:
                        best, most = other, spent
                    if search.floor <= spent <= search.limit:
                        found[other] = reached[other]
        if found:
            best = min(found, key=lambda steps: (found[steps], steps))
            break
        edge = reached
    return dict(zip(names, best, strict=True))


class Cost:
    """The MACs of a network as a function of its widths, counted from the rows of its table without drawing it anew.

    A row costs K * n_in * n_out, depthwise K * n_out, and nothing where a group that may vanish has taken it along.
    """

    def __init__(self, table: LayerTable, convention: MacsConvention) -> None:
        sizes = {group.name: group.size for group in table.groups}
        takes = _taken_along(table)
        self._rows: list[tuple[int, tuple[str, ...], int, str | None, int, tuple[str, ...]]] = []
        for layer in table.layers:
            if not (count := layer_macs(layer, convention)):
                continue
            depthwise = layer.op == "depthwise_conv"
            reads = () if depthwise else tuple(name for name in layer.inputs if name in sizes)
            fixed = 1 if depthwise else layer.in_channels - sum(sizes[name] for name in reads)
            each = count // (layer.out_channels * (1 if depthwise else layer.in_channels))
            writes = layer.output if layer.output in sizes else None
            gone = tuple(name for name, rows in takes.items() if layer.name in rows)
            self._rows.append((each, reads, fixed, writes, layer.out_channels, gone))

    def __call__(self, widths: Mapping[str, int]) -> int:
        """Return the MACs of the network that has these widths."""
        total = 0
        for each, reads, fixed, writes, out_channels, gone in self._rows:
            if any(not widths[name] for name in gone):
                continue
            read = fixed + sum(widths[name] for name in reads)
            total += each * read * (out_channels if writes is None else widths[writes])
        return total


def _taken_along(table: LayerTable) -> dict[str, set[str]]:
    """Return, per group that may vanish, the rows that vanish with it."""
    here = {layer.name for layer in table.layers if layer.op != "constant"}
    taken = {}
    for group in table.groups:
        if group.minimum == 0 and group.size:
            without = layer_table(table.spec.with_widths({group.name: 0}), table.image_size)
            taken[group.name] = here - {layer.name for layer in without.layers if layer.op != "constant"}
    return taken

"""Meet a budget from below: turn a score per channel into a plan whose cost is within 2 % under what was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context

from mggc_edge.errors import PlanError
from mggc_edge.models.cost import MacsConvention, macs
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import LayerTable

TOLERANCE = 0.02

Scores = Mapping[str, Sequence[float]]
Kept = dict[str, tuple[int, ...]]
_Counts = Mapping[str, int]  # channels that stay, by group: always the best-scored ones


def kept_macs(table: LayerTable, kept: Mapping[str, Sequence[int]], convention: MacsConvention) -> int:
    """Return the MACs of the slim network that a choice of channels leaves, from its own layer table."""
    return _macs_of(table, {group: len(indices) for group, indices in kept.items()}, convention)


def _macs_of(table: LayerTable, counts: _Counts, convention: MacsConvention) -> int:
    return macs(layer_table(table.spec.with_widths(counts), table.image_size), convention)


def best_first(scores: Sequence[float]) -> list[int]:
    """Return the channels of a group, the one with the highest score first."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def check_budget(
    table: LayerTable,
    budget: float,
    convention: MacsConvention = "true",
    *,
    asked: str | None = None,
    smallest: _Counts | None = None,
    multiple: int = 1,
) -> None:
    """Raise PlanError unless a budget is a fraction that the smallest network that can be left meets.

    Args:
        table, budget, convention: as in `meet_budget`.
        asked: where the user wrote MACs, what was written; the error then speaks of MACs too.
        smallest: the widths of that network; None: the minimum of every group.
        multiple: that these widths are multiples of.
    """
    if not 0 < budget <= 1:
        raise PlanError(f"a budget is a fraction above 0 and up to 1, not {budget:g}")
    if smallest is None:
        smallest = {group.name: min(group.minimum, group.size) for group in table.groups}
    count = _macs_of(table, smallest, convention)
    least = count / macs(table, convention)
    if least > budget:
        # Three digits, rounded up: less than TOLERANCE above what is needed.
        enough, enough_macs = (Context(prec=3, rounding=ROUND_CEILING).create_decimal(n) for n in (least, count))
        written, in_macs = f"{budget:g}", ""
        if asked is not None:
            written = f"{asked} MACs ({budget:.3g} of the original's)"
            in_macs = f", or {_short(int(enough_macs))}"
        left, otherwise = "", ""
        if multiple > 1:
            left, otherwise = f" in widths of multiples of {multiple}", "; smaller multiples leave smaller ones"
        raise PlanError(
            f"a budget of {written} cannot be met: the smallest network that can be left{left} already keeps "
            f"{least:.2g} of the MACs",
            hint=f"ask for at least {float(enough):g}{in_macs}{otherwise}",
        )


def _short(count: int) -> str:
    """Return a count of at most three digits and zeros as it can be asked for: 12.3M."""
    units = (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3), ("", 1))
    unit, size = next((unit, size) for unit, size in units if count >= size)
    return f"{count / size:g}{unit}"


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
    check_budget(table, budget, convention)
    ranked = rank(table, scores)
    minimum = {group.name: min(group.minimum, group.size) for group in table.groups}
    by_choice = ((name, index) for name, order in ranked.items() for index in order[minimum[name] :])
    total = macs(table, convention)
    search = Search(
        order=tuple(name for name, _ in sorted(by_choice, key=lambda entry: (-scores[entry[0]][entry[1]], *entry))),
        minimum=minimum,
        cost=lambda counts: _macs_of(table, counts, convention),
        floor=(1 - TOLERANCE) * budget * total,
        limit=budget * total,
    )
    counts = search.run()
    if (spent := search.cost(counts)) < search.floor:
        raise PlanError(
            f"no plan within {TOLERANCE:.0%} of the budget {budget:g} was found; the nearest keeps {spent / total:.4g}",
            hint="this network has too few channels for so fine a budget; ask for a slightly different budget",
        )
    return {name: tuple(sorted(order[: counts[name]])) for name, order in ranked.items()}


def by_rank(values: Sequence[float]) -> tuple[float, ...]:
    """Return 1 - s for every channel of a group, s being where round(s * C) reaches its rank; 1 for the first in rank.

    One threshold t over these scores, as `meet_budget` bisects it, leaves round((1 - t) * C) channels of every group,
    those with the largest values: even widths.
    """
    scores = [0.0] * len(values)
    for rank, index in enumerate(best_first(values)):
        scores[index] = 1 - (rank + 0.5) / len(values) if rank else 1.0
    return tuple(scores)


def rank(table: LayerTable, scores: Scores) -> dict[str, list[int]]:
    """Return the channels of every group, the best-scored first.

    Raises:
        PlanError: the scores do not fit the network, or one is no finite number.
    """
    for group in table.groups:
        given = len(scores.get(group.name, ()))
        if given != group.size:
            raise PlanError(f"group '{group.name}' has {group.size} channels, but {given} scores")
        if not all(map(math.isfinite, scores[group.name] if group.size else ())):
            raise PlanError(f"group '{group.name}' has a score that is not a finite number")
    return {group.name: best_first(scores.get(group.name, ())) for group in table.groups}


@dataclass(frozen=True)
class Search:
    """The search for how many channels of every group stay. Costs rise with every count, which all of it relies on.

    Attributes:
        order: the group of every channel that may go, the best-scored channel of the network first.
        minimum: what every group keeps.
        floor, limit: what the choice may cost.
    """

    order: tuple[str, ...]
    minimum: _Counts
    cost: Callable[[_Counts], int]
    floor: float
    limit: float

    def run(self) -> _Counts:
        """Return the counts of a choice that costs at most `limit`, and at least `floor` if one was found."""
        low, high = 0, len(self.order)  # best(low) fits
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.cost(self._best(middle)) <= self.limit else (low, middle - 1)
        counts = self._fill(self._best(low), self.order[low:])
        return counts if self.cost(counts) >= self.floor else self._exchange(counts)

    def _best(self, count: int) -> _Counts:
        counts = dict(self.minimum)
        for group in self.order[:count]:
            counts[group] += 1
        return counts

    def _fill(self, counts: _Counts, left: Iterable[str]) -> _Counts:
        """Add the best of the channels `left` that still fit, until `floor` is reached."""
        spent = self.cost(counts)
        closed = set()  # once one channel of a group does not fit, no other will
        for group in left:
            if spent >= self.floor:
                break
            if group in closed:
                continue
            more = {**counts, group: counts[group] + 1}
            if (tried := self.cost(more)) <= self.limit:
                counts, spent = more, tried
            else:
                closed.add(group)
        return counts

    def _exchange(self, counts: _Counts) -> _Counts:
        """Add one channel that does not fit, make room for it with the lowest-scored others, and fill up again.

        Needed where every channel that is left costs more than the tolerance: a trunk channel of a narrow network.
        """
        for group in dict.fromkeys(self._split(counts)[1]):  # the best that is left of each
            wider = {**counts, group: counts[group] + 1}
            for least in (self.floor, 0.0):
                tried = self._make_room(wider, group, least)
                if self.cost(tried) > self.limit:
                    continue
                tried = self._fill(tried, self._split(tried)[1])
                if self.cost(tried) >= self.floor:
                    return tried
        return counts

    def _make_room(self, counts: _Counts, spared: str, least: float) -> _Counts:
        """Drop the lowest-scored channels until it fits, but none of `spared`, and none below a cost of `least`."""
        spent = self.cost(counts)
        closed = {spared}
        for group in reversed(self._split(counts)[0]):
            if spent <= self.limit:
                break
            if group in closed:
                continue
            fewer = {**counts, group: counts[group] - 1}
            if (tried := self.cost(fewer)) >= least:
                counts, spent = fewer, tried
            else:  # too much: something cheaper must go
                closed.add(group)
        return counts

    def _split(self, counts: _Counts) -> tuple[list[str], list[str]]:
        """Return `order` in two: the channels that stay by choice, and those that are left."""
        room = {group: count - self.minimum[group] for group, count in counts.items()}
        stay: list[str] = []
        left: list[str] = []
        for group in self.order:
            (stay if room[group] > 0 else left).append(group)
            room[group] -= 1
        return stay, left

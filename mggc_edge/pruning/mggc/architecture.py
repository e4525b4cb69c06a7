"""From the agents' last logits to two plans: the generator's within its budget, the discriminator's by threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mggc_edge.models.cost import MacsConvention
from mggc_edge.models.layers import LayerTable
from mggc_edge.pruning.align import meet_aligned_budget
from mggc_edge.pruning.budget import Kept, best_first, by_rank, meet_budget
from mggc_edge.pruning.gates import Noise, open_threshold
from mggc_edge.pruning.plan import PruningPlan

CRITERION = "mggc"
Logits = Mapping[str, Sequence[float]]


def generator_plan(
    table: LayerTable,
    logits: Logits,
    budget: float,
    *,
    seed: int,
    convention: MacsConvention = "true",
    source_sha256: str | None = None,
    evenness: float = 0.0,
    norms: Logits | None = None,
    align: int = 1,
) -> PruningPlan:
    """Return the generator's plan: its best channels by logit, whose MACs are within 2 % under the budget.

    One shift of all logits moves the choice "open in half of the draws" up or down to the budget: the game ends near
    it at best, and with the one-sided penalty (eq. 5), which has no say below it, anywhere under it.

    Args:
        table: the generator's layer table; its picture size is the one MACs are counted at.
        logits: per group, one for every channel.
        budget: fraction of the original's MACs, in (0, 1].
        seed: of the job, kept in the plan.
        convention: which MACs.
        source_sha256: hash of the original's weights, kept in the plan.
        evenness: where a group's threshold lies, from 0, the one for all groups, to 1, the one that leaves every group
            the same fraction of its channels.
        norms: per group, one for every channel: as many channels stay as the logits say, but those of the largest norm.
        align: multiple that widths are rounded to, see `mggc_edge.pruning.align`.

    Raises:
        PlanError: the logits do not fit the network, or the budget cannot be met.
    """
    evened = _evened(table, logits, budget, convention, evenness)
    kept = meet_aligned_budget(table, evened, budget, align, convention)
    if norms is not None:
        kept = {name: _largest(norms[name], len(indices)) for name, indices in kept.items()}
    return _plan(table, logits, kept, budget, seed, convention, source_sha256, align)


def _evened(table: LayerTable, logits: Logits, budget: float, convention: MacsConvention, evenness: float) -> Logits:
    """Return the logits, those of a group less `evenness` times the threshold that even widths would have there."""
    if not evenness:
        return logits
    ranks = {group.name: by_rank(logits.get(group.name, ())) for group in table.groups}
    even = meet_budget(table, ranks, budget, convention)
    return {name: _less(scores, evenness * _threshold(scores, len(even[name]))) for name, scores in logits.items()}


def _threshold(scores: Sequence[float], count: int) -> float:
    """Return what lies between the scores of the `count` best and those of the others; where there are none, beyond."""
    best = sorted(scores, reverse=True)
    above, below = best[max(count - 1, 0)], best[min(count, len(best) - 1)]
    return (above + below) / 2 if 0 < count < len(best) else above + (1.0 if not count else -1.0)


def _less(scores: Sequence[float], shift: float) -> list[float]:
    return [score - shift for score in scores]


def _largest(norms: Sequence[float], count: int) -> tuple[int, ...]:
    return tuple(sorted(best_first(norms)[:count]))


def discriminator_plan(
    table: LayerTable,
    logits: Logits,
    *,
    noise: Noise = "gumbel_paper",
    seed: int,
    convention: MacsConvention = "true",
    source_sha256: str | None = None,
) -> PruningPlan:
    """Return the discriminator's plan, which has no budget: its `budget` is what it keeps. See `discriminator_kept`.

    Raises:
        PlanError: the logits do not fit the network.
    """
    kept = discriminator_kept(table, logits, noise)
    return _plan(table, logits, kept, None, seed, convention, source_sha256)


def discriminator_kept(table: LayerTable, logits: Logits, noise: Noise = "gumbel_paper") -> Kept:
    """Return the channels that are open in at least half of the draws, and of every group its minimum at least.

    A group without logits is whole.
    """
    threshold = open_threshold(noise)
    kept: Kept = {}
    for group in table.groups:
        scores = logits.get(group.name)
        if scores is None:
            kept[group.name] = tuple(range(group.size))
            continue
        best = best_first(scores)
        count = max(sum(score >= threshold for score in scores), min(group.minimum, len(scores)))
        kept[group.name] = tuple(sorted(best[:count]))
    return kept


def _plan(
    table: LayerTable,
    logits: Logits,
    kept: Kept,
    budget: float | None,
    seed: int,
    convention: MacsConvention,
    source_sha256: str | None,
    align: int = 1,
) -> PruningPlan:
    return PruningPlan.of_choice(
        table,
        kept,
        {name: tuple(scores) for name, scores in logits.items()},
        criterion=CRITERION,
        seed=seed,
        budget=budget,
        convention=convention,
        source_sha256=source_sha256,
        align=align,
    )

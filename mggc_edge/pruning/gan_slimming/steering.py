"""The budget of GAN Slimming: rho is chosen in every step so that the run ends in its budget.

Let q be the smallest threshold for which the channels with |gamma| > q are within the budget: what has to be taken from
every scale for just those to be left. If no gradient moved the scales any more, a rho of

    rho = q / sum of the scales' learning rates up to the step K at which channels shall be closed

would take q from them by then, for every proximal step takes rho * rate. As gradients do move them, q is looked at anew
in every step. At step K the sum is one rate, and the proximal step takes q as a whole; from then on it does so in every
step: a channel that a gradient opens again is closed at once. So a run ends in its budget, short of one channel.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mggc_edge.errors import PlanError
from mggc_edge.models.cost import MacsConvention
from mggc_edge.models.layers import LayerTable
from mggc_edge.pruning.cost import GatedCost
from mggc_edge.pruning.gan_slimming.scales import scaled_groups


class Steering:
    """What the open channels cost, and how much has to be taken from the scales.

    Args:
        table: of the original, at the picture size at which MACs are counted.
        budget: fraction of its MACs.
        rates: the scales' learning rate in every step.
        closing: fraction of the steps after which a budget is met.
        sums: residual sums have scales too.

    Attributes:
        closed: the number of steps after which it is met.

    Raises:
        PlanError: the budget cannot be met; while residual sums are whole, or at all.
    """

    def __init__(
        self,
        table: LayerTable,
        budget: float,
        convention: MacsConvention,
        *,
        rates: Sequence[float],
        closing: float,
        sums: bool = True,
    ) -> None:
        self._groups = scaled_groups(table, sums)
        self._cost, self._budget = GatedCost(table, convention), budget
        self.closed = max(1, round(closing * len(rates)))
        left = [*itertools.accumulate(reversed(rates[: self.closed]))][::-1]
        self._shares = [rate / rest for rate, rest in zip(rates, left, strict=False)]
        least = self._fraction({group.name: min(group.minimum, group.size) for group in self._groups})
        if least > budget:
            raise PlanError(
                f"a budget of {budget:g} cannot be met by gan-slimming: "
                + ("" if sums else "it keeps the channels of residual sums, and ")
                + f"the smallest network that is left keeps {least:.2g} of the MACs",
                hint="ask for more" if sums else "ask for more, or leave out --set gan_slimming.sums=false",
            )

    def _fraction(self, counts: Mapping[str, int]) -> float:
        sums = {name: torch.tensor([float(count)], dtype=torch.float64) for name, count in counts.items()}
        return self._cost.fraction(sums).item()

    def fraction(self, scales: Mapping[str, Tensor]) -> float:
        """Return which fraction of the original's MACs the open channels need."""
        return self._fraction({name: int((scale != 0).sum()) for name, scale in scales.items()})

    @torch.no_grad()
    def threshold(self, scales: Mapping[str, Tensor]) -> float:
        """Return the smallest q for which the channels with |gamma| > q, and those that must stay, meet the budget."""
        sizes = {group.name: scales[group.name].abs().cpu().sort().values for group in self._groups}
        values = sorted({0.0, *torch.cat([*sizes.values()]).tolist()})

        def fits(q: float) -> bool:
            counts = {}
            for group in self._groups:
                ranked = sizes[group.name]
                over = len(ranked) - int(torch.searchsorted(ranked, q, right=True))
                counts[group.name] = max(over, min(group.minimum, group.size))
            return self._fraction(counts) <= self._budget

        low, high = 0, len(values) - 1  # values[high] fits: it leaves what must stay
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(values[middle]) else (middle + 1, high)
        return float(values[low])

    def amount(self, number: int, scales: Mapping[str, Tensor]) -> float:
        """Return rho * rate: what the proximal step of step `number` takes from every scale."""
        share = self._shares[number] if number < len(self._shares) else 1.0
        return share * self.threshold(scales)

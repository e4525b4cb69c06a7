"""What a gated network costs, as a function with gradients: exact MACs while the gates are zeros and ones.

    T(v) = sum over rows of K * n_in * n_out,    n = the sum of a group's gates, or a picture's channels,

where K = k^2 * positions, and n_in sums over what a row joins. A depthwise row costs K * n_out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from mggc_edge.models.cost import MacsConvention, layer_macs, macs
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import LayerTable

Regularizer = Literal["one_sided", "two_sided"]


class GatedCost:
    """The MACs of a network as a function of its gates, in float64, which counts exactly up to 2^53.

    A group without a gate is whole. The rows that vanish with an empty group (a removed residual block) cost nothing.
    """

    def __init__(self, table: LayerTable, convention: MacsConvention, device: torch.device | str | None = None) -> None:
        self.total = macs(table, convention)
        self._sizes = {group.name: group.size for group in table.groups if group.size}
        column = {name: index for index, name in enumerate(self._sizes)}
        rows = [layer for layer in table.layers if layer_macs(layer, convention)]
        whole = torch.zeros(len(rows), dtype=torch.float64)
        # n_in = reads @ n + fixed_reads, and likewise n_out
        reads, writes = (torch.zeros(len(rows), len(column), dtype=torch.float64) for _ in range(2))
        fixed_reads, fixed_writes, each = whole.clone(), whole.clone(), whole.clone()
        for index, layer in enumerate(rows):
            depthwise = layer.op == "depthwise_conv"
            for name in () if depthwise else layer.inputs:
                if name in column:
                    reads[index, column[name]] += 1
                else:
                    fixed_reads[index] += table.spec.width(name)
            if depthwise:
                fixed_reads[index] = 1
            if layer.output in column:
                writes[index, column[layer.output]] = 1
            else:
                fixed_writes[index] = layer.out_channels
            each[index] = layer_macs(layer, convention) // (
                layer.out_channels if depthwise else layer.in_channels * layer.out_channels
            )
        needs = torch.zeros_like(reads)
        for name, gone in _vanishing(table).items():
            for index, layer in enumerate(rows):
                needs[index, column[name]] = float(layer.name in gone)
        self._reads, self._writes, self._needs = reads.to(device), writes.to(device), needs.to(device)
        self._fixed_reads, self._fixed_writes = fixed_reads.to(device), fixed_writes.to(device)
        self._each = each.to(device)

    def macs(self, gates: Mapping[str, Tensor]) -> Tensor:
        """Return T(v), float64 [], for gates [C] per group; its gradient goes through the sums n alone."""
        counts = torch.stack(
            [
                gates[name].sum(dtype=torch.float64) if name in gates else self._each.new_tensor(float(size))
                for name, size in self._sizes.items()
            ]
        )
        read = self._reads @ counts + self._fixed_reads
        written = self._writes @ counts + self._fixed_writes
        present = (self._needs @ (counts.detach() <= 0).double()) == 0
        return (self._each * present * read * written).sum()

    def fraction(self, gates: Mapping[str, Tensor]) -> Tensor:
        """Return T(v) / T_tot, float64 [], between 0 and 1."""
        return self.macs(gates) / self.total


def _vanishing(table: LayerTable) -> dict[str, set[str]]:
    """Return, per group that may be empty, the rows that the network then no longer has."""
    here = {layer.name for layer in table.layers}
    gone = {}
    for group in table.groups:
        if group.minimum == 0 and group.size:
            without = layer_table(table.spec.with_widths({group.name: 0}), table.image_size)
            gone[group.name] = here - {layer.name for layer in without.layers}
    return gone


def budget_penalty(fraction: Tensor, budget: float, regularizer: Regularizer = "one_sided") -> Tensor:
    """Return R, float64 []: how far a cost is from its budget, both as fractions of the original's MACs.

    one_sided (eq. 5): log(max(T, p) / p), without value or gradient below the budget.
    two_sided: |log(T / p)|, which also pushes up what is below.
    """
    if regularizer == "one_sided":
        return (torch.clamp(fraction, min=budget) / budget).log()
    return (fraction.log() - math.log(budget)).abs()

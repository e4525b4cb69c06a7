"""Which channels stay: a choice that fits a network, and the spec of what it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from mggc_edge.errors import PlanError
from mggc_edge.models.families import layer_table
from mggc_edge.models.spec import NetworkSpec

Kept = Mapping[str, Sequence[int]]


def slim_spec(spec: NetworkSpec, kept: Kept) -> NetworkSpec:
    """Return the spec of the network that is left when only the channels `kept` stay in each group.

    Raises:
        PlanError: a group is missing or unknown, an index is out of range, repeated or out of order, or a group that
            cannot vanish is empty.
    """
    groups = layer_table(spec).groups
    names = {group.name for group in groups}
    if set(kept) != names:
        odd = sorted(set(kept) ^ names)
        raise PlanError(f"the plan and the network do not have the same channel groups: {', '.join(odd[:5])}")
    for group in groups:
        indices = kept[group.name]
        in_range = all(0 <= index < group.size for index in (*indices[:1], *indices[-1:]))
        if not in_range or any(b <= a for a, b in pairwise(indices)):
            raise PlanError(f"group '{group.name}' must keep rising channel numbers between 0 and {group.size - 1}")
        if len(indices) < group.minimum and group.size > 0:
            raise PlanError(f"group '{group.name}' must keep at least {group.minimum} channel")
    return spec.with_widths({name: len(indices) for name, indices in kept.items()})

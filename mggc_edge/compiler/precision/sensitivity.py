"""Which layers of an int8 graph cost the most, and the smallest set that must stay in float to reach a PSNR.

Every layer is looked at twice: alone in 8 bits, and alone in float. Roundings of different layers are nearly
independent, so their squared errors add up: the smallest set is then the first few of the layers in the order of the
error that each makes alone. That set is built, measured, and shrunk where one of it turns out not to be needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from mggc_edge.compiler.precision.judge import Difference

Build = Callable[[Collection[str]], Difference]  # what the graph is worth with these layers alone in 8 bits


@dataclass(frozen=True)
class Effect:
    """PSNR to the float output, in dB, with this layer alone in 8 bits, and with all but this one; None: identical."""

    name: str
    alone: float | None
    without: float | None


@dataclass(frozen=True)
class Sensitivity:
    """What the layers of an int8 graph cost.

    Attributes:
        layers: the costliest first.
        keep_float: the layers to leave in float; None where that does not help either.
        psnr: with those in float; None where there is no such set, or the outputs are identical.
    """

    layers: tuple[Effect, ...]
    keep_float: tuple[str, ...] | None
    psnr: float | None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; a PSNR that is not finite is null."""
        return {
            "layers": [
                {"name": one.name, "psnr_alone": _finite(one.alone), "psnr_without": _finite(one.without)}
                for one in self.layers
            ],
            "keep_float": None if self.keep_float is None else list(self.keep_float),
            "psnr": _finite(self.psnr),
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def find_sensitivity(
    names: Sequence[str], build: Build, min_psnr: float, watch: Callable[[int, int], None] = lambda _done, _count: None
) -> Sensitivity:
    """Measure every layer, and find the smallest set to leave in float.

    Args:
        names: of the layers in 8 bits.
        build: from the names of the layers that are to be in 8 bits to the difference.
        watch: is told how many layers are done, and how many there are.
    """
    effects = []
    for number, name in enumerate(names):
        alone, without = build([name]), build([other for other in names if other != name])
        effects.append(Effect(name, alone.psnr, without.psnr))
        watch(number + 1, len(names))
    effects.sort(key=lambda one: math.inf if one.alone is None else one.alone)
    order = [one.name for one in effects]
    kept, psnr = _smallest(order, build, min_psnr)
    return Sensitivity(tuple(effects), kept, psnr)


def _smallest(order: Sequence[str], build: Build, min_psnr: float) -> tuple[tuple[str, ...] | None, float | None]:
    """Return the shortest beginning of `order` that passes when it is in float, without what it does not need."""

    def difference(in_float: Collection[str]) -> Difference:
        return build([name for name in order if name not in in_float])

    low, high = 0, len(order)  # the first `high` in float are enough: all of them are the float file itself
    while low < high:
        middle = (low + high) // 2
        if difference(order[:middle]).at_least(min_psnr):
            high = middle
        else:
            low = middle + 1
    if high == len(order):
        return None, None
    kept = list(order[:high])
    for name in reversed(kept[:-1]):  # the last one is needed, or the beginning would have been shorter
        fewer = [other for other in kept if other != name]
        if difference(fewer).at_least(min_psnr):
            kept = fewer
    return tuple(kept), difference(kept).psnr

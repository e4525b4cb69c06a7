"""Percentiles of latencies, where the samples carry them, with intervals that assume no distribution.

Of n samples the number that lies below the true percentile q is binomial, (n, q): so two of the samples enclose it with
a known probability. This takes samples as independent. Those of one process are not quite, so the interval is a lower
bound of the doubt; a verdict never goes by it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
# Percentile -> samples from which on it is said: ten and more lie beyond it.
LEAST = {50: 1, 90: 1, 95: 200, 99: 1000}
MOST_DEVIATIONS = 9  # standard deviations of a binomial beyond which its probabilities are nothing


@dataclass(frozen=True)
class Percentile:
    """A percentile of samples, in their unit.

    Attributes:
        value: interpolated between two samples.
        ci95: two of the samples that enclose the true one in 95 % of the cases; None where there are too few for that.
    """

    value: float
    ci95: tuple[float, float] | None


def percentile(samples: Sequence[float], percent: int) -> Percentile | None:
    """Return a percentile of samples; None where `LEAST` says that they are too few for it.

    Args:
        samples: at least one.
        percent: a key of `LEAST`.
    """
    count = len(samples)
    if count < LEAST[percent]:
        return None
    ranks = enclosing_ranks(count, percent / 100)
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    interval = None if ranks is None else (float(ordered[ranks[0] - 1]), float(ordered[ranks[1] - 1]))
    return Percentile(float(np.quantile(ordered, percent / 100)), interval)


def enclosing_ranks(count: int, quantile: float, level: float = LEVEL) -> tuple[int, int] | None:
    """Return the ranks (from 1) of two of so many samples that enclose a quantile with at least this probability.

    Each lies beyond it with at most half of the rest. None where the samples are too few.
    """
    deviation = math.sqrt(count * quantile * (1 - quantile))
    first = max(0, int(count * quantile - MOST_DEVIATIONS * deviation) - 1)
    last = min(count, int(count * quantile + MOST_DEVIATIONS * deviation) + 1)
    chances = [_binomial(count, quantile, below) for below in range(first, last + 1)]
    tail = (1 - level) / 2
    low = high = None
    total = 0.0  # P(fewer than `rank` samples lie below)
    for rank, chance in enumerate(chances, start=first):
        if total <= tail and rank >= 1:
            low = rank
        total += chance
    total = 0.0  # P(`rank` or more samples lie below)
    for rank, chance in zip(range(last, first - 1, -1), reversed(chances), strict=True):
        total += chance
        if total <= tail:
            high = rank
    return None if low is None or high is None else (low, high)


def _binomial(count: int, quantile: float, below: int) -> float:
    choices = math.lgamma(count + 1) - math.lgamma(below + 1) - math.lgamma(count - below + 1)
    return math.exp(choices + below * math.log(quantile) + (count - below) * math.log1p(-quantile))

"""Statistics of latencies: a ratio with an interval that respects processes, and what it allows to say.

Samples of one process are not independent: its memory layout, its share of the machine and the frequency of its cores
stay with it. So a process counts once. Process pair i gives x_i, the median over its pairs of ln(a / b); the ratio is
exp(mean x), its interval exp(mean x +- t * s / sqrt(n)) with Student's t of n - 1 degrees of freedom.

A percentile bootstrap over ten processes is too narrow: on the noise models of the tests its 99 % intervals covered 95
to 98 %. Student's t covers what it promises, because a median of pairs is nearly normal even where samples have heavy
tails.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mggc_edge.errors import InputError

Verdict = Literal["faster", "slower", "same", "inconclusive"]
Interval = tuple[float, float]

POWER = 0.8  # of the minimum detectable effect
_STEPS = 200  # of the bisection: more than a double has digits


@dataclass(frozen=True)
class Ratio:
    """How many times as fast b is as a.

    Attributes:
        value: latency of a : latency of b.
        ci95, ci99: confidence intervals of the ratio; None where there are fewer than two process pairs.
        minimum_detectable_effect: the smallest speed-up, as a fraction (0.05 = 5 %), that processes as noisy as these
            would have shown with a probability of 80 %; None as above.
        processes: process pairs that it comes from.
    """

    value: float
    ci95: Interval | None
    ci99: Interval | None
    minimum_detectable_effect: float | None
    processes: int

    def verdict(self, margin: float) -> Verdict:
        """Return what these samples allow to say about b.

        Args:
            margin: the smallest relative difference that matters, above 0.

        Returns:
            "faster" or "slower" if the 99 % interval leaves out 1 and the ratio itself differs from 1 by more than
            `margin`; "same" if the whole interval lies within 1/(1 + margin) and 1 + margin; "inconclusive" otherwise.
        """
        if self.ci99 is None:
            return "inconclusive"
        low, high = self.ci99
        if low > 1 and self.value > 1 + margin:
            return "faster"
        if high < 1 and self.value < 1 / (1 + margin):
            return "slower"
        if low >= 1 / (1 + margin) and high <= 1 + margin:
            return "same"
        return "inconclusive"


def compare(pairs: Sequence[Sequence[tuple[float, float]]], margin: float) -> Ratio:
    """Compare two sides that were measured in pairs.

    Args:
        pairs: per process pair the (latency of a, latency of b) of its pairs, all above 0, in one unit.
        margin: see `Ratio.verdict`.

    Raises:
        InputError: there are no pairs, or a latency is not above 0.
    """
    if not pairs or not all(pairs):
        raise InputError("there are no pairs of samples to compare")
    if any(side <= 0 for process in pairs for pair in process for side in pair):
        raise InputError("a latency must be above 0")
    logs = np.array([np.median([math.log(a / b) for a, b in process]) for process in pairs])
    n, mean = len(logs), float(logs.mean())
    if n < 2:
        return Ratio(math.exp(mean), None, None, None, n)
    error = float(logs.std(ddof=1)) / math.sqrt(n)
    half = {level: t_quantile((1 + level) / 2, n - 1) * error for level in (0.95, 0.99)}
    # A true effect is called in 80 % of the measurements if it lies t(0.8) * error beyond what has to be exceeded.
    least = max(half[0.99], math.log1p(margin)) + t_quantile(POWER, n - 1) * error
    return Ratio(
        math.exp(mean),
        (_exp(mean - half[0.95]), _exp(mean + half[0.95])),
        (_exp(mean - half[0.99]), _exp(mean + half[0.99])),
        _exp(least) - 1,
        n,
    )


def typical_interval(medians: Sequence[float], level: float = 0.95) -> Interval | None:
    """Return the confidence interval of a process's typical latency, from the median latency of every process.

    exp(mean ln m +- t * s / sqrt(n)), in the unit of `medians`; None for fewer than two processes.
    """
    n = len(medians)
    if n < 2:
        return None
    logs = np.log(np.asarray(medians, dtype=np.float64))
    half = t_quantile((1 + level) / 2, n - 1) * float(logs.std(ddof=1)) / math.sqrt(n)
    mean = float(logs.mean())
    return _exp(mean - half), _exp(mean + half)


def median_absolute_deviation(values: Sequence[float]) -> float:
    """Return the median distance from the median, in the unit of `values`."""
    array = np.asarray(values, dtype=np.float64)
    return float(np.median(np.abs(array - np.median(array))))


def t_cdf(t: float, degrees: int) -> float:
    """Return the probability that Student's t with so many whole degrees of freedom is at most `t`.

    The finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4, with theta = arctan(t / sqrt(degrees)).
    """
    theta = math.atan2(t, math.sqrt(degrees))
    cosine, sine = math.cos(theta), math.sin(theta)
    if degrees % 2:
        total, term = 0.0, cosine
        for k in range(1, degrees, 2):  # cos + 2/3 cos^3 + 2*4/(3*5) cos^5 + ...
            total += term
            term *= cosine**2 * (k + 1) / (k + 2)
        both = 2 / math.pi * (theta + sine * total)
    else:
        total, term = 0.0, 1.0
        for k in range(0, degrees, 2):  # 1 + 1/2 cos^2 + 1*3/(2*4) cos^4 + ...
            total += term
            term *= cosine**2 * (k + 1) / (k + 2)
        both = sine * total
    return (1 + both) / 2


@functools.cache
def t_quantile(probability: float, degrees: int) -> float:
    """Return the value that Student's t is below with this probability, between 0 and 1 without both.

    Raises:
        InputError: `probability` or `degrees` is out of range.
    """
    if not 0 < probability < 1 or degrees < 1:
        raise InputError(f"there is no t quantile for probability {probability} and {degrees} degrees of freedom")
    # t = sqrt(degrees) * tan(theta) with theta in (-90, 90) degrees: a bounded interval to halve.
    low, high = -math.pi / 2, math.pi / 2
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if t_cdf(math.sqrt(degrees) * math.tan(middle), degrees) < probability:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _exp(x: float) -> float:
    """Return e^x, held within what JSON and a reader can use: with two wild processes t is 64 standard errors."""
    return math.exp(max(-50.0, min(50.0, x)))

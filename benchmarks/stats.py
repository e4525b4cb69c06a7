"""Statistics of latencies: a ratio with an interval that respects processes, and what it allows to say.

Samples of one process are not independent: its memory layout, its share of the machine and the frequency of its cores
stay with it. The ratio is exp(m), where m is Huber's estimate over the pairs' ln(a / b); its interval is
exp(m +- t * s), where s is the error that leaving out one process at a time shows (`mggc_edge.benchmarks.location`) and
t is Student's of one degree of freedom less than processes.

What else was tried, on the noise of tests/benchmarks/noise.py: a percentile bootstrap over ten processes is too narrow,
its 99 % intervals cover 95 to 98 %; the mean of the processes' medians covers what it promises, but found a slowdown of
10 % in only 66 to 72 % of bad cases with 20 processes of 2 pairs, where this finds it in 95 %.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np

from mggc_edge.benchmarks.location import locate
from mggc_edge.errors import InputError

Verdict = Literal["faster", "slower", "same", "inconclusive"]
Interval = tuple[float, float]

LEVEL = 0.99  # of the interval that the verdict on a single comparison goes by
POWER = 0.8  # of the minimum detectable effect
_SLICES = tuple(NormalDist().inv_cdf((number + 0.5) / 25) for number in range(25))
_EFFECT_STEPS = 30  # of a bisection to a millionth of the error
_STEPS = 200  # of the bisection: more than a double has digits


@dataclass(frozen=True)
class Ratio:
    """How many times as fast b is as a.

    Attributes:
        value: latency of a : latency of b.
        ci95, ci99: confidence intervals of the ratio; None where there are fewer than two processes of a side.
        minimum_detectable_effect: the smallest speed-up, as a fraction (0.05 = 5 %), that processes as noisy as these
            would have shown with a probability of 80 %; None as above.
        processes: process pairs that it comes from; where sides were not measured in pairs, of the smaller side.
        level: of the interval that verdicts go by.
        wider: that interval, where the level is not 0.99.
    """

    value: float
    ci95: Interval | None
    ci99: Interval | None
    minimum_detectable_effect: float | None
    processes: int
    level: float = LEVEL
    wider: Interval | None = None

    @property
    def interval(self) -> Interval | None:
        """The interval that verdicts go by."""
        return self.ci99 if self.wider is None else self.wider

    def covering(self, other: Ratio) -> Ratio:
        """Return a ratio that claims no more than this one or another estimate of it does.

        Its intervals cover those of both, and its value is the one nearer to 1.
        """
        effects = (self.minimum_detectable_effect, other.minimum_detectable_effect)
        return replace(
            self,
            value=min(self.value, other.value, key=lambda value: abs(math.log(value))),
            ci95=_cover(self.ci95, other.ci95),
            ci99=_cover(self.ci99, other.ci99),
            wider=_cover(self.wider, other.wider),
            minimum_detectable_effect=None if None in effects else max(effect or 0.0 for effect in effects),
        )

    def verdict(self, margin: float) -> Verdict:
        """Return what these samples allow to say about b.

        Args:
            margin: the smallest relative difference that matters, above 0.

        Returns:
            "faster" or "slower" if the interval leaves out 1 and the ratio itself differs from 1 by more than
            `margin`; "same" if the whole interval lies within 1/(1 + margin) and 1 + margin; "inconclusive" otherwise.
        """
        if self.interval is None:
            return "inconclusive"
        low, high = self.interval
        if low > 1 and self.value > 1 + margin:
            return "faster"
        if high < 1 and self.value < 1 / (1 + margin):
            return "slower"
        if low >= 1 / (1 + margin) and high <= 1 + margin:
            return "same"
        return "inconclusive"


def _cover(a: Interval | None, b: Interval | None) -> Interval | None:
    return None if a is None or b is None else (min(a[0], b[0]), max(a[1], b[1]))


def level_for(comparisons: int) -> float:
    """Return the level at which so many comparisons together are wrong in at most 1 % of the cases: 1 - 0.01/m."""
    return 1 - (1 - LEVEL) / max(1, comparisons)


def compare(pairs: Sequence[Sequence[tuple[float, float]]], margin: float, level: float = LEVEL) -> Ratio:
    """Compare two sides that were measured in pairs.

    Args:
        pairs: per process pair the (latency of a, latency of b) of its pairs, all above 0, in one unit.
        margin: see `Ratio.verdict`.
        level: of the interval that verdicts go by, between 0 and 1 without both.

    Raises:
        InputError: there are no pairs, or a latency is not above 0.
    """
    if not pairs or not all(pairs):
        raise InputError("there are no pairs of samples to compare")
    _check_latencies(side for process in pairs for pair in process for side in pair)
    found = locate([[math.log(a / b) for a, b in process] for process in pairs])
    return _ratio(found.value, found.error, found.degrees, found.groups, margin, level)


def compare_apart(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], margin: float, level: float = LEVEL
) -> Ratio:
    """Compare two sides that were measured at different times, by processes: what changed in between is in the ratio.

    The error is that of a difference, the degrees of freedom are Welch's, rounded down.

    Args:
        a, b: per process its latencies, all above 0, in one unit.
        margin, level: as for `compare`.

    Raises:
        InputError: as for `compare`.
    """
    if not a or not b or not all(a) or not all(b):
        raise InputError("there are no samples to compare")
    _check_latencies(latency for side in (a, b) for process in side for latency in process)
    first, second = (locate([[math.log(latency) for latency in process] for process in side]) for side in (a, b))
    processes = min(first.groups, second.groups)
    if first.error is None or second.error is None:
        return _ratio(first.value - second.value, None, 0, processes, margin, level)
    x, y = first.error**2, second.error**2
    degrees = (x + y) ** 2 / (x**2 / first.degrees + y**2 / second.degrees) if x + y > 0 else 1.0
    return _ratio(first.value - second.value, math.sqrt(x + y), max(1, int(degrees)), processes, margin, level)


def _check_latencies(latencies: Iterable[float]) -> None:
    if any(latency <= 0 for latency in latencies):
        raise InputError("a latency must be above 0")


def _ratio(mean: float, error: float | None, degrees: int, processes: int, margin: float, level: float) -> Ratio:
    if error is None:
        return Ratio(math.exp(mean), None, None, None, processes, level)
    half = {one: t_quantile((1 + one) / 2, degrees) * error for one in (0.95, LEVEL, level)}
    least = least_effect(error, degrees, t_quantile((1 + level) / 2, degrees), math.log1p(margin))
    return Ratio(
        math.exp(mean),
        (_exp(mean - half[0.95]), _exp(mean + half[0.95])),
        (_exp(mean - half[LEVEL]), _exp(mean + half[LEVEL])),
        _exp(least) - 1,
        processes,
        level,
        None if level == LEVEL else (_exp(mean - half[level]), _exp(mean + half[level])),
    )


def least_effect(error: float, degrees: int, quantile: float, margin: float) -> float:
    """Return the log ratio that is told apart with a probability of 80 %.

    A measurement calls an effect d if its estimate m, normal around d with the standard deviation `error`, is beyond
    the margin and beyond quantile * s, where s is the error as that measurement finds it: s^2 is spread around error^2
    as chi-squared over its degrees of freedom is around 1 (by Wilson and Hilferty, in slices of equal probability).

    Args:
        error: standard error of a log ratio, 0 or more.
        degrees: of freedom, 1 or more.
        quantile: of Student's t.
        margin: of log ratios.
    """
    if error == 0:
        return margin
    spread = 2 / (9 * degrees)
    scales = [math.pow(max(0.0, 1 - spread + z * math.sqrt(spread)), 1.5) for z in _SLICES]
    bounds = [max(margin, quantile * error * scale) for scale in scales]
    low, high = margin, max(bounds) + 4 * error
    for _ in range(_EFFECT_STEPS):
        middle = (low + high) / 2
        # mean of Phi((middle - bound) / error) over the slices
        power = sum(math.erfc((bound - middle) / (error * math.sqrt(2))) for bound in bounds) / (2 * len(bounds))
        low, high = (low, middle) if power > POWER else (middle, high)
    return (low + high) / 2


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

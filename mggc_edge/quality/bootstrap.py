"""Percentile bootstrap over pictures, nested in seeds: intervals of a number, and of the difference of two methods.

Efron, "Bootstrap methods: another look at the jackknife", 1979; for levels, Davison & Hinkley, "Bootstrap Methods and
their Application", 1997, section 3.8. Seeds are drawn with replacement, then pictures with replacement within each
drawn seed; the number of one resample is the mean over its seeds.

A statistic is a function of how often each picture was drawn, not of drawn copies of pictures: a metric precomputes
what it needs of every picture once (a PSNR, a confusion matrix, a row of a kernel), and a thousand resamples are a
product of matrices.

What the intervals cannot do: with 2 or 3 seeds, drawing seeds from seeds shows too little of their spread (by a factor
of (S - 1) / S in the variance), so that an interval over few seeds is too narrow: where seeds differ much more than the
means of 20 pictures do, 95 % intervals held the true mean in 72 % of 500 simulations with 2 seeds, 80 % with 3, 87 %
with 5 and 94 % with 12. Of fewer than FEWEST pictures there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mggc_edge.errors import InputError
from mggc_edge.tensors import Array

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int32]
RESAMPLES = 2000
# Of fewer values, not even the range from the smallest to the largest holds the median in 95 % of samples.
FEWEST = 6
LOW_HIGH = (2.5, 97.5)  # percentiles of a 95 % interval


@dataclass(frozen=True)
class Resamples:
    """How often everything was drawn, one row a resample.

    Attributes:
        pictures: [R, N], each row adds up to N.
        reals: [R, M], of the pictures that all methods are compared with; M = 0 where there are none, or where they
            belong to the pictures one by one.
    """

    pictures: Counts
    reals: Counts

    def rows(self, chosen: npt.NDArray[np.bool_]) -> Resamples:
        """Return some of the resamples."""
        return Resamples(self.pictures[chosen], self.reals[chosen])


Statistic = Callable[[Resamples], Floats]  # -> [R]


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; None for the interval where there are too few pictures, and for what is not."""

    value: float | None
    ci95: tuple[float, float] | None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with the attributes as keys."""
        return {"value": self.value, "ci95": None if self.ci95 is None else list(self.ci95)}


def bootstrap(
    statistics: Sequence[Statistic],
    pictures: int,
    *,
    minus: Sequence[Statistic] | None = None,
    reals: int = 0,
    resamples: int = RESAMPLES,
    same_pictures: bool = True,
    seed: int,
) -> Estimate:
    """Return the mean of a statistic over seeds, or a paired difference of two methods, with its interval.

    Args:
        statistics: one for each seed that a method was run with; of a single run, one.
        pictures: how many pictures each was measured on.
        minus: the other method's, measured on the same pictures with as many seeds: the estimate is of
            mean(statistics) - mean(minus), with the same seeds and pictures drawn for both.
        reals: how many pictures both are compared with, where those are drawn as well.
        same_pictures: whether all seeds were measured on the same pictures, in one order, which is how a study does
            it. A resample then draws pictures once for all of its seeds: what a picture does is not averaged away by
            measuring it with more seeds. False: each drawn seed draws its own.
        seed: of the draws.

    Raises:
        InputError: there is no seed, or the methods have not as many.
    """
    methods = [statistics] if minus is None else [statistics, minus]
    return _estimates(methods, pictures, reals, resamples, same_pictures, seed)[-1]


def bootstrap_both(
    statistics: Sequence[Statistic],
    others: Sequence[Statistic],
    pictures: int,
    *,
    reals: int = 0,
    resamples: int = RESAMPLES,
    seed: int,
) -> tuple[Estimate, Estimate, Estimate]:
    """Return the estimates of two methods and of the first less the second, each drawn and computed once.

    Arguments and errors as in `bootstrap`.
    """
    first, second, difference = _estimates([statistics, others], pictures, reals, resamples, True, seed)
    return first, second, difference


def _estimates(
    methods: Sequence[Sequence[Statistic]], pictures: int, reals: int, resamples: int, same_pictures: bool, seed: int
) -> list[Estimate]:
    """Return the estimate of every method, and of the first less the second where there are two."""
    count = len(methods[0])
    if count < 1:
        raise InputError("there is no seed to draw from")
    if len(methods[-1]) != count:
        raise InputError(f"a paired difference needs as many seeds of both, not {count} and {len(methods[-1])}")
    whole = Resamples(np.ones((1, pictures), np.int32), np.ones((1, reals), np.int32))
    values = [float(np.mean([statistic(whole)[0] for statistic in method])) for method in methods]
    drawn = None
    if pictures >= FEWEST:
        drawn = [total / count for total in _resampled(methods, pictures, reals, resamples, same_pictures, seed)]
    if len(methods) == 2:
        values.append(values[0] - values[1])
        if drawn is not None:
            drawn.append(drawn[0] - drawn[1])
    return [
        Estimate(None, None)
        if not np.isfinite(value)
        else Estimate(value, None if drawn is None else percentile_interval(drawn[number]))
        for number, value in enumerate(values)
    ]


def _resampled(
    methods: Sequence[Sequence[Statistic]], pictures: int, reals: int, resamples: int, same_pictures: bool, seed: int
) -> list[Floats]:
    """Return the sum over the drawn seeds of every method's statistic, [R] each."""
    count, random = len(methods[0]), np.random.default_rng(seed)
    drawn = random.integers(count, size=(resamples, count)) if count > 1 else np.zeros((resamples, 1), np.int64)
    real_counts = draw_counts(reals, resamples, random)
    shared = draw_counts(pictures, resamples, random)
    totals = [np.zeros(resamples) for _ in methods]
    for place in range(count):
        own = shared if same_pictures or place == 0 else draw_counts(pictures, resamples, random)
        draws = Resamples(own, real_counts)
        for number in range(count):
            chosen = drawn[:, place] == number
            if chosen.any():
                some = draws.rows(chosen)
                for total, method in zip(totals, methods, strict=True):
                    total[chosen] += method[number](some)
    return totals


def draw_counts(items: int, resamples: int, random: np.random.Generator) -> Counts:
    """Return how often each of n items comes in n draws with replacement, int32 [resamples, n]."""
    if items == 0:
        return np.zeros((resamples, 0), np.int32)
    return random.multinomial(items, np.full(items, 1 / items), size=resamples).astype(np.int32)


def percentile_interval(values: Floats) -> tuple[float, float] | None:
    """Return the 2.5th and 97.5th percentile of the finite values; None where fewer than half are finite."""
    finite = values[np.isfinite(values)]
    if 2 * len(finite) < len(values) or not len(finite):
        return None
    low, high = np.percentile(finite, LOW_HIGH)
    return float(low), float(high)


def mean_of(values: Array) -> Statistic:
    """Return the mean of one value a picture, [N]; pictures whose value is NaN have none and are left out.

    A resample that draws no picture with a value gives NaN.
    """
    known = np.isfinite(values)
    numbers = np.where(known, values, 0.0).astype(np.float64)

    def statistic(draws: Resamples) -> Floats:
        counts = draws.pictures.astype(np.float64)
        weight = counts @ known
        mean: Floats = np.divide(counts @ numbers, weight, out=np.full(len(counts), np.nan), where=weight > 0)
        return mean

    return statistic


def mean_interval(values: Sequence[float], seed: int) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean of finite values; None for fewer than FEWEST."""
    if len(values) < FEWEST:
        return None
    array = np.asarray(values, np.float64)
    return bootstrap([mean_of(array)], len(array), seed=seed).ci95

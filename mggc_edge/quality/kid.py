"""Kernel inception distance: how far two sets of feature vectors are apart, without bias."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mggc_edge.errors import InputError, SettingError
from mggc_edge.quality.bootstrap import Counts, Floats, Resamples, Statistic
from mggc_edge.tensors import Array

DEFAULT_SUBSET = 1000  # vectors; Binkowski et al. 2018
_CHUNK = 1024  # rows of a kernel in memory at a time


@dataclass(frozen=True)
class Kid:
    """A kernel distance between two sets of features, and how it spreads.

    Attributes:
        value: mean over the subsets. Unbiased, so it may be below zero for sets that are alike.
        std: standard deviation over the subsets; None where there is only one.
        subsets: pairs of subsets that were drawn; 1 where a subset is all of both sets.
        subset_size: vectors in each.
    """

    value: float
    std: float | None
    subsets: int
    subset_size: int

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with the attributes as keys."""
        return asdict(self)


def kid(real: Array, fake: Array, *, subsets: int = 100, subset_size: int | None = None, seed: int) -> Kid:
    """Return the squared maximum mean discrepancy of two sets of features with the kernel (x.y / d + 1)^3.

    Binkowski et al., "Demystifying MMD GANs", 2018, eq. 4 (the unbiased estimator) over random subsets without
    replacement. Computed in float64.

    Args:
        real, fake: [n, d] and [m, d], one row a picture.
        subsets: how many pairs of subsets are drawn.
        subset_size: rows in each, from 2 to the smaller of n and m; None: the smaller of these, at most 1000.
        seed: of the subsets.

    Raises:
        InputError: a set has fewer than two rows, values that are not finite, or another width than the other.
        SettingError: `subsets` or `subset_size` is impossible.
    """
    x, y = feature_sets(real, fake)
    smaller = min(len(x), len(y))
    size = min(DEFAULT_SUBSET, smaller) if subset_size is None else subset_size
    if not 2 <= size <= smaller:
        raise SettingError(f"a subset of {size} features is impossible", f"from 2 to {smaller}, the smaller set")
    if subsets < 1:
        raise SettingError(f"{subsets} subsets are impossible", "at least 1")
    if size == len(x) == len(y):
        return Kid(_mmd2(x, y), None, 1, size)
    random = np.random.default_rng(seed)
    values = [
        _mmd2(x[random.choice(len(x), size, replace=False)], y[random.choice(len(y), size, replace=False)])
        for _ in range(subsets)
    ]
    std = float(np.std(values, ddof=1)) if subsets > 1 else None
    return Kid(float(np.mean(values)), std, subsets, size)


def kid_statistic(real: Array, fake: Array, *, pairs: bool = False) -> Statistic:
    """Return the kernel distance of resampled pictures, for `bootstrap`.

    Two draws of one picture are no two pictures: a kernel of a picture with itself would make every resample's distance
    larger than it is. So only pairs of different pictures count, by the product of how often each was drawn:
    sum_{i != j} w_i w_j k(x_i, x_j) / sum_{i != j} w_i w_j. With every picture drawn once it is eq. 4 over both sets.

    Args:
        real, fake: as in `kid`.
        pairs: whether real and fake belong together row by row, and are drawn together.

    Raises:
        InputError: as `kid`, or `pairs` are not as many.
    """
    x, y = feature_sets(real, fake)
    if pairs and len(x) != len(y):
        raise InputError(f"{len(x)} real and {len(y)} fake pictures are no pairs")

    def statistic(draws: Resamples) -> Floats:
        fakes, reals = draws.pictures, draws.pictures if pairs else draws.reals
        v, w = fakes.astype(np.float64), reals.astype(np.float64)
        cross = np.zeros(len(v))
        for start in range(0, len(x), _CHUNK):
            part = slice(start, start + _CHUNK)
            cross += ((w[:, part] @ _kernel(x[part], y)) * v).sum(axis=1)
        cross /= w.sum(axis=1) * v.sum(axis=1)
        return _within(x, reals) + _within(y, fakes) - 2 * cross

    return statistic


def _within(x: Floats, counts: Counts) -> Floats:
    """Return the mean kernel of two different drawn pictures of one set, [R]; NaN where only one was drawn."""
    w = counts.astype(np.float64)
    total = np.zeros(len(w))
    for start in range(0, len(x), _CHUNK):
        part = slice(start, start + _CHUNK)
        total += ((w[:, part] @ _kernel(x[part], x)) * w).sum(axis=1)
    diagonal = (np.square(x).sum(axis=1) / x.shape[1] + 1) ** 3
    squares = np.square(w)
    pairs = w.sum(axis=1) ** 2 - squares.sum(axis=1)
    mean: Floats = np.divide(total - squares @ diagonal, pairs, out=np.full(len(w), np.nan), where=pairs > 0)
    return mean


def feature_sets(real: Array, fake: Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return two sets of features in float64.

    Raises:
        InputError: one is not [n, d] with n >= 2 and d >= 1, has values that are not finite, or they differ in d.
    """
    for name, features in (("real", real), ("fake", fake)):
        if features.ndim != 2 or features.shape[1] < 1:
            raise InputError(f"the {name} features have the shape {list(features.shape)}, not [pictures, features]")
        if len(features) < 2:
            raise InputError(f"{len(features)} {name} picture(s) are no distribution", hint="at least 2 are needed")
        if not np.isfinite(features).all():
            raise InputError(f"the {name} features hold values that are not finite")
    if real.shape[1] != fake.shape[1]:
        raise InputError(f"the real pictures have {real.shape[1]} features, the fake ones {fake.shape[1]}")
    return real.astype(np.float64), fake.astype(np.float64)


def _mmd2(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    """Unbiased estimate for two sets of n >= 2 rows each: a vector's kernel with itself is left out."""
    n = len(x)
    within = sum((kernel.sum() - np.trace(kernel)) / (n * (n - 1)) for kernel in (_kernel(x, x), _kernel(y, y)))
    return float(within - 2 * _kernel(x, y).mean())


def _kernel(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    value: npt.NDArray[np.float64] = x @ y.T / x.shape[1] + 1
    return value * value * value  # far faster than a power

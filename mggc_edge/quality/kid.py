"""Kernel inception distance: how far two sets of feature vectors are apart, without bias."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mggc_edge.errors import InputError, SettingError
from mggc_edge.tensors import Array

DEFAULT_SUBSET = 1000  # vectors; Binkowski et al. 2018


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

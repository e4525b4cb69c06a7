"""From values per seed and picture to a mean with its interval; and KID as such values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mggc_edge.errors import InputError
from mggc_edge.quality.kid import feature_sets
from mggc_edge.tensors import Array

Values = npt.NDArray[np.float64]
DRAWS, LEVEL = 4000, 0.95
BLOCK = 100  # draws at a time: memory is 16 * 100 * seeds * pictures bytes
NEIGHBORS = 5  # of a picture, in the share of neighbors that agree


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and pictures with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves out zero on that side, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def estimate(values: Values, *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Return the mean of [seeds, pictures] values with its hierarchical percentile bootstrap interval.

    A draw takes as many seeds as there are, with replacement, and within each of them as many pictures, with
    replacement, anew for every seed drawn. With one seed the interval says nothing about other seeds.

    Raises:
        InputError: `values` is empty, not two-dimensional, or not finite.
    """
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise InputError("a bootstrap needs finite values, [seeds, pictures]")
    random = np.random.default_rng(seed)
    seeds, pictures = values.shape
    means = []
    for first in range(0, draws, BLOCK):
        block = min(BLOCK, draws - first)
        chosen = random.integers(seeds, size=(block, seeds, 1))
        means.append(values[chosen, random.integers(pictures, size=(block, seeds, pictures))].mean(axis=(1, 2)))
    low, high = np.percentile(np.concatenate(means), (50 * (1 - LEVEL), 50 * (1 + LEVEL)))
    return Estimate(float(values.mean()), float(low), float(high))


def kid_values(real: Array, fake: Array, *, paired: bool) -> Values:
    """Return one value for every generated picture, whose mean is the KID and whose spread is the KID's.

    With theta the unbiased estimate over all pictures (Binkowski et al. 2018, eq. 4; kernel (x.y / d + 1)^3) and
    theta_i the same without picture i, the value of picture i is theta + p_i - mean(p), with the jackknife's
    p_i = n theta - (n - 1) theta_i. So KID is a mean over pictures like every other measure here, takes part in the
    same bootstrap, and needs n numbers a run where features would be n * d.

    Args:
        real, fake: features, [m, d] and [n, d] with n >= 3.
        paired: picture i of both belongs together (the truth of a test picture), and they are left out together;
            else the real pictures are taken as given.

    Returns:
        [n].

    Raises:
        InputError: there are too few pictures, or see `feature_sets`.
    """
    x, y = feature_sets(real, fake)
    m, n = len(x), len(y)
    if n < 3 or (paired and m != n):
        raise InputError(f"{n} generated and {m} real pictures are too few, or no pairs")
    within_x, within_y, between = _kernel(x, x), _kernel(y, y), _kernel(y, x)
    np.fill_diagonal(within_x, 0)
    np.fill_diagonal(within_y, 0)
    sum_x, sum_y, sum_b = within_x.sum(), within_y.sum(), between.sum()
    theta = sum_y / (n * (n - 1)) + sum_x / (m * (m - 1)) - 2 * sum_b / (n * m)
    without = (sum_y - 2 * within_y.sum(axis=1)) / ((n - 1) * (n - 2))
    if paired:
        without += (sum_x - 2 * within_x.sum(axis=1)) / ((n - 1) * (n - 2))
        crossing = between.sum(axis=1) + between.sum(axis=0) - between.diagonal()
        without -= 2 * (sum_b - crossing) / (n - 1) ** 2
    else:
        without += sum_x / (m * (m - 1)) - 2 * (sum_b - between.sum(axis=1)) / ((n - 1) * m)
    pseudo = n * theta - (n - 1) * without
    values: Values = theta + pseudo - pseudo.mean()
    return values


def _kernel(x: Values, y: Values) -> Values:
    value: Values = x @ y.T / x.shape[1] + 1
    return value * value * value


def nearest(features: Array, k: int) -> npt.NDArray[np.int64]:
    """Return the k most similar other pictures of every picture by cosine, [n, k], the nearest first.

    Raises:
        InputError: there are not more than k pictures.
    """
    if not 0 < k < len(features):
        raise InputError(f"{len(features)} pictures have no {k} neighbors each")
    vectors = features.astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :k]


def agreement(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> Values:
    """Return the share of every picture's neighbors that are the same in both, [n], for two [n, k]."""
    shared = [len(set(a) & set(b)) / len(a) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    return np.array(shared)

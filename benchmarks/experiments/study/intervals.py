"""From values per seed and picture to a mean with its interval; and KID as such values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mggc_edge.errors import InputError
from mggc_edge.quality.bootstrap import Estimate, bootstrap, mean_of
from mggc_edge.quality.kid import feature_sets
from mggc_edge.tensors import Array

Values = npt.NDArray[np.float64]
DRAWS = 4000
NEIGHBORS = 5  # of a picture, in the share of neighbors that agree


def estimate(values: Values, *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Return the mean of [seeds, pictures] values with its interval, see `bootstrap`; all seeds share the pictures.

    With one seed the interval says nothing about other seeds; of fewer than FEWEST pictures there is none.

    Raises:
        InputError: `values` is empty, not two-dimensional, or not finite.
    """
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise InputError("a bootstrap needs finite values, [seeds, pictures]")
    return bootstrap([mean_of(one) for one in values], values.shape[1], resamples=draws, seed=seed)


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


def agreement(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> Values:
    """Return the share of every picture's neighbors that are the same in both, [n], for two [n, k]."""
    shared = [len(set(a) & set(b)) / len(a) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    return np.array(shared)

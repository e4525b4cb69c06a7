"""Frechet distance: how far apart two sets of feature vectors are as Gaussians.

It is the FID only with the Inception network's features; with others it carries their name.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mggc_edge.errors import InputError
from mggc_edge.quality.kid import feature_sets
from mggc_edge.tensors import Array

PICTURES_PER_FEATURE = 2  # with fewer pictures a covariance says more of the sample than of the distribution


def enough_for_frechet(pictures: int, features: int) -> bool:
    """Whether so many pictures determine the covariance of so many features well enough for a distance."""
    return pictures >= max(2, PICTURES_PER_FEATURE * features)


def frechet_distance(real: Array, fake: Array) -> float:
    """Return |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)), with means m and unbiased covariances S.

    Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", 2017, eq. 6.
    With S = R^T R the last trace is the sum of the singular values of R1 R2^T: no matrix root is taken, so that
    features which hardly vary cost no precision. In float64, never below zero. Biased upwards for few pictures: only
    distances over the same number of pictures compare.

    Args:
        real, fake: [n, d] and [m, d], one row a picture.

    Raises:
        InputError: a set has fewer than twice as many rows as features, or see `feature_sets`.
    """
    x, y = feature_sets(real, fake)
    fewest, width = min(len(x), len(y)), x.shape[1]
    if not enough_for_frechet(fewest, width):
        raise InputError(
            f"{fewest} pictures are too few for a Frechet distance of {width} features",
            hint=f"at least {PICTURES_PER_FEATURE * width} are needed in each set; KID has no such limit",
        )
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    root_x, root_y = _triangular_root(x - mean_x), _triangular_root(y - mean_y)
    shared = np.linalg.svd(root_x @ root_y.T, compute_uv=False).sum()
    spread = np.square(root_x).sum() + np.square(root_y).sum() - 2 * shared  # Tr(S) = |R|^2
    return max(0.0, float(np.square(mean_x - mean_y).sum() + spread))


def _triangular_root(centred: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return R [d, d] with R^T R = X^T X / (n - 1), the covariance: the triangle of X's QR decomposition."""
    triangle: npt.NDArray[np.float64] = np.asarray(np.linalg.qr(centred, mode="r"))
    return triangle / math.sqrt(len(centred) - 1)

"""Frechet distance: how far apart two sets of feature vectors are as Gaussians.

It is the FID only with the Inception network's features; with others it carries their name.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mggc_edge.errors import InputError
from mggc_edge.quality.bootstrap import Floats, Resamples, Statistic
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
    x, y = _enough(real, fake)
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    root_x, root_y = _triangular_root(x - mean_x), _triangular_root(y - mean_y)
    shared: Floats = np.asarray(np.linalg.svd(root_x @ root_y.T, compute_uv=False), np.float64)
    return _distance(mean_x - mean_y, root_x, root_y, shared)


def frechet_statistic(real: Array, fake: Array, *, pairs: bool = False) -> Statistic:
    """Return the Frechet distance of resampled pictures to first order, for `bootstrap`.

    A resample of pictures has copies in it, and a covariance of fewer different pictures is further off: the distance
    of a resample is larger than the distance, by about the bias that it has already. So a resample moves the distance
    by its derivatives (the infinitesimal jackknife), which has no such bias and takes one decomposition for all
    resamples: the one by m2 is 2 (m2 - m1), the one by S2 is I - T, where T = R1^T U D^-1 U^T R1 is the optimal
    transport from S2 to S1 and U D V^T = R1 R2^T. The interval is of the distance at this number of
    pictures: it does not hold the bias of few.

    Args:
        real, fake: as in `frechet_distance`.
        pairs: whether they belong together row by row, and are drawn together.

    Raises:
        InputError: as `frechet_distance`, or `pairs` are not as many.
    """
    x, y = _enough(real, fake)
    if pairs and len(x) != len(y):
        raise InputError(f"{len(x)} real and {len(y)} fake pictures are no pairs")
    shift = x.mean(axis=0) - y.mean(axis=0)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    root_x, root_y = _triangular_root(x), _triangular_root(y)
    u, d, vt = np.linalg.svd(root_x @ root_y.T)
    value = _distance(shift, root_x, root_y, d)
    moves_x, moves_y = _moves(x, shift, root_y.T @ vt.T, d), _moves(y, -shift, root_x.T @ u, d)

    def statistic(draws: Resamples) -> Floats:
        reals = draws.pictures if pairs else draws.reals
        moved: Floats = value + draws.pictures @ moves_y / len(y) + reals @ moves_x / len(x)
        return moved

    return statistic


def _moves(centred: Floats, shift: Floats, rotated: Floats, d: Floats) -> Floats:
    """Return how much more of each picture moves the distance, [n], adding up to zero."""
    kept = d > len(d) * np.finfo(np.float64).eps * d[0]  # where neither set varies, nothing is transported
    transported = np.square(centred @ rotated[:, kept]) @ (1 / d[kept])
    moves: Floats = 2 * centred @ shift + np.square(centred).sum(axis=1) - transported
    moves -= moves.mean()
    return moves


def _enough(real: Array, fake: Array) -> tuple[Floats, Floats]:
    x, y = feature_sets(real, fake)
    fewest, width = min(len(x), len(y)), x.shape[1]
    if not enough_for_frechet(fewest, width):
        raise InputError(
            f"{fewest} pictures are too few for a Frechet distance of {width} features",
            hint=f"at least {PICTURES_PER_FEATURE * width} are needed in each set; KID has no such limit",
        )
    return x, y


def _distance(shift: Floats, root_x: Floats, root_y: Floats, shared: Floats) -> float:
    spread = np.square(root_x).sum() + np.square(root_y).sum() - 2 * shared.sum()  # Tr(S) = |R|^2
    return max(0.0, float(np.square(shift).sum() + spread))


def _triangular_root(centred: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return R [d, d] with R^T R = X^T X / (n - 1), the covariance: the triangle of X's QR decomposition."""
    triangle: npt.NDArray[np.float64] = np.asarray(np.linalg.qr(centred, mode="r"))
    return triangle / math.sqrt(len(centred) - 1)

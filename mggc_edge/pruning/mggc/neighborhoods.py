"""Local neighborhoods of generated pictures (eq. 1): the k others whose embeddings point in the most similar direction.

    N_i = the k numbers j != i with the largest  e_i . e_j / (|e_i| |e_j|)

The discriminator's real picture for centre i is drawn from {i} and N_i, so that pruning sees the density of the
original's outputs around a picture, not only the picture itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mggc_edge.errors import SettingError, TrainingError

_UNIT = 2.0**-24  # rounding of a float32
_SPARE = 16  # candidates beyond 2 k
_PAIRS = 2**22  # numbers of embeddings that are held in float64 at a time, for either side of a product


def neighborhoods(embeddings: Tensor, k: int, *, chunk: int = 512) -> Tensor:
    """Return the k nearest other pictures of every picture, the nearest first.

    Exact. All n^2 cosines are computed in float32, `chunk` rows at a time; those whose rounding leaves open whether
    they belong to the k largest are computed again in float64. What is compared are float64 cosines rounded to
    float32, so that equal pictures tie whatever the chunks are; of a tie the lower number comes first.

    Args:
        embeddings: [n, d], of any length.
        k: how many; 0 leaves every picture alone.
        chunk: rows at a time; memory beside the embeddings is 4 n d + 4 chunk n bytes, of crowded pictures 16 chunk n.

    Returns:
        int64 [n, k].

    Raises:
        SettingError: there are no k other pictures.
        TrainingError: an embedding is not a number.
    """
    count = len(embeddings)
    if not 0 <= k < max(count, 1):
        raise SettingError(
            f"{count} pictures have neighborhoods of 0 to {max(count - 1, 0)} others, not of k = {k}",
            hint="give more pictures, or ask for fewer neighbors",
        )
    if k == 0:
        return torch.empty(count, 0, dtype=torch.long)
    embeddings = embeddings.detach()
    unit = torch.empty(embeddings.shape, dtype=torch.float32, device=embeddings.device)
    for start in range(0, count, chunk):
        rows = embeddings[start : start + chunk]
        if not bool(torch.isfinite(rows).all()):
            raise TrainingError("an embedding of the encoder is not a number", "lower the encoder's learning rate")
        unit[start : start + chunk] = _units(rows)
    # A sum of d products of unit vectors is off by at most d roundings, the vectors themselves by one each; both of
    # two cosines that are compared, and the rounding of what is compared in the end.
    slack = 2 * (embeddings.shape[1] + 8) * _UNIT
    found = []
    for start in range(0, count, chunk):
        cosines = unit[start : start + chunk] @ unit.T
        rows = torch.arange(len(cosines), device=cosines.device)
        cosines[rows, start + rows] = -torch.inf
        found.append(_nearest(embeddings, start + rows, cosines, k, slack))
    return torch.cat(found).cpu()


def _units(rows: Tensor) -> Tensor:
    return F.normalize(rows.double(), dim=1)


def _nearest(embeddings: Tensor, rows: Tensor, cosines: Tensor, k: int, slack: float) -> Tensor:
    """Return the k nearest of some rows, [rows, k]; `cosines` [rows, n] are off by less than half of `slack`."""
    width = min(2 * k + _SPARE, len(embeddings) - 1)
    values, places = cosines.topk(width, dim=1)
    open_ = values >= values[:, k - 1 : k] - slack
    exact = torch.full(values.shape, -torch.inf, device=values.device)
    at = open_.nonzero()
    step = max(1, _PAIRS // embeddings.shape[1])
    for first in range(0, len(at), step):
        row, column = at[first : first + step].unbind(1)
        pair = _units(embeddings[rows[row]]) * _units(embeddings[places[row, column]])
        exact[row, column] = pair.sum(dim=1).float()
    best = places.gather(1, _order(exact, places))[:, :k]
    crowded = open_[:, -1].nonzero()[:, 0]
    if width < len(embeddings) - 1 and len(crowded):  # more are open than were looked at
        best[crowded] = _of_all(embeddings, rows[crowded], k)
    return best


def _of_all(embeddings: Tensor, rows: Tensor, k: int) -> Tensor:
    """Return the k nearest of some rows, [rows, k], with all cosines in float64."""
    centers, step = _units(embeddings[rows]), max(1, _PAIRS // embeddings.shape[1])
    cosines = torch.cat([(centers @ _units(piece).T).float() for piece in torch.split(embeddings, step)], dim=1)
    cosines[torch.arange(len(rows), device=rows.device), rows] = -torch.inf
    return cosines.sort(dim=1, descending=True, stable=True).indices[:, :k]


def _order(values: Tensor, places: Tensor) -> Tensor:
    """Return the columns of every row by falling value, and of equal values by rising place."""
    by_place = places.argsort(dim=1)
    by_value = values.gather(1, by_place).argsort(dim=1, descending=True, stable=True)
    return by_place.gather(1, by_value)


def draw_neighbors(neighbors: Tensor, centers: Sequence[int], draws: Iterable[np.random.Generator]) -> list[int]:
    """Return for every centre one picture of its neighborhood, itself included: each with probability 1 / (k + 1).

    `neighbors` is [n, k] as from `neighborhoods`; `draws` are the random numbers of every centre.
    """
    chosen = [int(rng.integers(neighbors.shape[1] + 1)) for rng in draws]
    return [
        center if draw == 0 else int(neighbors[center, draw - 1]) for center, draw in zip(centers, chosen, strict=True)
    ]

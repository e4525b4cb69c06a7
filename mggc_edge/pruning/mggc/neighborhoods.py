"""Local neighborhoods of generated pictures (eq. 1): the k others whose embeddings point in the most similar direction.

    N_i = the k numbers j != i with the largest  e_i . e_j / (|e_i| |e_j|)

The discriminator's real picture for centre i is drawn from {i} and N_i, so that pruning sees the density of the
original's outputs around a picture, not only the picture itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mggc_edge.errors import SettingError, TrainingError


def neighborhoods(embeddings: Tensor, k: int, *, chunk: int = 1024) -> Tensor:
    """Return the k nearest other pictures of every picture, the nearest first.

    Exact: all n^2 cosines, `chunk` rows at a time. They are computed in float64 and compared in float32, so that equal
    pictures tie whatever the chunks are; of a tie the lower number comes first.

    Args:
        embeddings: [n, d], of any length.
        k: how many; 0 leaves every picture alone.
        chunk: rows at a time; memory is 12 * chunk * n bytes.

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
    if not bool(torch.isfinite(embeddings).all()):
        raise TrainingError("an embedding of the encoder is not a number", "lower the encoder's learning rate")
    if k == 0:
        return torch.empty(count, 0, dtype=torch.long)
    unit = F.normalize(embeddings.detach().double(), dim=1)
    found = []
    for start in range(0, count, chunk):
        cosines = (unit[start : start + chunk] @ unit.T).float()
        rows = torch.arange(len(cosines), device=cosines.device)
        cosines[rows, start + rows] = -torch.inf
        found.append(_largest(cosines, k))
    return torch.cat(found).cpu()


def _largest(values: Tensor, k: int) -> Tensor:
    """Return the places of the k largest values of every row, by falling value and then by rising place."""
    largest, places = values.topk(k, dim=1)
    # topk takes any of those that tie for the last place: such rows are sorted.
    tied = (values >= largest[:, -1:]).sum(dim=1) > k
    if bool(tied.any()):
        places[tied] = values[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    places = places.sort(dim=1).values
    order = values.gather(1, places).sort(dim=1, descending=True, stable=True).indices
    return places.gather(1, order)


def draw_neighbors(neighbors: Tensor, centers: Sequence[int]) -> list[int]:
    """Return for every centre one picture of its neighborhood, itself included: each with probability 1 / (k + 1).

    `neighbors` is [n, k] as from `neighborhoods`. Draws from torch's global generator.
    """
    draws = torch.randint(0, neighbors.shape[1] + 1, (len(centers),)).tolist()
    return [
        center if draw == 0 else int(neighbors[center, draw - 1]) for center, draw in zip(centers, draws, strict=True)
    ]

"""Neighborhoods are the exact k most similar others, whatever the chunks, and draws from them are uniform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mggc_edge.errors import SettingError, TrainingError
from mggc_edge.pruning.mggc.neighborhoods import draw_neighbors, neighborhoods


def some_embeddings(count: int = 60, size: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def by_hand(embeddings: Tensor, k: int) -> list[list[int]]:
    """Pair by pair."""
    e = embeddings.double().numpy()
    found = []
    for i in range(len(e)):
        cosines = {
            j: float(np.float32(e[i] @ e[j] / np.linalg.norm(e[i]) / np.linalg.norm(e[j])))
            for j in range(len(e))
            if j != i
        }
        found.append(sorted(cosines, key=lambda j: (-cosines[j], j))[:k])
    return found


@pytest.mark.parametrize("k", [1, 5, 59])
@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_the_k_most_similar_others_are_found_nearest_first(k: int, chunk: int) -> None:
    embeddings = some_embeddings() * torch.rand(60, 1, generator=torch.Generator().manual_seed(1))
    assert neighborhoods(embeddings, k, chunk=chunk).tolist() == by_hand(embeddings, k)


def test_the_opposite_direction_is_far() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [-1.0, 0.01], [0.0, 1.0]])
    assert neighborhoods(embeddings, 2)[0].tolist() == [2, 1]


def test_no_picture_is_its_own_neighbor_even_among_equal_ones() -> None:
    found = neighborhoods(torch.ones(6, 4), 3)
    assert found.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize("chunk", [1, 3, 1024])
def test_of_a_tie_the_lower_number_comes_first(chunk: int) -> None:
    a, b = some_embeddings(2, 16)
    embeddings = torch.stack([a, b, a * 3, b, a, b * 0.5, a])
    found = neighborhoods(embeddings, 2, chunk=chunk)
    assert found[:4].tolist() == [[2, 4], [3, 5], [0, 4], [1, 5]]


def test_none_may_be_asked_for() -> None:
    assert tuple(neighborhoods(some_embeddings(), 0).shape) == (60, 0)
    assert tuple(neighborhoods(some_embeddings(1), 0).shape) == (1, 0)


@pytest.mark.parametrize(("count", "k"), [(5, 5), (1, 1), (5, -1)])
def test_more_neighbors_than_there_are_pictures_is_an_error(count: int, k: int) -> None:
    with pytest.raises(SettingError) as caught:
        neighborhoods(some_embeddings(count), k)
    assert str(caught.value) == (
        f"{count} pictures have neighborhoods of 0 to {count - 1} others, not of k = {k} "
        "(give more pictures, or ask for fewer neighbors)"
    )


def test_an_embedding_that_is_no_number_is_an_error() -> None:
    embeddings = some_embeddings()
    embeddings[3, 2] = torch.nan
    with pytest.raises(TrainingError, match="an embedding of the encoder is not a number"):
        neighborhoods(embeddings, 2)


def test_draws_are_uniform_over_the_centre_and_its_neighbors() -> None:
    neighbors = torch.tensor([[3, 1], [0, 2], [1, 3], [2, 0]])
    torch.manual_seed(0)
    drawn = draw_neighbors(neighbors, [1] * 3000)
    assert sorted(set(drawn)) == [0, 1, 2]
    for number in (0, 1, 2):
        assert drawn.count(number) == pytest.approx(1000, abs=110)  # 4 standard deviations of 25.8


def test_without_neighbors_the_centre_is_drawn() -> None:
    assert draw_neighbors(torch.empty(4, 0, dtype=torch.long), [2, 0, 3]) == [2, 0, 3]

"""Neighborhoods are the exact k most similar others, whatever the chunks, and draws from them are uniform."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from mggc_edge.errors import SettingError, TrainingError
from mggc_edge.pruning.mggc.neighborhoods import draw_neighbors, neighborhoods
from mggc_edge.training.order import Share


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


@pytest.mark.parametrize("chunk", [5, 1024])
def test_among_crowded_embeddings_differences_below_float32_sums_are_told_apart(chunk: int) -> None:
    """60 directions within 1e-3 of each other: more than are looked at twice, so that all are computed in float64."""
    embeddings = torch.ones(60, 8, dtype=torch.float64) + some_embeddings().double() * 1e-4
    assert neighborhoods(embeddings, 3, chunk=chunk).tolist() == by_hand(embeddings, 3)


def test_a_few_equal_pictures_among_many_are_each_others_neighbors() -> None:
    embeddings = some_embeddings(200)
    embeddings[100:140] = embeddings[7]
    found = neighborhoods(embeddings, 5)
    assert found[7].tolist() == [100, 101, 102, 103, 104]
    assert found[139].tolist() == [7, 100, 101, 102, 103]
    assert found.tolist() == by_hand(embeddings, 5)


LIMITED = """
import resource, sys, torch
from mggc_edge.pruning.mggc.neighborhoods import neighborhoods

torch.set_num_threads(1)
count, size = map(int, sys.argv[1:])
generator = torch.Generator().manual_seed(0)
embeddings = torch.nn.functional.normalize(torch.randn(count, size, generator=generator), dim=1)
neighborhoods(embeddings[:64], 5)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = neighborhoods(embeddings, 5)
rows = torch.arange(0, count, count // 7)
cosines = embeddings[rows].double() @ embeddings.double().T
cosines[torch.arange(len(rows)), rows] = -2
assert torch.equal(found[rows], cosines.topk(5).indices)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_grows_with_the_number_of_pictures_and_not_with_its_square() -> None:
    """6,000 x 6,000 cosines would be 144 MB in float32, and 288 MB in float64."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "6000", "64"], capture_output=True, text=True, check=True, timeout=120
    )
    assert int(done.stdout) < 90_000  # kB


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
    drawn = draw_neighbors(neighbors, [1] * 3000, Share(3000).draws(0, "prune/neighbors", 0))
    assert sorted(set(drawn)) == [0, 1, 2]
    for number in (0, 1, 2):
        assert drawn.count(number) == pytest.approx(1000, abs=110)  # 4 standard deviations of 25.8


def test_without_neighbors_the_centre_is_drawn() -> None:
    draws = Share(3).draws(0, "prune/neighbors", 0)
    assert draw_neighbors(torch.empty(4, 0, dtype=torch.long), [2, 0, 3], draws) == [2, 0, 3]

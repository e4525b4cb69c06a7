"""The Frechet distance is its closed form where there is one, and refuses too few pictures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from mggc_edge.errors import InputError
from mggc_edge.quality.frechet import enough_for_frechet, frechet_distance

Floats = npt.NDArray[np.float64]


def white(n: int, d: int, seed: int) -> Floats:
    """Rows whose mean is exactly 0 and whose unbiased covariance is exactly the identity."""
    rows = np.random.default_rng(seed).normal(size=(n, d))
    basis, _ = np.linalg.qr(rows - rows.mean(axis=0))
    return np.asarray(basis * np.sqrt(n - 1))


def root(matrix: Floats) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T)


def by_eigenvalues(x: Floats, y: Floats) -> float:
    """The same distance from matrix roots: Tr((S1 S2)^(1/2)) = Tr((S1^(1/2) S2 S1^(1/2))^(1/2))."""
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    shift = x.mean(axis=0) - y.mean(axis=0)
    return float(shift @ shift + np.trace(s) + np.trace(t) - 2 * np.trace(root(root(s) @ t @ root(s))))


def test_of_shifted_sets_it_is_the_squared_shift() -> None:
    rows = white(40, 5, 0)
    assert frechet_distance(rows, rows + np.array([3.0, 0, 0, -4, 0])) == pytest.approx(25, rel=1e-12)


def test_of_diagonal_covariances_it_is_the_squared_distance_of_the_deviations() -> None:
    a, b = np.array([1.0, 2, 0.5, 7]), np.array([2.0, 2, 3, 1])
    distance = frechet_distance(white(30, 4, 0) * a, white(50, 4, 1) * b + 1)
    assert distance == pytest.approx(4 + 1 + 0 + 6.25 + 36, rel=1e-12)


def test_of_one_feature_it_is_the_distance_of_means_and_deviations() -> None:
    # Means 1 and 10; unbiased variances 2 and 50.
    real, fake = np.array([[0.0], [2.0]]), np.array([[5.0], [15.0]])
    assert frechet_distance(real, fake) == pytest.approx(81 + 2 + 50 - 2 * 10, rel=1e-12)


def test_of_commuting_covariances_a_rotation_changes_nothing() -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    real, fake = white(20, 3, 0) * [1, 2, 3], white(20, 3, 1) * [4, 2, 1]
    assert frechet_distance(real @ turn, fake @ turn) == pytest.approx(9 + 0 + 4, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_of_any_covariances_it_equals_the_formula_with_matrix_roots(seed: int) -> None:
    random = np.random.default_rng(seed)
    real = random.normal(size=(60, 6)) @ random.normal(size=(6, 6)) + random.normal(size=6)
    fake = random.normal(size=(45, 6)) @ random.normal(size=(6, 6))
    assert frechet_distance(real, fake) == pytest.approx(by_eigenvalues(real, fake), rel=1e-9)


def test_it_is_symmetric() -> None:
    random = np.random.default_rng(0)
    real, fake = random.normal(size=(30, 8)) @ random.normal(size=(8, 8)), random.normal(size=(40, 8))
    assert frechet_distance(real, fake) == pytest.approx(frechet_distance(fake, real), rel=1e-12)


def test_equal_sets_in_any_order_have_no_distance() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 10)) * 30 + 5
    assert 0 <= frechet_distance(rows, rows[::-1]) < 1e-9


def test_features_that_never_vary_cost_no_precision() -> None:
    rows = white(30, 6, 0)
    rows[:, 3:] = 0
    # Roots of covariances would be wrong by the root of the rounding, some 1e-8.
    assert 0 <= frechet_distance(rows, rows.copy()) < 1e-13
    assert frechet_distance(rows, 2 * rows) == pytest.approx(3, rel=1e-12)


def test_single_precision_features_are_computed_in_double() -> None:
    rows = (white(30, 4, 0) + 1e4).astype(np.float32)
    moved = rows.astype(np.float64) + np.array([0.25, 0, 0, 0])  # exact in both
    assert frechet_distance(rows, moved.astype(np.float32)) == pytest.approx(0.0625, rel=1e-9)


@pytest.mark.parametrize(
    ("pictures", "features", "enough"),
    [(2, 1, True), (1, 1, False), (1024, 512, True), (1023, 512, False), (300, 512, False), (4, 2, True)],
)
def test_twice_as_many_pictures_as_features_are_enough(pictures: int, features: int, enough: bool) -> None:
    assert enough_for_frechet(pictures, features) is enough


@pytest.mark.parametrize("sizes", [(9, 20), (20, 9), (9, 9)])
def test_too_few_pictures_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(InputError) as caught:
        frechet_distance(white(sizes[0], 5, 0), white(sizes[1], 5, 1))
    assert str(caught.value) == (
        "9 pictures are too few for a Frechet distance of 5 features "
        "(at least 10 are needed in each set; KID has no such limit)"
    )
    assert frechet_distance(white(10, 5, 0), white(10, 5, 1)) == pytest.approx(0, abs=1e-12)


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        frechet_distance(np.full((10, 2), np.nan), np.zeros((10, 2)))


def test_sets_of_different_features_are_refused() -> None:
    with pytest.raises(InputError, match=r"^the real pictures have 2 features, the fake ones 3$"):
        frechet_distance(np.zeros((10, 2)), np.zeros((10, 3)))

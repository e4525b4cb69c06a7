"""The kernel distance is the formula of its paper, without bias, and refuses what has no distance."""

from __future__ import annotations

import json
import math

import numpy as np
import numpy.typing as npt
import pytest

from mggc_edge.errors import InputError, SettingError
from mggc_edge.quality.kid import Kid, kid


def normal(n: int, d: int, seed: int, mean: float = 0.0) -> npt.NDArray[np.float32]:
    return (np.random.default_rng(seed).normal(size=(n, d)) + mean).astype(np.float32)


def written_out(x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]) -> float:
    """The unbiased estimator, pair by pair."""
    n, m, d = len(x), len(y), x.shape[1]

    def kernel(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
        return float((math.fsum(float(p) * float(q) for p, q in zip(a, b, strict=True)) / d + 1) ** 3)

    within_x = math.fsum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_y = math.fsum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_x + within_y - 2 * math.fsum(kernel(a, b) for a in x for b in y) / (n * m)


def test_of_two_by_two_numbers_it_is_the_closed_form() -> None:
    # k(x, x') = (1 * 1 / 1 + 1)^3 = 8, k(y, y') = 1, k(x, y) = 1
    assert kid(np.ones((2, 1)), np.zeros((2, 1)), seed=0) == Kid(8 + 1 - 2 * 1, None, 1, 2)


def test_a_vectors_kernel_with_itself_is_left_out() -> None:
    # Only k(0, 2) = 1 counts within real and k(1, -1) = 0 within fake; between: (1 + 1 + 27 - 1) / 4 = 7.
    assert kid(np.array([[0.0], [2.0]]), np.array([[1.0], [-1.0]]), seed=0).value == 1 + 0 - 2 * 7


@pytest.mark.parametrize(("n", "d"), [(2, 1), (5, 3), (12, 7)])
def test_whole_sets_give_the_formula_written_out(n: int, d: int) -> None:
    real, fake = normal(n, d, 1), normal(n, d, 2, mean=0.5)
    found = kid(real, fake, seed=0)
    assert found.value == pytest.approx(written_out(real, fake), rel=1e-12, abs=1e-12)
    assert (found.std, found.subsets, found.subset_size) == (None, 1, n)


def test_subsets_average_to_the_value_of_the_whole_sets() -> None:
    real, fake = normal(24, 4, 3), normal(20, 4, 4, mean=0.5)
    found = kid(real, fake, subsets=400, subset_size=8, seed=0)
    assert found.std is not None
    assert abs(found.value - written_out(real, fake)) < 4 * found.std / math.sqrt(400)
    assert (found.subsets, found.subset_size) == (400, 8)


def test_one_subset_is_drawn_without_replacement() -> None:
    # A row drawn twice would have its own kernel, which is enormous here.
    real = np.diag(np.full(6, 100.0))
    found = kid(real, np.zeros((8, 6)), subsets=50, subset_size=6, seed=0)
    assert found == Kid(0.0, 0.0, 50, 6)


def test_equal_distributions_have_a_mean_of_zero_within_its_standard_error() -> None:
    values = [kid(normal(15, 6, 2 * seed), normal(15, 6, 2 * seed + 1), seed=0).value for seed in range(400)]
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error
    assert min(values) < 0 < max(values)


def test_the_distance_grows_with_the_shift() -> None:
    real = normal(40, 5, 0)
    near, far = (kid(real, normal(40, 5, 1, mean=shift), seed=0).value for shift in (0.5, 1.0))
    assert 0.1 < near < far / 2


def test_the_spread_is_that_of_the_subsets() -> None:
    real, fake = normal(9, 2, 0), normal(9, 2, 1)
    one_each = [kid(real, fake, subsets=count, subset_size=4, seed=5) for count in (1, 2)]
    assert one_each[0].std is None
    first = one_each[0].value
    second = 2 * one_each[1].value - first  # the first draw is the same
    assert one_each[1].std == pytest.approx(abs(first - second) / math.sqrt(2), rel=1e-9)


def test_the_seed_decides() -> None:
    real, fake = normal(30, 3, 0), normal(30, 3, 1)
    first, again, other = (kid(real, fake, subsets=3, subset_size=10, seed=seed) for seed in (7, 7, 8))
    assert first == again
    assert first.value != other.value


@pytest.mark.parametrize(("n", "m", "size"), [(5, 9, 5), (9, 5, 5), (1001, 1100, 1000)])
def test_a_subset_is_as_large_as_the_smaller_set_and_at_most_a_thousand(n: int, m: int, size: int) -> None:
    found = kid(normal(n, 1, 0), normal(m, 1, 1), subsets=2, seed=0)
    assert (found.subset_size, found.subsets) == (size, 2)


def test_half_precision_features_are_computed_in_double() -> None:
    real, fake = (np.full((2, 4), value, np.float16) for value in (300.0, 0.0))
    assert kid(real, fake, seed=0).value == 90001.0**3 + 1 - 2


def test_the_json_has_every_number() -> None:
    document = kid(normal(4, 2, 0), normal(4, 2, 0), seed=0).to_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert {key: document[key] for key in ("std", "subsets", "subset_size")} == {
        "std": None,
        "subsets": 1,
        "subset_size": 4,
    }


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "1 real picture(s) are no distribution"),
        (np.zeros((5, 3)), np.zeros((0, 3)), "0 fake picture(s) are no distribution"),
        (np.zeros(5), np.zeros((5, 3)), "the real features have the shape [5], not [pictures, features]"),
        (np.zeros((5, 3)), np.zeros((5, 0)), "the fake features have the shape [5, 0], not [pictures, features]"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "the real pictures have 3 features, the fake ones 4"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), "the real features hold values that are not finite"),
        (np.zeros((5, 3)), np.full((5, 3), np.inf), "the fake features hold values that are not finite"),
    ],
)
def test_what_is_no_pair_of_feature_sets_is_refused(
    real: npt.NDArray[np.float64], fake: npt.NDArray[np.float64], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        kid(real, fake, seed=0)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subset_size": 1}, "a subset of 1 features is impossible"),
        ({"subset_size": 5}, "a subset of 5 features is impossible"),
        ({"subsets": 0}, "0 subsets are impossible"),
    ],
)
def test_impossible_subsets_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        kid(normal(4, 2, 0), normal(6, 2, 1), seed=0, **settings)
    assert caught.value.message == message

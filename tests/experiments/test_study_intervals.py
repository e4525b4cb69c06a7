from __future__ import annotations

import numpy as np
import pytest

from mggc_edge.benchmarks.experiments.study.intervals import agreement, estimate, kid_values
from mggc_edge.errors import InputError
from mggc_edge.quality.bootstrap import Estimate
from mggc_edge.quality.kid import kid


def features(count: int, seed: int, *, shift: float = 0.0, width: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)) + shift


def test_values_without_any_spread_have_an_interval_of_no_width() -> None:
    assert estimate(np.full((3, 6), 2.5)) == Estimate(2.5, (2.5, 2.5))


def test_each_of_two_seeds_is_drawn_twice_in_a_quarter_of_the_draws() -> None:
    assert estimate(np.array([[0.0] * 6, [1.0] * 6])) == Estimate(0.5, (0.0, 1.0))


def test_a_picture_is_drawn_for_all_seeds_at_once() -> None:
    pictures = np.random.default_rng(3).normal(size=400)
    (one, many) = (estimate(np.tile(pictures, (seeds, 1))).ci95 for seeds in (1, 5))
    assert many == pytest.approx(one, abs=0.01)  # more seeds of the same values say nothing more


def test_of_few_pictures_there_is_a_mean_and_no_interval() -> None:
    assert estimate(np.array([[1.0, 2.0], [3.0, 6.0]])) == Estimate(3.0, None)


def test_the_interval_of_many_pictures_is_that_of_a_normal_mean() -> None:
    values = np.random.default_rng(1).normal(size=(1, 400))
    found = estimate(values)
    error = values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.ci95 is not None
    assert (found.ci95[1] - found.ci95[0]) / (2 * 1.96 * error) == pytest.approx(1, abs=0.05)


def test_seeds_that_differ_widen_the_interval_however_many_pictures_there_are() -> None:
    noise = np.random.default_rng(2).normal(size=(3, 2000)) / 1000
    found = estimate(np.array([[-1.0], [0.0], [1.0]]) + noise)  # the lowest seed is drawn thrice in 1 of 27 draws
    assert found.ci95 == pytest.approx((-1, 1), abs=0.01)


@pytest.mark.parametrize("values", [np.zeros((0, 3)), np.zeros(3), np.array([[1.0, np.nan]])])
def test_what_is_no_table_of_numbers_has_no_interval(values: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"a bootstrap needs finite values, \[seeds, pictures\]"):
        estimate(values)


def test_kid_values_of_pairs_have_the_kid_as_their_mean() -> None:
    real, fake = features(30, 0), features(30, 1, shift=0.5)
    values = kid_values(real, fake, paired=True)
    assert values.mean() == pytest.approx(kid(real, fake, subset_size=30, seed=0).value, rel=1e-12)


def test_kid_values_are_those_of_a_jackknife_over_pairs() -> None:
    real, fake = features(12, 2), features(12, 3, shift=0.5)
    without = [
        kid(np.delete(real, i, 0), np.delete(fake, i, 0), subset_size=11, seed=0).value for i in range(len(real))
    ]
    values = kid_values(real, fake, paired=True)
    expected = -11 * (np.array(without) - np.mean(without))
    np.testing.assert_allclose(values - values.mean(), expected, rtol=1e-9, atol=1e-12)


def test_without_pairs_the_real_pictures_are_taken_as_given() -> None:
    real, fake = features(9, 4), features(6, 5, shift=0.5)

    def theta(y: np.ndarray) -> float:
        def kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            return np.array([[(a @ b / 4 + 1) ** 3 for b in second] for a in first])

        within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel(real, real), kernel(y, y))]
        return float(sum(within) - 2 * kernel(real, y).mean())

    values = kid_values(real, fake, paired=False)
    assert values.mean() == pytest.approx(theta(fake))
    without = np.array([theta(np.delete(fake, i, 0)) for i in range(6)])
    np.testing.assert_allclose(values - values.mean(), -5 * (without - without.mean()), rtol=1e-9, atol=1e-12)


def test_the_spread_of_kid_values_is_that_of_the_kid_over_new_samples() -> None:
    found, errors = [], []
    for seed in range(200):
        values = kid_values(features(60, 2 * seed), features(60, 2 * seed + 1, shift=0.7), paired=True)
        found.append(values.mean())
        errors.append(values.std(ddof=1) / np.sqrt(60))
    assert np.mean(errors) / np.std(found, ddof=1) == pytest.approx(1, abs=0.15)


def test_too_few_pictures_and_uneven_pairs_have_no_kid_values() -> None:
    for real, fake, paired in ((features(2, 0), features(2, 1), False), (features(5, 0), features(4, 1), True)):
        with pytest.raises(InputError, match="too few, or no pairs"):
            kid_values(real, fake, paired=paired)


def test_the_agreement_is_the_share_of_neighbors_in_both_in_any_order() -> None:
    assert agreement(np.array([[1, 2], [0, 2]]), np.array([[2, 1], [2, 3]])).tolist() == [1.0, 0.5]

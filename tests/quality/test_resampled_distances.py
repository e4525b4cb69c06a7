"""KID and Frechet distance of resampled pictures: with all drawn once they are the metric, and no copy biases them."""

from __future__ import annotations

import numpy as np
import pytest

from mggc_edge.errors import InputError
from mggc_edge.quality.bootstrap import Floats, Resamples, bootstrap, draw_counts
from mggc_edge.quality.frechet import frechet_distance, frechet_statistic
from mggc_edge.quality.kid import kid, kid_statistic


def sets(n: int, m: int, d: int, shift: float, seed: int = 0) -> tuple[Floats, Floats]:
    random = np.random.default_rng(seed)
    return random.normal(size=(n, d)), random.normal(size=(m, d)) * 1.2 + shift


def once(pictures: int, reals: int) -> Resamples:
    return Resamples(np.ones((1, pictures), np.int32), np.ones((1, reals), np.int32))


def test_with_every_picture_drawn_once_it_is_the_kid_of_both_sets() -> None:
    real, fake = sets(30, 30, 4, 0.3)
    assert kid_statistic(real, fake)(once(30, 30))[0] == pytest.approx(kid(real, fake, seed=0).value, rel=1e-12)


def test_sets_of_different_sizes_are_the_formula_of_different_pictures() -> None:
    real, fake = sets(5, 3, 2, 0.3)

    def kernel(a: Floats, b: Floats) -> float:
        return float((a @ b / 2 + 1) ** 3)

    within_real = np.mean([kernel(real[i], real[j]) for i in range(5) for j in range(5) if i != j])
    within_fake = np.mean([kernel(fake[i], fake[j]) for i in range(3) for j in range(3) if i != j])
    across = np.mean([kernel(a, b) for a in real for b in fake])
    found = kid_statistic(real, fake)(once(3, 5))[0]
    assert found == pytest.approx(within_real + within_fake - 2 * across, rel=1e-12)


def test_a_picture_drawn_twice_is_not_compared_with_itself() -> None:
    real, fake = sets(4, 3, 2, 0.3)
    counts = np.array([[2, 1, 0]], np.int32)  # the only two different pictures that were drawn: 0 and 1
    found = kid_statistic(real, fake)(Resamples(counts, np.ones((1, 4), np.int32)))[0]
    only = (fake[0] @ fake[1] / 2 + 1) ** 3
    across = np.average(((real @ fake.T / 2 + 1) ** 3).mean(axis=0), weights=counts[0])
    pairs = [(real[i] @ real[j] / 2 + 1) ** 3 for i in range(4) for j in range(4) if i != j]
    assert found == pytest.approx(np.mean(pairs) + only - 2 * across, rel=1e-12)


def test_where_one_picture_alone_was_drawn_there_is_no_kid() -> None:
    real, fake = sets(4, 3, 2, 0.3)
    assert np.isnan(kid_statistic(real, fake)(Resamples(np.array([[3, 0, 0]], np.int32), np.ones((1, 4), np.int32))))


def test_resampled_kid_lies_around_the_kid() -> None:
    # Copies that were compared with themselves would shift the mean by many times its error.
    real, fake = sets(60, 60, 8, 0.2)
    random = np.random.default_rng(3)
    values = kid_statistic(real, fake)(Resamples(draw_counts(60, 4000, random), draw_counts(60, 4000, random)))
    assert values.mean() == pytest.approx(kid(real, fake, seed=0).value, abs=4 * values.std() / np.sqrt(4000))


def test_the_interval_of_kid_holds_the_true_distance_in_about_95_percent_of_samples() -> None:
    held, truth = 0, true_kid(0.5)
    for seed in range(100):
        random = np.random.default_rng(seed)
        real, fake = random.normal(size=(150, 2)), random.normal(size=(150, 2)) + 0.5
        ends = bootstrap([kid_statistic(real, fake)], 150, reals=150, resamples=300, seed=seed).ci95
        assert ends is not None
        held += ends[0] <= truth <= ends[1]
    assert held / 100 == pytest.approx(0.94, abs=0.04)


def true_kid(shift: float) -> float:
    """MMD^2 of N(0, I) and N(shift, I) in 2 dimensions; Gauss-Hermite quadrature is exact for a cubic kernel."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)
    weights = weights / weights.sum()
    grid = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    mass = np.outer(weights, weights).ravel()

    def mean_kernel(a: float, b: float) -> float:
        kernel = ((grid + a) @ (grid + b).T / 2 + 1) ** 3
        return float(mass @ kernel @ mass)

    return mean_kernel(0, 0) + mean_kernel(shift, shift) - 2 * mean_kernel(0, shift)


def test_with_every_picture_drawn_once_it_is_the_frechet_distance() -> None:
    real, fake = sets(40, 50, 5, 0.3)
    assert frechet_statistic(real, fake)(once(50, 40))[0] == pytest.approx(frechet_distance(real, fake), rel=1e-10)


def test_its_derivative_by_one_more_picture_is_the_difference_quotient() -> None:
    real, fake = sets(4000, 4000, 3, 0.3)
    for first, second in ((real, fake), (fake, real)):
        statistic, value = frechet_statistic(first, second), frechet_distance(first, second)
        before = gaussian_distance(first, second, np.full(4000, 1 / 4000))
        assert before == pytest.approx(value, rel=1e-9)
        for number in range(8):
            more = np.ones(4000, np.int32)
            more[number] += 4  # a thousandth of all
            exact = gaussian_distance(first, second, more / more.sum()) - before
            moved = statistic(Resamples(more[None], np.ones((1, 4000), np.int32)))[0] - value
            assert moved == pytest.approx(exact, rel=0.01, abs=2e-5)
            other = frechet_statistic(second, first)(Resamples(np.ones((1, 4000), np.int32), more[None]))[0] - value
            assert other == pytest.approx(moved, rel=1e-9, abs=1e-12)


def gaussian_distance(real: Floats, fake: Floats, weights: Floats) -> float:
    """The distance with weights for fake, by matrix roots."""
    mean = weights @ fake
    t = ((fake - mean) * weights[:, None]).T @ (fake - mean) * 4000 / 3999
    s = np.cov(real, rowvar=False)
    values, vectors = np.linalg.eigh(s)
    half = vectors * np.sqrt(values) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(half @ t @ half), 0)).sum()
    shift = real.mean(axis=0) - mean
    return float(shift @ shift + np.trace(s) + np.trace(t) - 2 * shared)


def test_the_interval_of_the_frechet_distance_is_as_wide_as_it_varies_from_sample_to_sample() -> None:
    values, widths = [], []
    for seed in range(60):
        real, fake = sets(200, 200, 4, 0.5, seed)
        values.append(frechet_distance(real, fake))
        ends = bootstrap([frechet_statistic(real, fake)], 200, reals=200, resamples=300, seed=seed).ci95
        assert ends is not None
        assert ends[0] < values[-1] < ends[1]
        widths.append(ends[1] - ends[0])
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(values), rel=0.2)


def test_features_that_never_vary_take_no_part_in_the_derivative() -> None:
    real, fake = sets(40, 40, 3, 0.3)
    still = np.ones((40, 1))
    wide = frechet_statistic(np.hstack([real, still]), np.hstack([fake, still]))
    draws = Resamples(draw_counts(40, 5, np.random.default_rng(0)), draw_counts(40, 5, np.random.default_rng(1)))
    np.testing.assert_allclose(wide(draws), frechet_statistic(real, fake)(draws), rtol=1e-9)


@pytest.mark.parametrize("statistic", [kid_statistic, frechet_statistic])
def test_pairs_are_drawn_together(statistic: type) -> None:
    real, fake = sets(30, 30, 3, 0.3)
    counts = draw_counts(30, 6, np.random.default_rng(0))
    nothing = np.zeros((6, 0), np.int32)
    together = statistic(real, fake, pairs=True)(Resamples(counts, nothing))
    np.testing.assert_array_equal(together, statistic(real, fake)(Resamples(counts, counts)))


@pytest.mark.parametrize("statistic", [kid_statistic, frechet_statistic])
def test_sets_of_different_sizes_are_no_pairs(statistic: type) -> None:
    with pytest.raises(InputError, match=r"^20 real and 30 fake pictures are no pairs$"):
        statistic(*sets(20, 30, 2, 0), pairs=True)

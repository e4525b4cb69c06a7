"""Intervals hold what they should as often as they say, pictures and seeds are levels, and differences are paired."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mggc_edge.errors import InputError
from mggc_edge.quality.bootstrap import (
    Estimate,
    Floats,
    Resamples,
    bootstrap,
    bootstrap_both,
    draw_counts,
    mean_of,
    percentile_interval,
)


def share_that_holds(truth: float, samples: int, draw: Callable[[np.random.Generator], Estimate]) -> float:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(samples):
        ends = draw(random).ci95
        assert ends is not None
        held += ends[0] <= truth <= ends[1]
    return held / samples


def width(estimate: Estimate) -> float:
    assert estimate.ci95 is not None
    return estimate.ci95[1] - estimate.ci95[0]


# --- pictures ---


def test_of_50_pictures_the_interval_holds_the_true_mean_in_about_95_percent_of_samples() -> None:
    def draw(random: np.random.Generator) -> Estimate:
        return bootstrap([mean_of(random.normal(3, 2, 50))], 50, resamples=400, seed=1)

    assert share_that_holds(3, 300, draw) == pytest.approx(0.95, abs=0.03)


def test_of_skewed_values_as_well() -> None:
    def draw(random: np.random.Generator) -> Estimate:
        return bootstrap([mean_of(random.exponential(1, 100))], 100, resamples=400, seed=1)

    assert share_that_holds(1, 300, draw) == pytest.approx(0.93, abs=0.03)


def test_its_width_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).normal(size=400)
    found = bootstrap([mean_of(values)], 400, resamples=20_000, seed=0)
    error = values.std() / 20
    assert found.value == pytest.approx(values.mean(), rel=1e-12)
    assert found.ci95 == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.05 * error)


def test_of_two_values_its_ends_are_those_of_the_binomial_distribution() -> None:
    # Of 10 pictures, 5 at 0 and 5 at 1: the mean of a resample is Binomial(10, 1/2) / 10, whose percentiles are exact.
    found = bootstrap([mean_of(np.repeat([0.0, 1.0], 5))], 10, resamples=20_000, seed=0)
    assert found.value == 0.5
    assert found.ci95 == pytest.approx((0.2, 0.8))


def test_pictures_without_a_value_are_left_out() -> None:
    values = np.array([1.0, np.nan, 1, 1, np.nan, 1, 1, 1])
    assert bootstrap([mean_of(values)], 8, seed=0) == Estimate(1.0, (1.0, 1.0))


def test_where_no_picture_has_a_value_there_is_none() -> None:
    assert bootstrap([mean_of(np.full(8, np.nan))], 8, seed=0) == Estimate(None, None)
    assert Estimate(None, None).to_json() == {"value": None, "ci95": None}


def test_of_five_pictures_there_is_a_value_but_no_interval() -> None:
    values = np.arange(6.0)
    assert bootstrap([mean_of(values[:5])], 5, seed=0) == Estimate(2.0, None)
    assert bootstrap([mean_of(values)], 6, seed=0).ci95 is not None


def test_the_seed_decides_and_repeats() -> None:
    values = np.random.default_rng(0).normal(size=30)
    found = [bootstrap([mean_of(values)], 30, seed=seed) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def test_every_resample_draws_as_many_pictures_as_there_are() -> None:
    counts = draw_counts(7, 100, np.random.default_rng(0))
    assert (counts.shape, set(counts.sum(axis=1).tolist())) == ((100, 7), {7})
    assert counts.mean() == 1
    assert draw_counts(0, 3, np.random.default_rng(0)).shape == (3, 0)


def test_resamples_without_a_number_are_left_out_unless_they_are_most() -> None:
    values = np.array([np.nan, 0.0, 1.0, 2.0])
    assert percentile_interval(values) == pytest.approx((0.05, 1.95))
    assert percentile_interval(np.array([np.nan, np.nan, 1.0])) is None


# --- seeds ---


def nested(random: np.random.Generator, seeds: int, pictures: int, spread: float) -> list[Floats]:
    """Values around 5: each seed has an effect of `spread`, each picture of each seed one of 1."""
    return [random.normal(5 + random.normal(0, spread), 1, pictures) for _ in range(seeds)]


def test_over_seeds_the_value_is_the_mean_of_their_means() -> None:
    found = bootstrap([mean_of(np.full(8, value)) for value in (1.0, 2.0, 6.0)], 8, seed=0)
    assert found.value == 3.0
    # All nine-fold draws of three seeds are equally likely: (1, 1, 1) and (6, 6, 6) have 1/27 each, beyond 2.5 %.
    assert found.ci95 == pytest.approx((1.0, 6.0))


@pytest.mark.parametrize("same_pictures", [False, True])
def test_over_12_seeds_the_interval_holds_the_true_mean_in_about_93_percent_of_samples(same_pictures: bool) -> None:
    def draw(random: np.random.Generator) -> Estimate:
        values = nested(random, 12, 20, 1.0)
        return bootstrap([mean_of(v) for v in values], 20, resamples=300, same_pictures=same_pictures, seed=1)

    assert share_that_holds(5, 200, draw) == pytest.approx(0.93, abs=0.04)


def test_over_3_seeds_it_holds_it_less_often_than_it_says() -> None:
    def draw(random: np.random.Generator) -> Estimate:
        return bootstrap([mean_of(v) for v in nested(random, 3, 20, 1.0)], 20, resamples=300, seed=1)

    assert 0.65 < share_that_holds(5, 200, draw) < 0.88


def test_what_a_picture_does_is_not_averaged_away_by_more_seeds() -> None:
    # Every seed has the same values: 8 seeds say no more than one where they saw the same pictures.
    values = np.random.default_rng(0).normal(size=40)
    one = width(bootstrap([mean_of(values)], 40, resamples=4000, seed=0))
    same = width(bootstrap([mean_of(values)] * 8, 40, resamples=4000, seed=0))
    own = width(bootstrap([mean_of(values)] * 8, 40, resamples=4000, same_pictures=False, seed=0))
    assert same == pytest.approx(one, rel=0.06)
    assert own == pytest.approx(one / np.sqrt(8), rel=0.06)


def test_without_a_seed_there_is_nothing_to_draw() -> None:
    with pytest.raises(InputError, match=r"^there is no seed to draw from$"):
        bootstrap([], 8, seed=0)


# --- paired differences ---


def test_what_two_methods_share_does_not_widen_their_difference() -> None:
    random = np.random.default_rng(0)
    shared = random.normal(0, 10, 50)
    a, b = shared + 1 + random.normal(0, 0.1, 50), shared
    found = bootstrap([mean_of(a)], 50, minus=[mean_of(b)], seed=0)
    assert found.value == pytest.approx(np.mean(a - b), rel=1e-9)
    assert width(found) == pytest.approx(2 * 1.96 * np.std(a - b) / np.sqrt(50), rel=0.1)
    assert width(bootstrap([mean_of(a)], 50, seed=0)) > 50 * width(found)


def test_a_method_does_not_differ_from_itself() -> None:
    sides = [mean_of(values) for values in nested(np.random.default_rng(0), 3, 20, 1.0)]
    assert bootstrap(sides, 20, minus=sides, seed=0) == Estimate(0.0, (0.0, 0.0))


def test_both_methods_and_their_difference_are_those_of_single_calls() -> None:
    random = np.random.default_rng(0)
    a, b = ([mean_of(values) for values in nested(random, 3, 20, 1.0)] for _ in range(2))
    assert bootstrap_both(a, b, 20, seed=4) == (
        bootstrap(a, 20, seed=4),
        bootstrap(b, 20, seed=4),
        bootstrap(a, 20, minus=b, seed=4),
    )


def test_a_difference_needs_as_many_seeds_of_both() -> None:
    side = mean_of(np.zeros(8))
    with pytest.raises(InputError, match=r"^a paired difference needs as many seeds of both, not 2 and 1$"):
        bootstrap([side, side], 8, minus=[side], seed=0)


def test_reals_are_drawn_alike_for_both_and_for_every_seed() -> None:
    seen: list[Resamples] = []

    def statistic(draws: Resamples) -> Floats:
        seen.append(draws)
        return draws.reals[:, 0].astype(np.float64)

    found = bootstrap([statistic], 8, minus=[statistic], reals=5, resamples=10, seed=0)
    assert found == Estimate(0.0, (0.0, 0.0))
    assert {draws.reals.shape for draws in seen} == {(1, 5), (10, 5)}
    assert {tuple(draws.reals.sum(axis=1)) for draws in seen} == {(5,), (5,) * 10}

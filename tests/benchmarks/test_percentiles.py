"""Percentiles: which samples carry them, and that their intervals enclose the true ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mggc_edge.benchmarks.percentiles import enclosing_ranks, percentile


@pytest.mark.parametrize(("percent", "least"), [(90, 1), (95, 200), (99, 1000)])
def test_a_percentile_is_said_where_ten_samples_lie_beyond_it(percent: int, least: int) -> None:
    assert percentile([1.0] * least, percent) is not None
    if least > 1:
        assert percentile([1.0] * (least - 1), percent) is None


def test_an_interval_takes_as_many_samples_as_its_ranks() -> None:
    # 0.9^36 is the first power below 0.025: with 36 samples the largest one lies above the 90th percentile.
    assert (0.9**35 > 0.025, 0.9**36 > 0.025) == (True, False)
    assert enclosing_ranks(35, 0.9) is None
    assert enclosing_ranks(36, 0.9) == (29, 36)
    one = percentile([1.0, 2.0], 90)
    assert one is not None
    assert one.ci95 is None


@pytest.mark.parametrize(("count", "quantile", "ranks"), [(40, 0.5, (14, 27)), (100, 0.5, (40, 61))])
def test_the_ranks_are_those_of_the_tables(count: int, quantile: float, ranks: tuple[int, int]) -> None:
    assert enclosing_ranks(count, quantile) == ranks


@pytest.mark.parametrize(("count", "quantile"), [(40, 0.5), (60, 0.9), (200, 0.95), (1000, 0.99), (100_000, 0.99)])
def test_the_probability_that_the_ranks_enclose_it_is_at_least_95_percent(count: int, quantile: float) -> None:
    ranks = enclosing_ranks(count, quantile)
    assert ranks is not None
    low, high = ranks
    logs = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        + k * math.log(quantile) + (count - k) * math.log1p(-quantile)
        for k in range(low, high)
    ]  # fmt: skip
    assert 0.95 <= sum(map(math.exp, logs)) <= 0.985


def test_intervals_enclose_the_percentile_of_what_was_drawn_from() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        found = percentile(rng.exponential(1.0, 200).tolist(), 95)
        assert found is not None
        assert found.ci95 is not None
        inside += found.ci95[0] <= -math.log(0.05) <= found.ci95[1]
    assert inside >= 0.94 * 400

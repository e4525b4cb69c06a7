"""The middle of grouped values: what it is, what does not move it, and that its error is that of groups."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mggc_edge.benchmarks.location import Location, locate


def test_equal_values_have_no_error_and_a_single_group_an_unknown_one() -> None:
    assert locate([[2.0, 2.0], [2.0]]) == Location(2.0, 0.0, 2)
    assert locate([[2.0, 2.0]]) == Location(2.0, None, 1)
    assert locate([[1.0, 3.0]]).error is None


def test_without_outliers_it_is_the_mean_with_the_error_of_the_groups_means() -> None:
    groups = [[1.0, 2.0], [1.5, 2.5], [0.5, 1.5]]
    found = locate(groups)
    means = [float(np.mean(group)) for group in groups]
    assert found.value == pytest.approx(1.5)
    assert found.error == pytest.approx(float(np.std(means, ddof=1)) / math.sqrt(3))
    assert found.degrees == 2


def test_where_half_of_the_values_are_equal_the_others_still_count() -> None:
    found = locate([[0.0], [0.0], [0.0], [1.0]])
    assert 0 < found.value < 0.5
    assert found.error is not None
    assert found.error > 0


def test_one_group_in_ten_that_is_far_off_moves_it_little() -> None:
    rng = np.random.default_rng(0)
    groups = rng.normal(0, 0.01, (10, 4))
    moved = groups.copy()
    moved[3] += 5.0
    assert abs(locate(moved.tolist()).value - locate(groups.tolist()).value) < 0.006  # a mean would move by 0.5


def test_thousands_of_values_are_estimated_in_batches_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = np.random.default_rng(1).standard_t(2, (50, 4)).tolist()
    whole = locate(groups)
    monkeypatch.setattr("mggc_edge.benchmarks.location.MOST_AT_ONCE", 600)  # three groups at a time
    apart = locate(groups)
    assert apart.value == pytest.approx(whole.value)
    assert apart.error == pytest.approx(whole.error, rel=1e-6)

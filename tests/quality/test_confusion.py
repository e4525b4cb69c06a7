"""Agreement of class maps follows from counted pixels, and says None where nothing is defined."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from mggc_edge.errors import InputError
from mggc_edge.quality.bootstrap import Resamples, bootstrap
from mggc_edge.quality.confusion import UNDEFINED, Agreement, agreement, confusion, miou_statistic


def test_rows_are_the_truth_and_columns_the_prediction() -> None:
    truth, predicted = np.array([[0, 0, 1], [2, 2, UNDEFINED]]), np.array([[0, 1, 1], [2, 0, 1]])
    assert confusion(truth, predicted, 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]


def test_the_numbers_are_the_textbook_ones() -> None:
    # Intersections 1, 1, 1 over unions 3, 2, 2; three of five pixels; one of two, one of one, one of two.
    found = agreement(np.array([[1, 1, 0], [0, 1, 0], [1, 0, 1]]))
    assert astuple(found) == pytest.approx(((1 / 3 + 1 / 2 + 1 / 2) / 3, 0.6, (0.5 + 1 + 0.5) / 3))


def test_a_perfect_prediction_is_one_and_absent_classes_take_no_part() -> None:
    assert agreement(np.diag([3, 0, 5, 0])) == Agreement(1.0, 1.0, 1.0)


def test_a_class_that_is_only_predicted_counts_against_the_intersection_over_union() -> None:
    assert astuple(agreement(np.array([[3, 1], [0, 0]]))) == pytest.approx(((3 / 4 + 0) / 2, 0.75, 0.75))


def test_where_no_pixel_is_defined_there_is_no_number() -> None:
    nowhere = np.full((2, 2), UNDEFINED)
    found = agreement(confusion(nowhere, np.zeros_like(nowhere), 3))
    assert found == Agreement(None, None, None)
    assert found.to_json() == {"miou": None, "pixel_accuracy": None, "class_accuracy": None}


def test_resampled_pictures_are_added_before_the_mean_is_taken() -> None:
    matrices = np.array([[[2, 0], [0, 2]], [[0, 4], [0, 0]]])
    counts = np.array([[1, 1], [2, 0], [0, 2]], np.int32)
    found = miou_statistic(matrices)(Resamples(counts, np.zeros((3, 0), np.int32)))
    assert found.tolist() == pytest.approx([(2 / 6 + 2 / 6) / 2, 1.0, 0.0])
    assert found[0] == agreement(matrices.sum(axis=0)).miou


def test_the_interval_of_miou_holds_it() -> None:
    random = np.random.default_rng(0)
    matrices = random.integers(0, 50, (40, 3, 3)) + 200 * np.eye(3, dtype=np.int64)
    found = bootstrap([miou_statistic(matrices)], 40, seed=0)
    assert found.value == agreement(matrices.sum(axis=0)).miou
    assert found.ci95 is not None
    assert found.value is not None
    assert found.ci95[0] < found.value < found.ci95[1] < found.ci95[0] + 0.05


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([[0, 1]], [[0], [1]], "class maps of the shapes [1, 2] and [2, 1] do not compare"),
        ([[0, 2]], [[0, 1]], "a class map has a class that is not one of the 2"),
        ([[0, 1]], [[0, 2]], "a class map has a class that is not one of the 2"),
        ([[0, 1]], [[0, -1]], "a class map has a class that is not one of the 2"),
        ([[0, -2]], [[0, 1]], "a class map has a class that is not one of the 2"),
    ],
)
def test_maps_that_do_not_compare_are_refused(truth: list[list[int]], predicted: list[list[int]], message: str) -> None:
    with pytest.raises(InputError) as caught:
        confusion(np.array(truth), np.array(predicted), 2)
    assert caught.value.message == message

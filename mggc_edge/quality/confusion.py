"""Agreement of class maps by their confusion matrix: mean intersection over union, pixel and class accuracy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mggc_edge.errors import InputError
from mggc_edge.quality.bootstrap import Floats, Resamples, Statistic

Labels = npt.NDArray[np.int64]
Confusion = npt.NDArray[np.int64]
UNDEFINED = -1  # the class of a pixel that has none: it is not counted


@dataclass(frozen=True)
class Agreement:
    """How well predicted class maps agree with the true ones, each from 0 to 1; None where nothing is defined.

    Attributes:
        miou: mean over the classes of intersection / union, over those that are anywhere in truth or prediction.
        pixel_accuracy: pixels with the right class.
        class_accuracy: mean over the classes that the truth has of their pixels with the right class.
    """

    miou: float | None
    pixel_accuracy: float | None
    class_accuracy: float | None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with the attributes as keys."""
        return asdict(self)


def confusion(truth: Labels, predicted: Labels, classes: int) -> Confusion:
    """Return how many pixels of each true class (rows) were predicted as each class (columns), [K, K].

    Args:
        truth: class numbers from 0; UNDEFINED where a pixel is not to be counted.
        predicted: class numbers from 0, of the same shape.

    Raises:
        InputError: shapes differ, or a class number is not below `classes`.
    """
    if truth.shape != predicted.shape:
        raise InputError(f"class maps of the shapes {list(truth.shape)} and {list(predicted.shape)} do not compare")
    counted = truth != UNDEFINED
    rows, columns = truth[counted], predicted[counted]
    if rows.size and not (min(rows.min(), columns.min()) >= 0 and max(rows.max(), columns.max()) < classes):
        raise InputError(f"a class map has a class that is not one of the {classes}")
    return np.bincount(rows * classes + columns, minlength=classes * classes).reshape(classes, classes)


def agreement(matrix: Confusion) -> Agreement:
    """Return the agreement that a confusion matrix [K, K] of all pictures together says."""
    numbers = _numbers(matrix[None].astype(np.float64))
    return Agreement(*(None if np.isnan(number[0]) else float(number[0]) for number in numbers))


def miou_statistic(matrices: Confusion) -> Statistic:
    """Return the mean intersection over union of resampled pictures, for `bootstrap`; `matrices`: [N, K, K]."""
    n, classes, _ = matrices.shape
    flat = matrices.reshape(n, -1).astype(np.float64)

    def statistic(draws: Resamples) -> Floats:
        return _numbers((draws.pictures @ flat).reshape(-1, classes, classes))[0]

    return statistic


def _numbers(matrices: Floats) -> tuple[Floats, Floats, Floats]:
    """Return mIoU, pixel accuracy and class accuracy of [R, K, K], each [R], NaN where nothing is defined."""
    right = np.diagonal(matrices, axis1=1, axis2=2)
    truth, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
    total = truth.sum(axis=1)
    return _mean_ratio(right, truth + predicted - right), _ratio(right.sum(axis=1), total), _mean_ratio(right, truth)


def _mean_ratio(parts: Floats, wholes: Floats) -> Floats:
    """Mean over the classes whose whole is not zero."""
    ratios = np.nan_to_num(_ratio(parts, wholes))
    return _ratio(ratios.sum(axis=1), (wholes > 0).sum(axis=1).astype(np.float64))


def _ratio(parts: Floats, wholes: Floats) -> Floats:
    ratio: Floats = np.divide(parts, wholes, out=np.full(parts.shape, np.nan), where=wholes > 0)
    return ratio

"""Where the middle of values lies, and how sure that is, if values of one process belong together.

The estimate is Huber's (1964): a mean in which a value farther than c = 1.345 scales from it counts as if it lay just
there; the scale is the median absolute deviation, times 1.4826. On normal noise it is as exact as a mean of 95 % of the
values, and no single value can drag it away.

Its error comes from leaving out one process at a time (the delete-one-group jackknife): whatever makes values of a
process alike, be it memory layout, clock frequency or a neighbor, is in the differences between processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TUNING = 1.345
NORMAL = 1.4826  # of a normal distribution, standard deviation : median absolute deviation
STEPS = 100
CLOSE = 1e-10  # of the scale: steps that move less are not needed
MOST_AT_ONCE = 2**22  # elements of the matrix that a batch of estimates takes


@dataclass(frozen=True)
class Location:
    """The middle of values that come in groups.

    Attributes:
        value: in the unit of the values.
        error: its standard error; None for a single group, which says nothing of the others.
        groups: how many there were.
    """

    value: float
    error: float | None
    groups: int

    @property
    def degrees(self) -> int:
        """Degrees of freedom of `error`."""
        return self.groups - 1


def locate(groups: Sequence[Sequence[float]]) -> Location:
    """Return the middle of the values of all groups, every value counting the same.

    Args:
        groups: values by process, each with at least one, all finite.
    """
    values = np.concatenate([np.asarray(group, dtype=np.float64) for group in groups])
    member = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    middle = float(np.median(values))
    distances = np.abs(values - middle)
    # Where half of the values are equal their median distance is 0, which would make the others count nothing.
    scale = NORMAL * float(np.median(distances)) or float(distances.mean())
    count = len(groups)
    if scale == 0:
        return Location(middle, 0.0 if count > 1 else None, count)
    whole = float(_huber(values, np.ones((1, len(values)), dtype=bool), middle, scale)[0])
    if count < 2:
        return Location(whole, None, count)
    batch = max(1, MOST_AT_ONCE // len(values))
    without = np.concatenate(
        [
            _huber(values, member != np.arange(start, min(start + batch, count))[:, None], whole, scale)
            for start in range(0, count, batch)
        ]
    )
    spread = float(((without - without.mean()) ** 2).sum())
    return Location(whole, math.sqrt((count - 1) / count * spread), count)


def _huber(
    values: np.ndarray[tuple[int], np.dtype[np.float64]],
    chosen: np.ndarray[tuple[int, int], np.dtype[np.bool_]],
    start: float,
    scale: float,
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the estimate over the chosen values of every row, by weights that follow from the one before."""
    at = np.full((len(chosen), 1), start)
    for _ in range(STEPS):
        weights = chosen * np.minimum(1.0, TUNING * scale / np.maximum(np.abs(values - at), 1e-300))
        moved = (weights * values).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)
        done = bool(np.abs(moved - at).max() <= CLOSE * scale)
        at = moved
        if done:
            break
    return np.asarray(at[:, 0])

"""Which pictures a step sees, and its random numbers: functions of (seed, stage, step), so that runs repeat."""

from __future__ import annotations

import functools
import hashlib

import numpy as np


def step_seed(seed: int, name: str, number: int) -> int:
    """Return the seed of one step of the stage `name`, from 0 to 2^63 - 1."""
    digest = hashlib.sha256(f"{seed}/{name}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@functools.lru_cache(maxsize=8)
def epoch_order(seed: int, name: str, epoch: int, count: int) -> tuple[int, ...]:
    """Return the order in which the stage `name` goes through `count` pictures in an epoch."""
    generator = np.random.default_rng(step_seed(seed, f"{name}/epoch", epoch))
    return tuple(generator.permutation(count).tolist())


def batch_indices(seed: int, name: str, step: int, count: int, batch_size: int) -> list[int]:
    """Return the pictures of one step. Epochs follow each other without a gap, so every batch is full."""
    first = step * batch_size
    places = (divmod(place, count) for place in range(first, first + batch_size))
    return [epoch_order(seed, name, epoch, count)[place] for epoch, place in places]


def steps_of(epochs: float, count: int, batch_size: int) -> int:
    """Return how many steps it takes to see `count` pictures `epochs` times; at least one."""
    return max(1, round(epochs * count / batch_size))

"""Which pictures a step sees, and its random numbers: functions of (seed, stage, step, place in the batch).

So runs repeat, and what a step of several processes sees does not depend on how many they are.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Share:
    """A process's part of the batch that one step of all processes sees.

    Attributes:
        each: pictures a step of each process.
        rank, processes: which of how many processes this is.
    """

    each: int
    rank: int = 0
    processes: int = 1

    @property
    def total(self) -> int:
        """Pictures a step of all processes."""
        return self.each * self.processes

    def pictures(self, seed: int, name: str, step: int, count: int) -> list[int]:
        """Return this process's pictures of one step, see `batch_indices`."""
        return batch_indices(seed, name, step, count, self.total)[self.each * self.rank : self.each * (self.rank + 1)]

    def draws(self, seed: int, name: str, step: int) -> Iterator[np.random.Generator]:
        """Yield the random numbers of each of this process's pictures, by its place in the batch of all."""
        for place in range(self.each * self.rank, self.each * (self.rank + 1)):
            yield np.random.default_rng(step_seed(seed, f"{name}/{place}", step))

"""The picture pool follows CycleGAN's rule and goes on exactly where its state was taken."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mggc_edge.training.pool import PicturePool


def numbered(first: int, count: int) -> Tensor:
    """Pictures whose every value is their number, [count, 1, 2, 2]."""
    return torch.arange(first, first + count, dtype=torch.float32)[:, None, None, None].expand(count, 1, 2, 2)


def draws(count: int, seed: int = 0) -> Iterator[np.random.Generator]:
    """Random numbers for as many pictures."""
    return (np.random.default_rng((seed, number)) for number in range(count))


def numbers_of(pictures: Tensor) -> list[int]:
    return [int(picture[0, 0, 0]) for picture in pictures]


def test_a_pool_of_size_0_gives_what_it_is_given() -> None:
    given = numbered(0, 3)
    assert PicturePool(0).exchange(given, draws(3)) is given


def test_until_it_is_full_a_pool_gives_what_it_is_given_and_keeps_it() -> None:
    pool = PicturePool(3)
    assert numbers_of(pool.exchange(numbered(0, 2), draws(2))) == [0, 1]
    assert numbers_of(pool.exchange(numbered(2, 1), draws(1))) == [2]
    assert numbers_of(pool.state()["kept"]) == [0, 1, 2]


def test_a_full_pool_gives_a_new_picture_or_exchanges_it_for_one_that_it_kept() -> None:
    pool = PicturePool(4)
    kept = set(numbers_of(pool.exchange(numbered(0, 4), draws(4))))
    exchanged = 0
    for number in range(4, 404):
        (shown,) = numbers_of(pool.exchange(numbered(number, 1), draws(1, seed=number)))
        if shown != number:
            assert shown in kept
            kept = (kept - {shown}) | {number}
            exchanged += 1
        assert set(numbers_of(pool.state()["kept"])) == kept
    assert 160 <= exchanged <= 240  # one half: 200, four standard deviations of 10


def test_a_pool_does_not_keep_the_graph_or_the_memory_of_what_it_is_given() -> None:
    given = numbered(0, 1).clone().requires_grad_()
    pool = PicturePool(1)
    shown = pool.exchange(given * 2, draws(1))
    assert not shown.requires_grad
    pictures = numbered(5, 1).clone()
    other = PicturePool(1)
    other.exchange(pictures, draws(1))
    pictures.fill_(9)
    assert numbers_of(other.state()["kept"]) == [5]


def test_a_pool_goes_on_from_its_state_as_if_it_had_not_stopped() -> None:
    pool = PicturePool(3)
    pool.exchange(numbered(0, 7), draws(7, seed=1))
    other = PicturePool(3)
    other.load_state({name: value.clone() for name, value in pool.state().items()})
    shown = [each.exchange(numbered(7, 20), draws(20, seed=2)) for each in (pool, other)]
    assert torch.equal(*shown)
    assert torch.equal(pool.state()["kept"], other.state()["kept"])


def test_the_state_of_an_empty_pool_is_empty_and_empties_another() -> None:
    pool = PicturePool(3)
    assert pool.state() == {}
    pool.exchange(numbered(0, 2), draws(2))
    pool.load_state({})
    assert pool.state() == {}

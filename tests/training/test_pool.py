"""The picture pool follows CycleGAN's rule and goes on exactly where its state was taken."""

from __future__ import annotations

import torch
from torch import Tensor

from mggc_edge.training.pool import PicturePool


def numbered(first: int, count: int) -> Tensor:
    """Pictures whose every value is their number, [count, 1, 2, 2]."""
    return torch.arange(first, first + count, dtype=torch.float32)[:, None, None, None].expand(count, 1, 2, 2)


def numbers_of(pictures: Tensor) -> list[int]:
    return [int(picture[0, 0, 0]) for picture in pictures]


def test_a_pool_of_size_0_gives_what_it_is_given() -> None:
    given = numbered(0, 3)
    assert PicturePool(0).exchange(given) is given


def test_until_it_is_full_a_pool_gives_what_it_is_given_and_keeps_it() -> None:
    pool = PicturePool(3)
    assert numbers_of(pool.exchange(numbered(0, 2))) == [0, 1]
    assert numbers_of(pool.exchange(numbered(2, 1))) == [2]
    assert numbers_of(pool.state()["kept"]) == [0, 1, 2]


def test_a_full_pool_gives_a_new_picture_or_exchanges_it_for_one_that_it_kept() -> None:
    torch.manual_seed(0)
    pool = PicturePool(4)
    kept = set(numbers_of(pool.exchange(numbered(0, 4))))
    exchanged = 0
    for number in range(4, 404):
        (shown,) = numbers_of(pool.exchange(numbered(number, 1)))
        if shown != number:
            assert shown in kept
            kept = (kept - {shown}) | {number}
            exchanged += 1
        assert set(numbers_of(pool.state()["kept"])) == kept
    assert 160 <= exchanged <= 240  # one half: 200, four standard deviations of 10


def test_a_pool_does_not_keep_the_graph_or_the_memory_of_what_it_is_given() -> None:
    given = numbered(0, 1).clone().requires_grad_()
    pool = PicturePool(1)
    shown = pool.exchange(given * 2)
    assert not shown.requires_grad
    pictures = numbered(5, 1).clone()
    other = PicturePool(1)
    other.exchange(pictures)
    pictures.fill_(9)
    assert numbers_of(other.state()["kept"]) == [5]


def test_a_pool_goes_on_from_its_state_as_if_it_had_not_stopped() -> None:
    torch.manual_seed(1)
    pool = PicturePool(3)
    pool.exchange(numbered(0, 7))
    other = PicturePool(3)
    other.load_state({name: value.clone() for name, value in pool.state().items()})
    shown = []
    for each in (pool, other):
        torch.manual_seed(2)
        shown.append(each.exchange(numbered(7, 20)))
    assert torch.equal(*shown)
    assert torch.equal(pool.state()["kept"], other.state()["kept"])


def test_the_state_of_an_empty_pool_is_empty_and_empties_another() -> None:
    pool = PicturePool(3)
    assert pool.state() == {}
    pool.exchange(numbered(0, 2))
    pool.load_state({})
    assert pool.state() == {}

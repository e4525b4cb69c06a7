"""Which pictures a step sees, its seed and its learning rate follow from (seed, stage, step) alone."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter

import pytest
import torch

from mggc_edge.training.order import batch_indices, epoch_order, step_seed, steps_of
from mggc_edge.training.schedule import constant_then_linear, set_rate


def test_a_step_seed_is_half_of_the_first_8_bytes_of_a_sha256() -> None:
    digest = hashlib.sha256(b"7/finetune/12").digest()
    assert step_seed(7, "finetune", 12) == int.from_bytes(digest[:8], "big") // 2
    assert step_seed(7, "finetune", 12) == 6718250029003401872


def test_step_seeds_differ_by_seed_stage_and_step_and_fit_torch() -> None:
    places = list(itertools.product(range(5), ("train", "prune"), range(50)))
    seeds = {step_seed(*place) for place in places}
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_an_epoch_sees_every_picture_once_in_an_order_of_its_own() -> None:
    orders = [epoch_order(3, "train", epoch, 20) for epoch in range(4)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len(set(orders)) == 4
    assert epoch_order(4, "train", 0, 20) not in orders
    assert epoch_order(3, "other", 0, 20) not in orders


def test_batches_are_the_epochs_one_after_the_other_without_a_gap() -> None:
    seen = [number for step in range(14) for number in batch_indices(1, "train", step, 7, 3)]
    wanted = [number for epoch in range(6) for number in epoch_order(1, "train", epoch, 7)]
    assert seen == wanted  # 14 steps of 3 are 6 epochs of 7


def test_a_batch_may_be_larger_than_the_set() -> None:
    batch = batch_indices(1, "train", 0, 2, 5)
    assert len(batch) == 5
    assert Counter(batch[:4]) == {0: 2, 1: 2}


@pytest.mark.parametrize(
    ("epochs", "count", "batch", "steps"), [(1, 10, 1, 10), (0.5, 10, 1, 5), (3, 10, 4, 8), (0.001, 10, 4, 1)]
)
def test_the_number_of_steps_sees_the_pictures_epochs_times(epochs: float, count: int, batch: int, steps: int) -> None:
    assert steps_of(epochs, count, batch) == steps


def test_the_rate_is_constant_and_then_falls_on_a_line_that_ends_at_0() -> None:
    assert [constant_then_linear(step, 8, 0.5) for step in range(9)] == [1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]
    assert [constant_then_linear(step, 4, 1.0) for step in range(4)] == [1, 0.75, 0.5, 0.25]
    assert [constant_then_linear(step, 4, 0.0) for step in range(4)] == [1, 1, 1, 1]
    assert constant_then_linear(0, 1, 0.5) == 1


def test_a_rate_is_set_for_every_group_of_parameters() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.Adam([{"params": [p]} for p in parameters], lr=1.0)
    set_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]

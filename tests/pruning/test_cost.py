"""The cost of gates is the cost of the slim network, to the last multiplication, and its gradient is its slope."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.cost import MacsConvention, macs
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import LayerTable
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pruning.cost import GatedCost, budget_penalty
from tests.models.model_helpers import masks_of, size_for, small_networks, some_kept, spec_id

CONVENTIONS: list[MacsConvention] = ["true", "paper"]


def slim_macs(spec: NetworkSpec, counts: dict[str, int], convention: MacsConvention) -> int:
    return macs(layer_table(spec.with_widths(counts), size_for(spec)), convention)


def all_open(table: LayerTable) -> dict[str, Tensor]:
    return {group.name: torch.ones(group.size, dtype=torch.float64) for group in table.groups}


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("spec", small_networks(), ids=spec_id)
def test_gates_cost_what_the_slim_network_costs(spec: NetworkSpec, convention: MacsConvention) -> None:
    table = layer_table(spec, size_for(spec))
    cost = GatedCost(table, convention)
    assert cost.macs(all_open(table)).item() == cost.total == macs(table, convention)
    assert cost.fraction(all_open(table)).item() == 1
    for seed in range(4):
        kept = some_kept(spec, seed)
        counts = {name: len(channels) for name, channels in kept.items()}
        assert cost.macs(masks_of(table, kept, torch.float32)).item() == slim_macs(spec, counts, convention)


@pytest.mark.parametrize("separable", [False, True])
def test_a_network_without_inner_channels_costs_no_block(separable: bool) -> None:
    spec = resnet_spec(blocks=3, ngf=4, separable=separable)
    table = layer_table(spec, size_for(spec))
    empty = {f"block{block}.inner": 0 for block in (1, 2, 3)}
    gates = all_open(table) | {name: torch.zeros(16, dtype=torch.float64) for name in empty}
    assert GatedCost(table, "true").macs(gates).item() == slim_macs(spec, empty, "true")


@pytest.mark.parametrize("separable", [False, True])
def test_a_slim_network_with_a_removed_block_is_counted_too(separable: bool) -> None:
    spec = resnet_spec(blocks=3, ngf=4, norm="batch", separable=separable).with_widths(
        {"block2.inner": 0, "trunk": 5, "up1": 3}
    )
    table = layer_table(spec, size_for(spec))
    kept = some_kept(spec, 1, remove_blocks=False)
    counts = {name: len(channels) for name, channels in kept.items()}
    assert GatedCost(table, "paper").macs(masks_of(table, kept)).item() == slim_macs(spec, counts, "paper")


def test_the_full_size_networks_are_counted_exactly() -> None:
    for spec, paper, true in (
        (resnet_spec(blocks=9), 56_799_264_768, 49_551_507_456),
        (unet_spec(), 18_140_364_800, 6_048_186_368),
        (cartoongan_spec(), 61_631_102_976, 54_383_345_664),
    ):
        table = layer_table(spec, (256, 256))
        assert GatedCost(table, "paper").macs(all_open(table)).item() == paper
        assert GatedCost(table, "true").macs(all_open(table)).item() == true


def test_a_group_without_gates_is_whole() -> None:
    spec = unet_spec(halvings=3, ngf=4)
    table = layer_table(spec, (8, 8))
    cost = GatedCost(table, "true")
    assert cost.macs({}).item() == cost.total
    part = {"down2": torch.tensor([1.0, 0, 0, 1, 0, 0, 0, 0])}
    assert cost.macs(part).item() == macs(layer_table(spec.with_widths({"down2": 2}), (8, 8)), "true")


def test_the_gradient_is_what_one_more_channel_costs() -> None:
    # T is linear in every group: no row of this network reads the group that it writes.
    spec = unet_spec(halvings=3, ngf=4)
    table = layer_table(spec, (8, 8))
    cost = GatedCost(table, "true")
    kept = some_kept(spec, 3)
    gates = {name: mask.requires_grad_() for name, mask in masks_of(table, kept).items()}
    gradients = dict(zip(gates, torch.autograd.grad(cost.macs(gates), list(gates.values())), strict=True))
    counts = {name: len(channels) for name, channels in kept.items()}
    for name, gradient in gradients.items():
        more = macs(layer_table(spec.with_widths({**counts, name: counts[name] + 1}), (8, 8)), "true")
        now = macs(layer_table(spec.with_widths(counts), (8, 8)), "true")
        assert set(gradient.tolist()) == {more - now}, name


def test_the_gradient_reaches_gates_in_float32() -> None:
    table = layer_table(resnet_spec(blocks=1, ngf=4), (16, 16))
    gates = {name: mask.float().requires_grad_() for name, mask in all_open(table).items()}
    fraction = GatedCost(table, "true").fraction(gates)
    assert fraction.dtype == torch.float64
    for gradient in torch.autograd.grad(fraction, list(gates.values())):
        assert gradient.dtype == torch.float32
        assert bool((gradient > 0).all())


def penalty(fraction: float, budget: float, regularizer: str) -> tuple[float, float]:
    """R and dR/dT."""
    at = torch.tensor(fraction, dtype=torch.float64, requires_grad=True)
    value = budget_penalty(at, budget, regularizer)  # type: ignore[arg-type]
    (slope,) = torch.autograd.grad(value, at)
    return value.item(), slope.item()


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.2999])
def test_the_one_sided_penalty_has_no_value_and_no_gradient_below_the_budget(fraction: float) -> None:
    assert penalty(fraction, 0.3, "one_sided") == (0.0, 0.0)


@pytest.mark.parametrize("regularizer", ["one_sided", "two_sided"])
def test_above_the_budget_the_penalty_is_the_log_of_the_ratio(regularizer: str) -> None:
    value, slope = penalty(0.9, 0.3, regularizer)
    assert value == pytest.approx(math.log(3), abs=1e-12)
    assert slope == pytest.approx(1 / 0.9, abs=1e-12)


def test_the_two_sided_penalty_pushes_up_what_is_below() -> None:
    value, slope = penalty(0.1, 0.3, "two_sided")
    assert value == pytest.approx(math.log(3), abs=1e-12)
    assert slope == pytest.approx(-1 / 0.1, abs=1e-12)


def test_random_gates_cost_what_numpy_counts_by_hand() -> None:
    # Independent of the layer table's own count: one convolution of 3 to stem channels, kernel 7, at 16 x 16.
    table = layer_table(resnet_spec(blocks=1, ngf=4), (16, 16))
    rng = np.random.default_rng(0)
    n = {group.name: int(rng.integers(1, group.size)) for group in table.groups}
    gates = {group.name: (torch.arange(group.size) < n[group.name]).double() for group in table.groups}
    stem, down1, trunk, inner, up1, up2 = (n[name] for name in ("stem", "down1", "trunk", "block1.inner", "up1", "up2"))
    by_hand = (
        256 * 49 * 3 * stem
        + 64 * 9 * stem * down1
        + 16 * 9 * down1 * trunk
        + 2 * 16 * 9 * trunk * inner
        + 16 * 9 * trunk * up1  # transposed: input positions
        + 64 * 9 * up1 * up2
        + 256 * 49 * up2 * 3
    )
    assert GatedCost(table, "true").macs(gates).item() == by_hand

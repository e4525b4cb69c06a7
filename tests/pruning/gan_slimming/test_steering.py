"""The budget is met at the step that was named, whatever the scales did before, and kept from then on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mggc_edge.errors import PlanError
from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import LayerTable
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pruning.budget import kept_macs
from mggc_edge.pruning.gan_slimming.scales import scaled_groups, shrink
from mggc_edge.pruning.gan_slimming.steering import Steering
from mggc_edge.training.schedule import half_cosine

STEPS = 40
TABLES = [
    layer_table(resnet_spec(blocks=3, ngf=16), (32, 32)),
    layer_table(unet_spec(halvings=5, ngf=16), (32, 32)),
    layer_table(cartoongan_spec(blocks=3, ngf=16), (32, 32)),
]


def steering(table: LayerTable, budget: float, closing: float = 0.8, *, sums: bool = True) -> Steering:
    rates = [0.1 * half_cosine(step, STEPS) for step in range(STEPS)]
    return Steering(table, budget, "true", rates=rates, closing=closing, sums=sums)


def ones(table: LayerTable) -> dict[str, Tensor]:
    return {group.name: torch.ones(group.size) for group in scaled_groups(table)}


def run(table: LayerTable, budget: float, noise: float, closing: float = 0.8) -> list[float]:
    """The fraction of the MACs that is open after every step, of scales that noise moves."""
    found, steers, scales = [], steering(table, budget, closing), ones(table)
    minimum = {group.name: group.minimum for group in scaled_groups(table)}
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        for scale in scales.values():
            moved = noise * torch.randn(scale.shape, generator=generator)
            scale += torch.where(scale != 0, moved, 0.0)
        amount = steers.amount(step, scales)
        for name, scale in scales.items():
            shrink(scale, amount, minimum[name])
        found.append(steers.fraction(scales))
    return found


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.spec.family)
@pytest.mark.parametrize("budget", [0.05, 0.164, 0.6])
def test_scales_that_noise_moves_end_in_the_budget(table: LayerTable, budget: float) -> None:
    fractions = run(table, budget, noise=0.05)
    assert fractions[0] == 1.0
    assert all(fraction <= budget for fraction in fractions[31:])  # 0.8 of 40 steps, from 0
    assert fractions[31] >= 0.9 * budget  # short of one channel, which is much of so narrow a network


def test_closing_says_when_the_budget_is_met() -> None:
    fractions = run(TABLES[0], 0.3, noise=0.05, closing=0.25)
    assert fractions[4] > 0.3 >= fractions[9]


def test_without_gradients_a_steered_rho_is_constant_and_closes_just_the_smallest() -> None:
    table, budget = TABLES[0], 0.3
    steers, scales = steering(table, budget), ones(table)
    generator = torch.Generator().manual_seed(1)
    for scale in scales.values():
        scale.copy_(0.5 + torch.rand(scale.shape, generator=generator))
    first = {name: scale.clone() for name, scale in scales.items()}
    threshold = steers.threshold(scales)
    rhos = []
    for step in range(32):
        amount = steers.amount(step, scales)
        rhos.append(amount / (0.1 * half_cosine(step, STEPS)))
        for scale in scales.values():
            shrink(scale, amount, 0)
    assert rhos == pytest.approx([rhos[0]] * 32, rel=1e-4)
    for name, scale in scales.items():
        assert torch.equal(scale != 0, first[name] > threshold + 1e-6)
        torch.testing.assert_close(scale, (first[name] - threshold).clamp_min(0), rtol=0, atol=1e-5)


def test_the_threshold_is_the_smallest_that_meets_the_budget() -> None:
    table = TABLES[1]
    scales = {group.name: torch.rand(group.size) for group in scaled_groups(table)}
    steers = steering(table, 0.2)
    q = steers.threshold(scales)
    open_at = steers.fraction({name: torch.where(scale > q, scale, 0.0) for name, scale in scales.items()})
    one_more = steers.fraction({name: torch.where(scale >= q, scale, 0.0) for name, scale in scales.items()})
    assert open_at <= 0.2 < one_more
    assert steering(table, 1.0).threshold(scales) == 0.0


def test_the_fraction_is_that_of_the_slim_network_s_own_table() -> None:
    table = TABLES[2]
    scales = {group.name: torch.rand(group.size) for group in scaled_groups(table)}
    for name, scale in scales.items():
        shrink(scale, 0.5, int(not name.endswith(".inner")))
    scales["block2.inner"].zero_()
    kept = {group.name: tuple(range(group.size)) for group in table.groups}
    kept |= {name: tuple(torch.nonzero(scale)[:, 0].tolist()) for name, scale in scales.items()}
    total = kept_macs(table, {group.name: tuple(range(group.size)) for group in table.groups}, "true")
    assert steering(table, 0.5).fraction(scales) == pytest.approx(kept_macs(table, kept, "true") / total, rel=1e-12)


def test_a_budget_below_what_whole_residual_sums_need_is_refused() -> None:
    with pytest.raises(PlanError, match=r"a budget of 0\.002 cannot be met by gan-slimming: it keeps the channels of"):
        steering(TABLES[0], 0.002, sums=False)
    with pytest.raises(PlanError, match=r"a budget of 0\.002 cannot be met by gan-slimming: the smallest network that"):
        steering(TABLES[0], 0.002)
    assert steering(TABLES[0], 0.05).closed == 32  # of 40 steps

"""Uniform plans: one factor for every group, the heaviest filters of each, and the budget met from below."""

from __future__ import annotations

import pytest
import torch

from mggc_edge.errors import PlanError
from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.cost import MacsConvention, macs
from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pruning.magnitude import filter_norms
from mggc_edge.pruning.plan import PruningPlan
from mggc_edge.pruning.uniform import uniform_plan
from tests.models.model_helpers import network_of, spec_id

CONVENTIONS: tuple[MacsConvention, ...] = ("true", "paper")
SPECS = [
    resnet_spec(blocks=3, ngf=16),
    resnet_spec(blocks=3, ngf=16, norm="instance_affine", separable=True),
    unet_spec(halvings=6, ngf=8),
    cartoongan_spec(blocks=3, ngf=16),
]


def widths(plan: PruningPlan) -> dict[str, int]:
    return {group: len(kept) for group, kept in plan.kept.items()}


@pytest.mark.parametrize("budget", [0.05, 0.164, 0.5, 0.95])
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_one_factor_for_all_groups_meets_the_budget_from_below(
    spec: NetworkSpec, convention: MacsConvention, budget: float
) -> None:
    plan = uniform_plan(network_of(spec), budget, convention=convention)
    assert 0.98 * budget <= plan.budget_met <= budget
    found = widths(plan)
    # A width of n out of C comes from factors (n - 1/2) / C to (n + 1/2) / C; single channels fill the budget up.
    low = max((found[group] - 1.5) / size for group, size in spec.widths)
    high = min((found[group] + 1.5) / size for group, size in spec.widths)
    assert low <= high
    assert min(found.values()) >= 1


def test_before_the_budget_is_filled_up_every_width_is_its_group_s_size_times_the_factor_rounded() -> None:
    spec = unet_spec(halvings=6, ngf=8)
    network, factor = network_of(spec), 0.375  # 3/8: exactly n / C for every group
    wanted = {group: round(size * factor) for group, size in spec.widths}
    slender = layer_table(spec.with_widths(wanted), network.table.image_size)
    plan = uniform_plan(network, macs(slender) / macs(network.table))
    assert widths(plan) == wanted
    assert plan.budget_met == plan.budget


def test_a_resnet_of_the_usual_size_has_the_width_that_the_literature_gives_it() -> None:
    """ResNet-9 to 2.50 G of 56.80 G: the factor 0.2013, 12.9 of 64 channels."""
    spec = resnet_spec(blocks=9)
    with torch.device("meta"):
        shapes = Network(spec, layer_table(spec, (256, 256)))
    network = shapes.to_empty(device="cpu")
    for parameter in network.parameters():
        torch.nn.init.ones_(parameter)
    plan = uniform_plan(network, 2.5e9 / macs(network.table, "paper"), convention="paper")
    assert widths(plan)["stem"] == 13
    for group, size in spec.widths:
        assert widths(plan)[group] / size == pytest.approx(0.2013, abs=0.5 / 64)


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_the_heaviest_filters_of_every_group_stay(spec: NetworkSpec) -> None:
    network = network_of(spec)
    plan = uniform_plan(network, 0.3)
    for group in network.table.groups:
        norms, kept = filter_norms(network, group.name, group.size), plan.kept[group.name]
        gone = set(range(group.size)) - set(kept)
        assert gone
        assert min(norms[n] for n in kept) >= max(norms[n] for n in gone)


def test_a_residual_block_vanishes_only_where_the_budget_leaves_no_channel_for_it() -> None:
    network = network_of(resnet_spec(blocks=4, ngf=4))
    total = macs(network.table)

    def cost(inner: int) -> float:
        left = {group: inner if group.endswith(".inner") else 1 for group, _ in network.spec.widths}
        return macs(layer_table(network.spec.with_widths(left), network.table.image_size)) / total

    assert set(widths(uniform_plan(network, cost(1))).values()) == {1}
    fewer = widths(uniform_plan(network, (cost(0) + cost(1)) / 2))
    assert [group for group, count in fewer.items() if count == 0] != []
    assert all(group.endswith(".inner") for group, count in fewer.items() if count == 0)


def test_it_says_how_it_was_made_and_the_seed_changes_nothing() -> None:
    network = network_of(unet_spec(halvings=5, ngf=4))
    plan = uniform_plan(network, 0.4, seed=7, convention="paper", source_sha256="ab" * 32)
    assert (plan.criterion, plan.seed, plan.convention, plan.source_sha256) == ("uniform", 7, "paper", "ab" * 32)
    assert plan.kept == uniform_plan(network, 0.4, convention="paper").kept
    assert {group: len(scores) for group, scores in plan.scores.items()} == dict(network.spec.widths)
    plan.check_fits(network.spec)


def test_a_budget_of_1_keeps_everything_and_one_that_no_network_meets_is_refused() -> None:
    network = network_of(unet_spec(halvings=5, ngf=4))
    assert widths(uniform_plan(network, 1.0)) == dict(network.spec.widths)
    with pytest.raises(PlanError, match="the smallest network that can be left already keeps"):
        uniform_plan(network, 1e-4)

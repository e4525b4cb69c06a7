"""Random plans meet their budget, and the same seed gives the same plan."""

from __future__ import annotations

import pytest

from mggc_edge.errors import PlanError
from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.cost import MacsConvention, macs
from mggc_edge.models.families import layer_table
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.selection import slim_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pruning.plan import PruningPlan
from mggc_edge.pruning.random import random_plan

CONVENTIONS: tuple[MacsConvention, ...] = ("true", "paper")
SPECS = [
    resnet_spec(blocks=3, ngf=16),
    resnet_spec(blocks=3, ngf=16, norm="instance_affine", separable=True),
    cartoongan_spec(blocks=3, ngf=16),
    unet_spec(halvings=6, ngf=8),
    patchgan_spec(ndf=16, norm="batch"),
]


def name(spec: NetworkSpec) -> str:
    return f"{spec.family}-{'separable' if spec.separable else spec.norm}"


def check(plan: PruningPlan, spec: NetworkSpec, budget: float, convention: MacsConvention, size: int) -> None:
    slender = slim_spec(spec, plan.kept)  # every group is there, and its channels rise
    share = macs(layer_table(slender, (size, size)), convention) / macs(layer_table(spec, (size, size)), convention)
    assert plan.budget_met == share
    assert 0.98 * budget <= share <= budget


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("budget", [0.05, 0.25, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("spec", SPECS, ids=name)
def test_a_random_plan_keeps_98_to_100_percent_of_its_budget(
    spec: NetworkSpec, convention: MacsConvention, budget: float, seed: int
) -> None:
    plan = random_plan(layer_table(spec, (64, 64)), budget, seed=seed, convention=convention)
    check(plan, spec, budget, convention, 64)


@pytest.mark.parametrize("spec", [resnet_spec(), unet_spec(), cartoongan_spec(), patchgan_spec()], ids=name)
def test_a_random_plan_for_a_network_of_the_usual_size_meets_5_percent(spec: NetworkSpec) -> None:
    plan = random_plan(layer_table(spec, (256, 256)), 0.05)
    check(plan, spec, 0.05, "true", 256)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("budget", [0.02, 0.1, 0.3, 0.7])
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("spec", [resnet_spec(), unet_spec(), cartoongan_spec(), patchgan_spec()], ids=name)
def test_random_plans_for_networks_of_the_usual_size_meet_their_budget(
    spec: NetworkSpec, convention: MacsConvention, budget: float, seed: int
) -> None:
    plan = random_plan(layer_table(spec, (256, 256)), budget, seed=seed, convention=convention)
    check(plan, spec, budget, convention, 256)


@pytest.mark.parametrize("spec", SPECS, ids=name)
def test_the_same_seed_gives_the_same_plan_and_another_seed_another(spec: NetworkSpec) -> None:
    table = layer_table(spec, (64, 64))
    assert random_plan(table, 0.3, seed=7) == random_plan(table, 0.3, seed=7)
    assert random_plan(table, 0.3, seed=7).kept != random_plan(table, 0.3, seed=8).kept


def test_a_seed_gives_the_same_plan_on_every_machine() -> None:
    plan = random_plan(layer_table(patchgan_spec(ndf=4, layers=1), (16, 16)), 0.3, seed=0)
    assert plan.scores["layer1"] == (0.6369616873214543, 0.2697867137638703, 0.04097352393619469, 0.016527635528529094)
    assert plan.kept == {"layer1": (0,), "layer2": (0, 1, 2, 3, 4, 5, 6)}


def test_a_plan_says_how_it_was_made() -> None:
    spec = patchgan_spec(ndf=8)
    table = layer_table(spec, (64, 32))
    plan = random_plan(table, 0.5, seed=3, convention="paper", source_sha256="cd" * 32)
    assert (plan.criterion, plan.seed, plan.budget, plan.convention) == ("random", 3, 0.5, "paper")
    assert (plan.spec, plan.image_size, plan.source_sha256) == (spec, (64, 32), "cd" * 32)
    assert {group: len(scores) for group, scores in plan.scores.items()} == dict(spec.widths)
    assert all(0 <= score < 1 for scores in plan.scores.values() for score in scores)
    plan.check_fits(spec)


def test_a_budget_of_1_keeps_everything() -> None:
    spec = unet_spec(halvings=5, ngf=4)
    plan = random_plan(layer_table(spec), 1.0)
    assert slim_spec(spec, plan.kept) == spec
    assert plan.budget_met == 1.0


@pytest.mark.parametrize("budget", [0, -1, 1.5, float("nan"), 1e-6])
def test_a_budget_that_cannot_be_met_is_refused(budget: float) -> None:
    with pytest.raises(PlanError, match="a budget"):
        random_plan(layer_table(unet_spec(halvings=5, ngf=4)), budget)

"""Widths are rounded to multiples by the scores, and the budget is met from below as nearly as the grid allows."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mggc_edge.errors import PlanError
from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.cost import MacsConvention, macs
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import ChannelGroup, LayerTable
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pruning import align
from mggc_edge.pruning.align import Cost, check_aligned_budget, grid, meet_aligned_budget, shortfall, unaligned
from mggc_edge.pruning.budget import kept_macs, meet_budget
from mggc_edge.pruning.plan import PruningPlan
from mggc_edge.pruning.random import random_plan

CONVENTIONS: tuple[MacsConvention, ...] = ("true", "paper")
TABLES: dict[str, LayerTable] = {
    "resnet": layer_table(resnet_spec(blocks=3, ngf=32), (64, 64)),
    "mobile resnet": layer_table(resnet_spec(blocks=2, ngf=24, norm="instance_affine", separable=True), (64, 64)),
    "cartoongan": layer_table(cartoongan_spec(blocks=2, ngf=20), (64, 64)),
    "unet": layer_table(unet_spec(halvings=5, ngf=16), (64, 64)),
}
# Few enough choices to try all of them: at most 20,000, at a multiple of 4 or more.
SMALL: dict[str, LayerTable] = {
    "resnet": layer_table(resnet_spec(blocks=1, ngf=8), (32, 32)),
    "unet": layer_table(unet_spec(halvings=3, ngf=8), (32, 32)),
    "patchgan": layer_table(patchgan_spec(ndf=16), (64, 64)),
}

Scores = dict[str, list[float]]
quickly = settings(max_examples=40, deadline=None, derandomize=True, database=None)
cases = given(
    st.sampled_from(sorted(TABLES)),
    st.integers(0, 10_000),
    st.floats(0.1, 1.0),
    st.sampled_from([2, 3, 4, 5, 8, 16]),
    st.sampled_from(CONVENTIONS),
)


def random_scores(table: LayerTable, seed: int) -> Scores:
    source = random.Random(seed)
    return {group.name: [source.random() for _ in range(group.size)] for group in table.groups}


def smallest(table: LayerTable, multiple: int, convention: MacsConvention) -> float:
    widths = {group.name: grid(group, multiple)[0] for group in table.groups}
    return Cost(table, convention)(widths) / macs(table, convention)


def every_cost(table: LayerTable, multiple: int) -> set[int]:
    grids = [grid(group, multiple) for group in table.groups]
    assert math.prod(map(len, grids)) <= align.MAX_TRIED
    names, cost = [group.name for group in table.groups], Cost(table, "true")
    return {cost(dict(zip(names, widths, strict=True))) for widths in itertools.product(*grids)}


# --- the grid ---


@pytest.mark.parametrize(
    ("size", "minimum", "multiple", "widths"),
    [
        (64, 1, 16, (16, 32, 48, 64)),
        (64, 0, 16, (0, 16, 32, 48, 64)),
        (20, 1, 8, (8, 16, 20)),  # whole, it is what it was: it cannot grow to 24
        (5, 1, 8, (5,)),  # its vector is not full as it is
        (5, 0, 8, (0, 5)),
        (8, 1, 8, (8,)),
        (0, 0, 8, (0,)),  # removed already
        (3, 1, 1, (1, 2, 3)),
    ],
)
def test_a_group_has_these_widths(size: int, minimum: int, multiple: int, widths: tuple[int, ...]) -> None:
    assert grid(ChannelGroup("g", size, (), (), minimum), multiple) == widths


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("name", sorted(TABLES))
def test_the_cost_of_widths_is_that_of_the_network_that_has_them(name: str, convention: MacsConvention) -> None:
    table, source = TABLES[name], random.Random(1)
    cost = Cost(table, convention)
    for _ in range(20):
        widths = {group.name: source.choice([*grid(group, 5), group.minimum]) for group in table.groups}
        slim = layer_table(table.spec.with_widths(widths), table.image_size)
        assert cost(widths) == macs(slim, convention)


# --- properties ---


@quickly
@cases
def test_every_width_is_on_the_grid_and_the_best_scored_channels_stay(
    name: str, seed: int, budget: float, multiple: int, convention: MacsConvention
) -> None:
    table, scores = TABLES[name], random_scores(TABLES[name], seed)
    budget = max(budget, smallest(table, multiple, convention))
    kept = meet_aligned_budget(table, scores, budget, multiple, convention)
    assert list(kept) == [group.name for group in table.groups]
    for group in table.groups:
        assert len(kept[group.name]) in grid(group, multiple)
        ranked = sorted(range(group.size), key=lambda index, name=group.name: -scores[name][index])  # type: ignore[misc]
        assert kept[group.name] == tuple(sorted(ranked[: len(kept[group.name])]))


@quickly
@cases
def test_the_budget_is_never_exceeded_and_where_widths_are_many_it_is_met_within_2_percent(
    name: str, seed: int, budget: float, multiple: int, convention: MacsConvention
) -> None:
    table = TABLES[name]
    budget = max(budget, smallest(table, multiple, convention))
    kept = meet_aligned_budget(table, random_scores(table, seed), budget, multiple, convention)
    share = kept_macs(table, kept, convention) / macs(table, convention)
    assert share <= budget * (1 + 1e-12)
    if multiple <= 5 and budget >= 2 * smallest(table, multiple, convention):
        assert share >= 0.98 * budget


@pytest.mark.parametrize(("name", "multiple"), [("resnet", 4), ("resnet", 8), ("unet", 8), ("patchgan", 16)])
def test_against_every_choice_there_is_the_budget_is_met_or_nothing_is_nearer_below(name: str, multiple: int) -> None:
    table, costs = SMALL[name], every_cost(SMALL[name], multiple)
    total, source = macs(table), random.Random(7)
    met = 0
    for _ in range(25):
        budget = source.uniform(min(costs) / total, 1.0)
        kept = meet_aligned_budget(table, random_scores(table, source.randrange(10_000)), budget, multiple)
        spent, nearest = kept_macs(table, kept, "true"), max(cost for cost in costs if cost <= budget * total)
        if nearest >= 0.98 * budget * total:
            assert 0.98 * budget * total <= spent <= budget * total
            met += 1
        else:
            assert spent == nearest
    assert met > 0


@quickly
@cases
def test_channels_that_fill_up_a_vector_stay(
    name: str, seed: int, budget: float, multiple: int, convention: MacsConvention
) -> None:
    """Of a budget that the scores meet as they are rounded up, every channel above the threshold stays."""
    table, scores = TABLES[name], random_scores(TABLES[name], seed)
    threshold = budget
    wanted = {name: sum(score >= threshold for score in values) for name, values in scores.items()}
    widths = {
        group.name: min(width for width in grid(group, multiple) if width >= wanted[group.name])
        for group in table.groups
    }
    cost, total = Cost(table, convention)(widths), macs(table, convention)
    kept = meet_aligned_budget(table, scores, cost / total * (1 + 1e-9), multiple, convention)
    assert {name: len(indices) for name, indices in kept.items()} == widths


@quickly
@given(st.sampled_from(sorted(TABLES)), st.integers(0, 1000), st.floats(0.2, 1.0))
def test_a_multiple_of_1_is_the_plan_without_alignment(name: str, seed: int, budget: float) -> None:
    table, scores = TABLES[name], random_scores(TABLES[name], seed)
    assert meet_aligned_budget(table, scores, budget, 1) == meet_budget(table, scores, budget)


# --- particular cases ---


def test_a_residual_block_may_still_vanish_but_other_groups_keep_a_full_vector() -> None:
    table = TABLES["resnet"]
    scores = random_scores(table, 3)
    scores["block2.inner"] = [-1e9] * 128
    scores["up2"] = [-1e9 - index for index in range(32)]
    kept = meet_aligned_budget(table, scores, 0.3, 16)
    assert kept["block2.inner"] == ()
    assert kept["up2"] == tuple(range(16))


def test_groups_below_the_multiple_stay_whole() -> None:
    table = layer_table(resnet_spec(blocks=2, ngf=12), (64, 64))
    kept = meet_aligned_budget(table, random_scores(table, 0), 0.5, 16)
    assert len(kept["stem"]) == len(kept["up2"]) == 12
    assert {len(kept["down1"]), len(kept["up1"])} <= {16, 24}


def test_a_budget_of_1_keeps_everything_on_any_grid() -> None:
    table = TABLES["mobile resnet"]
    kept = meet_aligned_budget(table, random_scores(table, 0), 1.0, 7)
    assert {name: len(indices) for name, indices in kept.items()} == dict(table.spec.widths)


def test_a_budget_that_the_grid_does_not_reach_ends_below_and_is_said() -> None:
    table = SMALL["resnet"]
    costs = sorted(cost / macs(table) for cost in every_cost(table, 8))
    low, high = max(itertools.pairwise(costs), key=lambda pair: pair[1] / pair[0])
    assert high / low > 1.03
    budget = 0.999 * high
    plan = random_plan(table, budget, seed=1, align=8)
    assert (plan.budget_met, plan.budget, plan.align) == (low, budget, 8)
    assert shortfall(plan.budget_met, budget, 8) == (
        f"in widths of multiples of 8, {low:.4g} of the MACs is the nearest below the budget {budget:.4g} that was "
        "found"
    )
    assert shortfall(0.99 * budget, budget, 8) is None


def test_widths_off_the_grid_are_said_where_the_grid_meets_the_budget_too() -> None:
    table = TABLES["resnet"]
    plan, even = random_plan(table, 0.3, seed=4), random_plan(table, 0.3, seed=4, align=16)
    groups = [group for group in table.groups if group.size]
    off = sum(len(plan.kept[group.name]) not in grid(group, 16) for group in groups)
    assert 2 * off > len(groups)
    assert unaligned(table, plan.kept, 0.3, 16) == (
        f"{off} of {len(groups)} widths are no multiples of 16, which this machine runs at full speed: --align auto "
        "takes channels that cost no time, at the same budget"
    )
    assert unaligned(table, even.kept, 0.3, 16) is None
    assert unaligned(table, plan.kept, 0.3, 1) is None
    assert unaligned(SMALL["resnet"], random_plan(SMALL["resnet"], 0.1, seed=0).kept, 0.1, 16) is None


@pytest.mark.parametrize("tried", [1, 40])
def test_a_search_that_is_cut_short_still_keeps_the_budget(tried: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table = layer_table(resnet_spec(blocks=1, ngf=16), (32, 32))
    monkeypatch.setattr(align, "MAX_TRIED", tried)
    for seed in range(20):
        plan = random_plan(table, 0.6, seed=seed, align=16)
        assert 0.5 < plan.budget_met <= 0.6


# --- plans ---


def test_a_plan_is_aligned_by_its_own_scores_for_its_own_budget() -> None:
    plan = random_plan(TABLES["resnet"], 0.3, seed=4, convention="paper")
    aligned = plan.aligned(8)
    assert aligned == random_plan(TABLES["resnet"], 0.3, seed=4, convention="paper", align=8)
    assert PruningPlan.from_json(aligned.to_json()) == aligned
    assert aligned.to_json()["align"] == 8
    assert aligned.aligned(8) == aligned
    assert aligned.aligned(1) == plan


def test_a_plan_of_an_older_version_says_nothing_of_alignment() -> None:
    plan = random_plan(TABLES["unet"], 0.3)
    document = plan.to_json()
    del document["align"]
    assert PruningPlan.from_json(document) == plan


def test_a_plan_without_scores_cannot_be_aligned() -> None:
    plan = replace(random_plan(TABLES["unet"], 0.3), scores={}, criterion="zero-scales")
    with pytest.raises(PlanError) as error:
        plan.aligned(8)
    assert error.value.message == "the plan has no scores for group 'down1', by which its widths could be rounded"
    assert error.value.hint == "plans by zero-scales cannot be aligned after they were made"


def test_a_plan_whose_widths_are_not_what_it_says_is_refused() -> None:
    document = random_plan(TABLES["resnet"], 0.3, seed=4).to_json() | {"align": 16}
    with pytest.raises(PlanError, match="channels, no multiple of 16 as the plan says"):
        PruningPlan.from_json(document)


# --- refusals ---


@pytest.mark.parametrize("multiple", [0, -8, 16_385, 3.5, True, "8"])
def test_a_multiple_that_is_none_is_refused(multiple: int) -> None:
    with pytest.raises(PlanError) as error:
        meet_aligned_budget(TABLES["unet"], {}, 0.5, multiple)
    assert error.value.message == (
        f"widths are rounded to multiples of a whole number from 1 to 16384, not of {multiple!r}"
    )


def test_a_budget_below_the_smallest_network_on_the_grid_is_refused_with_one_that_is_met() -> None:
    table = TABLES["resnet"]
    with pytest.raises(PlanError) as error:
        check_aligned_budget(table, 0.01, 16)
    least = smallest(table, 16, "true")
    assert least > 0.01
    assert error.value.message == (
        "a budget of 0.01 cannot be met: the smallest network that can be left in widths of multiples of 16 already "
        f"keeps {least:.2g} of the MACs"
    )
    assert error.value.hint is not None
    advised, _, rest = error.value.hint.removeprefix("ask for at least ").partition("; ")
    assert rest == "smaller multiples leave smaller ones"
    kept = meet_aligned_budget(table, random_scores(table, 0), float(advised), 16)
    assert kept_macs(table, kept, "true") / macs(table) <= float(advised)
    check_aligned_budget(table, 0.01, 1)

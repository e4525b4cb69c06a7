"""A budget is met from below, within 2 %, with the best-scored channels."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mggc_edge.errors import PlanError
from mggc_edge.models.cost import MacsConvention, macs
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import LayerTable
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pruning.budget import check_budget, kept_macs, meet_budget

CONVENTIONS: tuple[MacsConvention, ...] = ("true", "paper")
TABLES: dict[str, LayerTable] = {
    "resnet": layer_table(resnet_spec(blocks=2, ngf=16), (64, 64)),
    "mobile resnet": layer_table(resnet_spec(blocks=3, ngf=16, norm="instance_affine", separable=True), (64, 64)),
    "unet": layer_table(unet_spec(halvings=5, ngf=16), (64, 64)),
    "patchgan": layer_table(patchgan_spec(ndf=16), (64, 64)),
}

Scores = dict[str, list[float]]


def random_scores(table: LayerTable, seed: int) -> Scores:
    """Scores without ties."""
    source = random.Random(seed)
    return {group.name: [source.random() for _ in range(group.size)] for group in table.groups}


def every_channel(table: LayerTable) -> dict[str, tuple[int, ...]]:
    return {group.name: tuple(range(group.size)) for group in table.groups}


cases = given(
    st.sampled_from(sorted(TABLES)), st.integers(0, 10_000), st.floats(0.1, 1.0), st.sampled_from(CONVENTIONS)
)  # fmt: skip
quickly = settings(max_examples=40, deadline=None, derandomize=True, database=None)


# --- properties ---


@quickly
@cases
def test_the_cost_is_between_98_and_100_percent_of_the_budget(
    name: str, seed: int, budget: float, convention: MacsConvention
) -> None:
    table = TABLES[name]
    kept = meet_budget(table, random_scores(table, seed), budget, convention)
    share = kept_macs(table, kept, convention) / macs(table, convention)
    assert 0.98 * budget <= share <= budget


@quickly
@cases
def test_in_every_group_the_best_scored_channels_stay(
    name: str, seed: int, budget: float, convention: MacsConvention
) -> None:
    table, scores = TABLES[name], random_scores(TABLES[name], seed)
    kept = meet_budget(table, scores, budget, convention)
    assert list(kept) == [group.name for group in table.groups]
    for group in table.groups:
        ranked = sorted(range(group.size), key=lambda index, name=group.name: -scores[name][index])  # type: ignore[misc]
        assert kept[group.name] == tuple(sorted(ranked[: len(kept[group.name])]))
        assert group.minimum <= len(kept[group.name]) <= group.size


@quickly
@cases
def test_a_channel_that_went_though_a_worse_one_stayed_would_have_broken_the_budget(
    name: str, seed: int, budget: float, convention: MacsConvention
) -> None:
    table, scores = TABLES[name], random_scores(TABLES[name], seed)
    kept = meet_budget(table, scores, budget, convention)
    limit = budget * macs(table, convention)
    by_choice = [
        scores[group.name][index]
        for group in table.groups
        for index in sorted(kept[group.name], key=lambda index, name=group.name: -scores[name][index])[group.minimum :]  # type: ignore[misc]
    ]
    worst = min(by_choice, default=1.0)
    for group in table.groups:
        gone = [index for index in range(group.size) if index not in kept[group.name]]
        for index in gone:
            if scores[group.name][index] > worst:
                wider = {**kept, group.name: (*kept[group.name], index)}
                assert kept_macs(table, wider, convention) > limit
                break  # all channels of a group cost the same


# --- particular cases ---


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_budget_of_1_keeps_everything(name: str, convention: MacsConvention) -> None:
    table = TABLES[name]
    assert meet_budget(table, random_scores(table, 0), 1.0, convention) == every_channel(table)


def test_every_group_keeps_one_channel_however_bad_its_score() -> None:
    table = TABLES["unet"]
    scores = {group.name: [1.0 + index for index in range(group.size)] for group in table.groups}
    scores["down3"] = [-1e9 - index for index in range(len(scores["down3"]))]
    kept = meet_budget(table, scores, 0.3)
    assert kept["down3"] == (0,)


def test_the_inner_channels_of_a_residual_block_may_all_go() -> None:
    table = TABLES["resnet"]
    scores = {group.name: [1.0 + index for index in range(group.size)] for group in table.groups}
    scores["block2.inner"] = [-1e9] * len(scores["block2.inner"])
    kept = meet_budget(table, scores, 0.3)
    assert kept["block2.inner"] == ()
    assert len(kept["block1.inner"]) > 0


def test_equal_scores_are_broken_the_same_way_every_time() -> None:
    table = TABLES["resnet"]
    scores = {group.name: [0.0] * group.size for group in table.groups}
    first, second = (meet_budget(table, scores, 0.5) for _ in range(2))
    assert first == second
    assert all(indices == tuple(range(len(indices))) for indices in first.values())


def test_the_two_conventions_choose_different_channels() -> None:
    table = TABLES["unet"]
    scores = random_scores(table, 1)
    true, paper = (meet_budget(table, scores, 0.4, convention) for convention in CONVENTIONS)
    assert true != paper


def test_only_the_order_of_scores_counts() -> None:
    table = TABLES["patchgan"]
    scores = random_scores(table, 2)
    bent = {group: [1000 * score**3 - 7 for score in values] for group, values in scores.items()}
    assert meet_budget(table, bent, 0.4) == meet_budget(table, scores, 0.4)


def test_kept_macs_of_every_channel_is_the_cost_of_the_network() -> None:
    for table in TABLES.values():
        for convention in CONVENTIONS:
            assert kept_macs(table, every_channel(table), convention) == macs(table, convention)


# --- refusals ---


@pytest.mark.parametrize("budget", [0, -0.1, 1.0000001, 2, float("nan"), float("inf")])
def test_a_budget_that_is_no_fraction_is_refused(budget: float) -> None:
    table = TABLES["patchgan"]
    with pytest.raises(PlanError) as error:
        meet_budget(table, random_scores(table, 0), budget)
    assert error.value.message == f"a budget is a fraction above 0 and up to 1, not {budget:g}"


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_budget_below_the_smallest_network_is_refused_with_what_that_keeps(convention: MacsConvention) -> None:
    table = TABLES["unet"]
    least = {group.name: (0,) for group in table.groups}
    floor = kept_macs(table, least, convention) / macs(table, convention)
    with pytest.raises(PlanError) as error:
        meet_budget(table, random_scores(table, 0), 0.99 * floor, convention)
    assert error.value.message == (
        f"a budget of {0.99 * floor:g} cannot be met: the smallest network that can be left already keeps "
        f"{floor:.2g} of the MACs"
    )
    assert error.value.hint is not None
    assert error.value.hint.startswith("ask for at least 0.00")


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("name", sorted(TABLES))
def test_the_smallest_budget_that_is_recommended_can_be_met(name: str, convention: MacsConvention) -> None:
    table, scores = TABLES[name], random_scores(TABLES[name], 0)
    with pytest.raises(PlanError) as error:
        meet_budget(table, scores, 1e-9, convention)
    assert error.value.hint is not None
    advised = float(error.value.hint.removeprefix("ask for at least "))
    kept = meet_budget(table, scores, advised, convention)
    assert 0.98 * advised <= kept_macs(table, kept, convention) / macs(table, convention) <= advised


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_budget_in_macs_is_answered_in_macs_too(name: str, convention: MacsConvention) -> None:
    table, scores = TABLES[name], random_scores(TABLES[name], 0)
    total = macs(table, convention)
    with pytest.raises(PlanError) as error:
        check_budget(table, 1000 / total, convention, asked="1k")
    written, keeps = error.value.message.split(" cannot be met: ")
    assert written == f"a budget of 1k MACs ({1000 / total:.3g} of the original's)"
    assert keeps.startswith("the smallest network that can be left already keeps ")
    assert error.value.hint is not None
    match = re.fullmatch(r"ask for at least (0\.\d+), or ([\d.]+)([kMG])", error.value.hint)
    assert match is not None
    advised = float(match[2]) * {"k": 1e3, "M": 1e6, "G": 1e9}[match[3]]
    assert 0.98 * float(match[1]) <= advised / total <= 1.02 * float(match[1])
    kept = meet_budget(table, scores, advised / total, convention)
    assert 0.98 * advised <= kept_macs(table, kept, convention) <= advised


def test_a_budget_finer_than_the_network_is_refused_with_what_is_nearest() -> None:
    table = layer_table(patchgan_spec(ndf=2, layers=1), (16, 16))
    scores = {group.name: [0.0] * group.size for group in table.groups}
    with pytest.raises(PlanError) as error:
        meet_budget(table, scores, 0.5)
    assert error.value.message == "no plan within 2% of the budget 0.5 was found; the nearest keeps 0.4859"
    assert error.value.hint == (
        "this network has too few channels for so fine a budget; ask for a slightly different budget"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer2": [0.0] * 31}, "group 'layer2' has 32 channels, but 31 scores"),
        ({"layer2": [0.0] * 33}, "group 'layer2' has 32 channels, but 33 scores"),
        ({"layer2": None}, "group 'layer2' has 32 channels, but 0 scores"),
    ],
)
def test_scores_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    table = TABLES["patchgan"]
    scores = {key: value for key, value in {**random_scores(table, 0), **change}.items() if value is not None}
    with pytest.raises(PlanError) as error:
        meet_budget(table, scores, 0.5)
    assert error.value.message == message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite_are_refused(value: float) -> None:
    table = TABLES["patchgan"]
    scores = random_scores(table, 0)
    scores["layer2"][3] = value
    with pytest.raises(PlanError) as error:
        meet_budget(table, scores, 0.5)
    assert error.value.message == "group 'layer2' has a score that is not a finite number"


@pytest.mark.parametrize("seed", range(8))
def test_where_every_channel_that_is_left_costs_too_much_cheaper_ones_make_room(seed: int) -> None:
    table = layer_table(resnet_spec(blocks=3, ngf=8, separable=True), (64, 64))
    kept = meet_budget(table, random_scores(table, seed), 0.985)
    assert 0.98 * 0.985 <= kept_macs(table, kept, "true") / macs(table, "true") <= 0.985


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("budget", [0.3, 0.62, 0.93])
def test_narrow_networks_whose_channels_cost_more_than_the_tolerance_meet_their_budget(
    budget: float, seed: int
) -> None:
    table = layer_table(resnet_spec(blocks=1, ngf=4), (64, 64))
    kept = meet_budget(table, random_scores(table, seed), budget)
    assert 0.98 * budget <= kept_macs(table, kept, "true") / macs(table, "true") <= budget


def test_what_has_been_removed_already_needs_no_scores() -> None:
    spec = resnet_spec(blocks=2, ngf=16).with_widths({"block1.inner": 0})
    table = layer_table(spec, (64, 64))
    scores = random_scores(table, 0)
    del scores["block1.inner"]
    kept = meet_budget(table, scores, 0.5)
    assert kept["block1.inner"] == ()
    assert 0.49 <= kept_macs(table, kept, "true") / macs(table, "true") <= 0.5


@pytest.mark.parametrize(("seed", "budget"), [(1, 0.7), (1, 0.9), (4, 0.8), (6, 0.6), (11, 0.45)])
def test_where_only_dear_channels_can_make_room_what_they_free_is_filled_again(seed: int, budget: float) -> None:
    table = layer_table(patchgan_spec(ndf=3, layers=2), (32, 32))
    kept = meet_budget(table, random_scores(table, seed), budget)
    assert 0.98 * budget <= kept_macs(table, kept, "true") / macs(table, "true") <= budget

"""The plans: the generator's is within its budget, the discriminator's is what its agent holds open."""

from __future__ import annotations

import pytest
import torch

from mggc_edge.errors import PlanError
from mggc_edge.models.cost import MacsConvention, macs
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import LayerTable
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.slim import slim
from mggc_edge.pruning.apply import apply_plan
from mggc_edge.pruning.mggc.architecture import _threshold, discriminator_kept, discriminator_plan, generator_plan
from mggc_edge.pruning.plan import PruningPlan
from tests.models.model_helpers import network_of
from tests.pruning.mggc.game_helpers import play, tiny_game

RESNET = layer_table(resnet_spec(blocks=2, ngf=8), (32, 32))
PATCHGAN = layer_table(patchgan_spec(ndf=8, layers=2), (32, 32))


def some_logits(table: LayerTable, shift: float = 0.0) -> dict[str, list[float]]:
    generator = torch.Generator().manual_seed(0)
    return {group.name: (torch.randn(group.size, generator=generator) + shift).tolist() for group in table.groups}


@pytest.mark.parametrize("convention", ["true", "paper"])
@pytest.mark.parametrize("shift", [-5.0, 0.0, 5.0])
@pytest.mark.parametrize("budget", [0.1, 0.5])
def test_the_generator_s_plan_fills_its_budget_from_both_sides(
    budget: float, shift: float, convention: MacsConvention
) -> None:
    logits = some_logits(RESNET, shift)
    plan = generator_plan(RESNET, logits, budget, seed=3, convention=convention, source_sha256="a" * 64)
    assert 0.98 * budget <= plan.budget_met <= budget
    assert (plan.criterion, plan.seed, plan.budget, plan.convention) == ("mggc", 3, budget, convention)
    assert plan.source_sha256 == "a" * 64
    assert plan.image_size == (32, 32)
    assert {name: list(scores) for name, scores in plan.scores.items()} == logits
    for name, kept in plan.kept.items():
        scores = logits[name]
        closed = [score for index, score in enumerate(scores) if index not in kept]
        assert not closed or not kept or min(scores[index] for index in kept) >= max(closed), name


def test_the_generator_s_plan_is_aligned_by_its_logits() -> None:
    logits = some_logits(RESNET)
    plan = generator_plan(RESNET, logits, 0.5, seed=0, align=8)
    assert plan == generator_plan(RESNET, logits, 0.5, seed=0).aligned(8)
    assert {len(kept) % 8 for kept in plan.kept.values()} == {0}


def test_a_plan_keeps_the_macs_that_it_says() -> None:
    network = network_of(RESNET.spec, size=(32, 32))
    plan = generator_plan(network.table, some_logits(network.table), 0.3, seed=0)
    small = apply_plan(network, plan)
    assert macs(small.table) / macs(network.table) == pytest.approx(plan.budget_met, abs=1e-12)


def test_the_discriminator_keeps_what_is_open_in_half_of_the_draws() -> None:
    logits = {
        "layer1": [0.3665, 0.3666, -1, 3, 0, 0, 0, 0],
        "layer2": [-5.0 - index for index in range(15)] + [-4.0],
        "layer3": [1.0] * 32,
    }
    kept = discriminator_kept(PATCHGAN, logits)
    assert kept == {"layer1": (1, 3), "layer2": (15,), "layer3": tuple(range(32))}
    assert discriminator_kept(PATCHGAN, logits, "logistic")["layer1"] == (0, 1, 3, 4, 5, 6, 7)
    assert discriminator_kept(PATCHGAN, logits, "gumbel_sibling")["layer1"] == (0, 1, 3, 4, 5, 6, 7)


def test_the_discriminator_s_plan_has_for_its_budget_what_it_keeps() -> None:
    plan = discriminator_plan(PATCHGAN, some_logits(PATCHGAN), seed=1, convention="paper")
    assert plan.budget == plan.budget_met
    assert 0 < plan.budget < 1
    network = network_of(PATCHGAN.spec, size=(32, 32))
    small = slim(network, plan.kept)
    assert macs(small.table, "paper") / macs(PATCHGAN, "paper") == pytest.approx(plan.budget, abs=1e-12)


def test_a_discriminator_without_logits_stays_whole() -> None:
    plan = discriminator_plan(PATCHGAN, {}, seed=1)
    assert (plan.budget, plan.budget_met, dict(plan.scores)) == (1, 1, {})
    assert all(len(plan.kept[group.name]) == group.size for group in PATCHGAN.groups)


def test_logits_of_another_network_are_refused() -> None:
    with pytest.raises(PlanError, match="group 'stem' has 8 channels, but 0 scores"):
        generator_plan(RESNET, some_logits(PATCHGAN), 0.3, seed=0)
    with pytest.raises(PlanError):
        discriminator_plan(PATCHGAN, {"layer1": [1.0] * 3}, seed=0)


def test_a_game_ends_in_plans_within_the_budget() -> None:
    game = tiny_game(budget=0.3)
    play(game, 5)
    for_generator, for_discriminator = game.logits()
    plan = generator_plan(game._generator.table, for_generator, 0.3, seed=0)
    assert 0.98 * 0.3 <= plan.budget_met <= 0.3
    assert 0 < discriminator_plan(game._discriminator.table, for_discriminator, seed=0).budget <= 1


def widths(plan: PruningPlan) -> dict[str, int]:
    return {name: len(kept) for name, kept in plan.kept.items()}


def test_evenness_1_leaves_every_group_the_same_fraction_and_its_best_channels() -> None:
    logits = some_logits(RESNET)
    for number, name in enumerate(logits):  # one threshold for all would leave the first groups nothing
        logits[name] = [score + 3 * number for score in logits[name]]
    plan = generator_plan(RESNET, logits, 0.3, seed=0, evenness=1.0)
    assert 0.98 * 0.3 <= plan.budget_met <= 0.3
    fractions = [len(plan.kept[group.name]) / group.size for group in RESNET.groups]
    assert max(fractions) - min(fractions) <= 1 / 8  # a channel of the smallest group
    for name, kept in plan.kept.items():
        best = sorted(range(len(logits[name])), key=lambda index: -logits[name][index])
        assert set(kept) == set(best[: len(kept)])


def test_evenness_moves_widths_from_those_of_one_threshold_to_even_ones() -> None:
    logits = some_logits(RESNET)
    for number, name in enumerate(logits):
        logits[name] = [score + number / 3 for score in logits[name]]
    spread = []
    for evenness in (0.0, 0.5, 1.0):
        plan = generator_plan(RESNET, logits, 0.3, seed=0, evenness=evenness)
        fractions = torch.tensor([len(plan.kept[group.name]) / group.size for group in RESNET.groups])
        spread.append(fractions.std().item())
    assert spread[0] > 1.3 * spread[1] > 1.3 * 1.3 * spread[2]


@pytest.mark.parametrize(("scores", "count", "cut"), [([3, 1, 2], 2, 1.5), ([3, 1, 2], 3, 0), ([3, 1, 2], 0, 4)])
def test_a_threshold_lies_between_what_stays_and_what_goes(scores: list[float], count: int, cut: float) -> None:
    assert _threshold(scores, count) == cut


def test_the_largest_filters_can_take_the_place_of_the_agents_best() -> None:
    logits = some_logits(RESNET)
    norms = {name: [float(index) for index in range(len(scores))] for name, scores in logits.items()}
    plain = generator_plan(RESNET, logits, 0.3, seed=0)
    plan = generator_plan(RESNET, logits, 0.3, seed=0, norms=norms)
    assert widths(plan) == widths(plain)
    assert plan.kept != plain.kept
    for name, kept in plan.kept.items():
        assert kept == tuple(range(len(norms[name])))[len(norms[name]) - len(kept) :]

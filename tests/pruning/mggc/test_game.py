"""The game: who learns from what, what is never touched, and that the budget is reached."""

from __future__ import annotations

import copy
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mggc_edge.errors import InputError, SettingError, SpecError
from mggc_edge.models.network import Network
from mggc_edge.pruning.cost import budget_penalty
from mggc_edge.pruning.mggc.agents import GruAgent
from mggc_edge.pruning.mggc.game import Game
from mggc_edge.pruning.mggc.neighborhoods import draw_neighbors
from mggc_edge.pruning.mggc.settings import GameSettings
from mggc_edge.training.loop import Journal, run_stage
from mggc_edge.training.losses import GanLoss, discriminator_loss, generator_loss
from mggc_edge.training.order import Share, batch_indices
from tests.pruning.mggc.game_helpers import (
    batch_norm_discriminator,
    gradients,
    made_by,
    play,
    random_bank,
    tiny_discriminator,
    tiny_game,
    tiny_resnet,
    tiny_unet,
)

UNCLIPPED = 1e9


def settings(**changes: Any) -> GameSettings:
    return GameSettings(**{"clip": UNCLIPPED, **changes})


def largest(tensors: list[Tensor]) -> float:
    return max(tensor.abs().max().item() for tensor in tensors)


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def first_step(**changes: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The gradients of G's and of D's agent in the first step."""
    game = tiny_game(**{"settings": settings(), **changes})
    play(game, 1)
    return gradients(game.generator_agent), gradients(game.discriminator_agent)


def listening_game(**changes: Any) -> Game:
    """A game whose agents already hear each other, after a step, so that every path carries a gradient."""
    game = tiny_game(**{"settings": settings(), **changes})
    for agent in (game.generator_agent, game.discriminator_agent):
        torch.nn.init.normal_(agent.peer.weight, 0, 0.05)  # type: ignore[union-attr,arg-type]
    play(game, 1)
    return game


# --- who learns from what ---


def test_without_the_budget_the_generator_s_agent_learns_from_the_discriminator() -> None:
    changes = {"settings": settings(lambda_1=0.0)}
    first, _ = first_step(**changes)
    second, _ = first_step(**changes, discriminator=tiny_discriminator(seed=9))
    assert largest(first) > 1e-5
    assert not equal(first, second)


def test_another_real_picture_changes_the_gradient_of_the_discriminator_s_agent_only() -> None:
    inputs = random_bank(4, 3, 16)
    first_g, first_d = first_step(inputs=inputs)
    second_g, second_d = first_step(inputs=inputs, outputs=random_bank(4, 3, 16, seed=8))
    assert equal(first_g, second_g)
    assert not equal(first_d, second_d)


def test_another_neighborhood_changes_the_gradient_of_the_discriminator_s_agent_only() -> None:
    one, other = (
        first_step(neighbors=torch.tensor([[(i + step) % 4] * 7 for i in range(4)])) for step in (1, 2)
    )  # fmt: skip
    assert equal(one[0], other[0])
    assert not equal(one[1], other[1])


def test_lambda_1_moves_the_generator_s_agent_only_and_lambda_2_the_discriminator_s_only() -> None:
    base = first_step()
    more_1, more_2 = (
        first_step(settings=settings(lambda_1=6.0)),
        first_step(settings=settings(lambda_2=0.5)),
    )
    assert not equal(base[0], more_1[0])
    assert equal(base[1], more_1[1])
    assert equal(base[0], more_2[0])
    assert not equal(base[1], more_2[1])


@pytest.mark.parametrize("loss", ["lsgan", "hinge", "vanilla"])
def test_every_agent_has_the_gradient_of_its_own_loss_alone(loss: GanLoss) -> None:
    """Against two passes as eq. 2 writes them: the fake picture detached for D, the gates of D detached for G."""
    game = listening_game(settings=settings(loss=loss))
    reference = copy.deepcopy(game)
    play(game, 1, first=1)

    torch.manual_seed(1)
    centers = batch_indices(0, "prune", 1, 4, 1)
    others = draw_neighbors(reference._neighbors, centers, Share(1).draws(0, "prune/neighbors", 1))
    x, real = reference._inputs.batch(centers), reference._outputs.batch(others)
    gates_d, gates_g, _ = reference._choose()
    net_g, net_d = reference._generator, reference._discriminator
    fake = net_g(x, gates_g, "batch")
    kept = sum(gate.sum() for gate in gates_d.values()) / sum(len(gate) for gate in gates_d.values())
    loss_d = discriminator_loss(loss, net_d(real, gates_d, "batch"), net_d(fake.detach(), gates_d, "batch"))
    closed = {name: gate.detach() for name, gate in gates_d.items()}
    loss_g = generator_loss(loss, net_d(fake, closed, "batch"))
    loss_g = loss_g + 3.0 * budget_penalty(reference._cost.fraction(gates_g), 0.3)
    assert reference.discriminator_agent is not None
    for agent, own, other in (
        (reference.generator_agent, loss_g, loss_d + 0.1 * kept),
        (reference.discriminator_agent, loss_d + 0.1 * kept, loss_g),
    ):
        parameters = list(agent.parameters())
        assert all(g is None for g in torch.autograd.grad(other, parameters, retain_graph=True, allow_unused=True))
        wanted = torch.autograd.grad(own, parameters, retain_graph=True)
        name = "generator" if agent is reference.generator_agent else "discriminator"
        for got, want in zip(gradients(game._agents()[name]), wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
            assert want.abs().max().item() > 0


def test_below_the_budget_the_one_sided_penalty_adds_nothing_to_the_gradient() -> None:
    game = tiny_game(budget=1.0, settings=settings(lambda_1=1e6, regularizer="one_sided"))
    (metrics,) = play(game, 1)
    assert metrics["regularizer"] == 0
    without, _ = first_step(budget=1.0, settings=settings(lambda_1=0.0))
    assert equal(gradients(game.generator_agent), without)


def test_the_ears_of_the_agents_learn_from_the_first_moment_that_there_is_something_to_hear() -> None:
    game = tiny_game(settings=settings())

    def slopes(agent: torch.nn.Module | None) -> list[float]:
        """Of the ear's weight and bias."""
        assert isinstance(agent, GruAgent)
        assert agent.peer is not None
        return [p.grad.abs().max().item() for p in agent.peer.parameters() if p.grad is not None]

    play(game, 1)
    assert min(slopes(game.generator_agent)) > 0
    weight, bias = slopes(game.discriminator_agent)
    assert weight == 0  # h_G is zero before the first step: nothing to hear yet
    assert bias > 0
    play(game, 1, first=1)
    assert min(slopes(game.discriminator_agent)) > 0


def test_after_some_steps_both_agents_answer_to_what_the_other_one_says() -> None:
    game = tiny_game()
    play(game, 4)
    for agent in game._agents().values():
        said = [agent(torch.full((3, 256), value))[0] for value in (0.0, 0.5)]
        assert any((said[0][name] - said[1][name]).abs().max().item() > 1e-6 for name in said[0])


def test_the_discriminator_s_agent_hears_the_step_before_and_the_generator_s_this_one() -> None:
    game = listening_game()
    assert game.discriminator_agent is not None
    before = game._h.clone()
    h_d = game.discriminator_agent(before)[1]
    h_g = game.generator_agent(h_d)[1]
    play(game, 1, first=1)
    assert torch.equal(game._h, h_g)
    assert not torch.equal(game._h, before)


def test_gradients_are_clipped_and_their_norm_before_that_is_told() -> None:
    game = tiny_game(settings=GameSettings(clip=0.01))
    (metrics,) = play(game, 1)
    for agent, name in ((game.generator_agent, "g"), (game.discriminator_agent, "d")):
        norm = torch.stack([gradient.norm() for gradient in gradients(agent)]).norm().item()
        assert norm == pytest.approx(0.01, rel=1e-3)
        assert metrics[f"gradient_norm_{name}"] > 0.01


# --- what is never touched ---


def tensors_of(network: Network) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def untouched(network: Network, before: dict[str, Tensor]) -> bool:
    after = network.state_dict()
    return after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("kind", ["resnet", "unet"])
def test_weights_and_buffers_of_both_networks_are_bit_equal_after_some_steps(kind: str) -> None:
    unet = kind == "unet"
    generator = tiny_unet() if unet else tiny_resnet()
    discriminator = batch_norm_discriminator() if unet else tiny_discriminator()
    inputs = random_bank(3, 3, 64 if unet else 16)
    outputs = made_by(generator, inputs)
    before = tensors_of(generator), tensors_of(discriminator)
    modes = generator.training, discriminator.training
    game = tiny_game(
        generator=generator, discriminator=discriminator, inputs=inputs, outputs=outputs, settings=settings()
    )
    play(game, 3)
    for network, state in zip((generator, discriminator), before, strict=True):
        assert untouched(network, state)
        assert all(parameter.requires_grad for parameter in network.parameters())
    for copied, state in zip((game._generator, game._discriminator), before, strict=True):
        assert untouched(copied, state)
        assert all(parameter.grad is None for parameter in copied.parameters())
    assert (generator.training, discriminator.training) == modes
    assert largest(gradients(game.generator_agent)) > 0
    assert largest(gradients(game.discriminator_agent)) > 0


def test_dropout_acts_where_the_architecture_has_it() -> None:
    generator = tiny_unet()
    inputs = random_bank(3, 3, 64)
    game = tiny_game(
        generator=generator, discriminator=batch_norm_discriminator(), inputs=inputs, outputs=made_by(generator, inputs)
    )
    first, second = (game._generator(inputs.pictures, None, "batch") for _ in range(2))
    assert (first - second).abs().max().item() > 1e-4


# --- conditional discriminators ---


def test_a_conditional_discriminator_sees_the_centre_s_input_or_the_neighbor_s() -> None:
    neighbors = torch.tensor([[(i + 1) % 4] * 7 for i in range(4)])
    conditional = {"discriminator": tiny_discriminator(in_channels=6), "neighbors": neighbors}
    center = first_step(**conditional)
    other = first_step(**conditional, settings=settings(pairing="neighbor"))
    assert equal(center[0], other[0])
    assert not equal(center[1], other[1])


def test_an_unconditional_discriminator_has_no_pairing() -> None:
    one, other = first_step(), first_step(settings=settings(pairing="neighbor"))
    assert equal(one[0], other[0])
    assert equal(one[1], other[1])


def test_a_discriminator_of_other_pictures_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        tiny_game(discriminator=tiny_discriminator(in_channels=4))
    assert str(caught.value) == (
        "the discriminator takes 4 channels, but the generator's pictures have 3 "
        "(a discriminator for it takes 3, or 6 where it also sees the input)"
    )


# --- it is a stage ---


@pytest.mark.parametrize("changes", [{}, {"agent": "free"}, {"prune_discriminator": False}, {"feedback": False}])
def test_a_game_that_goes_on_equals_one_that_was_never_stopped(changes: dict[str, Any]) -> None:
    whole, halved = (tiny_game(settings=settings(**changes)) for _ in range(2))
    metrics = play(whole, 6)
    play(halved, 3)
    fresh = tiny_game(settings=settings(**changes), seed=5)  # other agents
    fresh._seed = 0
    fresh.load_state({name: tensor.clone() for name, tensor in halved.state().items()})
    assert play(fresh, 3, first=3) == metrics[3:]
    assert fresh.state().keys() == whole.state().keys()
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, fresh.state()[name]), name
    assert fresh.logits() == whole.logits()


@pytest.mark.parametrize("agent", ["gru", "free"])
def test_the_loop_of_training_drives_it_and_logs_every_step(tmp_path: Path, agent: str) -> None:
    journal = Journal(tmp_path / "metrics.jsonl")
    game = tiny_game(steps=3, settings=settings(agent=agent))
    assert not run_stage(game, tmp_path, journal, seed=0)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [("prune", 0), ("prune", 1), ("prune", 2)]
    again = tiny_game(steps=3, settings=settings(agent=agent))
    assert run_stage(again, tmp_path, journal, seed=0)
    journal.close()
    assert again.logits() == game.logits()


def test_the_metrics_say_what_happened() -> None:
    game = tiny_game()
    (metrics,) = play(game, 1)
    assert list(metrics) == [
        "loss_g", "loss_d", "regularizer", "macs_fraction", "budget", "discriminator_kept", "gradient_norm_d",
        "gradient_norm_g", "temperature", "learning_rate", "widths", "discriminator_widths",
    ]  # fmt: skip
    widths, kept = metrics["widths"], metrics["discriminator_widths"]
    assert list(widths) == [group.name for group in game._generator.table.groups]
    assert all(type(count) is int for count in (*widths.values(), *kept.values()))
    sizes = {group.name: group.size for group in game._discriminator.table.groups}
    assert metrics["discriminator_kept"] == pytest.approx(sum(kept.values()) / sum(sizes.values()), abs=1e-6)
    gates = {name: (torch.arange(64)[: game._generator.spec.width(name)] < n).double() for name, n in widths.items()}
    assert metrics["macs_fraction"] == game._cost.fraction(gates).item()
    assert (metrics["budget"], metrics["temperature"], metrics["learning_rate"]) == (0.3, 0.4, 1e-3)


def test_a_game_draws_nothing_at_its_start_and_the_same_seed_gives_the_same_agents() -> None:
    networks: dict[str, Any] = {"generator": tiny_resnet(), "discriminator": tiny_discriminator()}
    torch.manual_seed(3)
    first = tiny_game(**networks)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(3)))
    second, other = tiny_game(), tiny_game(seed=1)
    assert first.logits() == second.logits()
    assert first.logits() != other.logits()


def test_in_bfloat16_the_networks_run_and_costs_stay_exact() -> None:
    exact, rounded = (tiny_game(precision=precision) for precision in ("fp32", "bf16"))
    (a,), (b,) = play(exact, 1), play(rounded, 1)
    assert (a["widths"], a["macs_fraction"], a["regularizer"]) == (b["widths"], b["macs_fraction"], b["regularizer"])
    assert b["loss_g"] == pytest.approx(a["loss_g"], rel=0.1)
    assert b["loss_g"] != a["loss_g"]


def test_banks_of_different_lengths_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        tiny_game(outputs=random_bank(3, 3, 16))
    assert str(caught.value) == "the game needs as many inputs as outputs and neighborhoods, not 4, 3 and 3"


@pytest.mark.parametrize("budget", [0.0, 1.5])
def test_a_budget_that_is_no_fraction_is_refused(budget: float) -> None:
    with pytest.raises(SettingError) as caught:
        tiny_game(budget=budget)
    assert str(caught.value) == f"a budget is a fraction above 0 and up to 1, not {budget:g}"


# --- what comes out ---


def test_the_final_logits_take_no_draw_and_change_nothing() -> None:
    game = tiny_game()
    play(game, 3)
    before = {name: tensor.clone() for name, tensor in game.state().items()}
    torch.manual_seed(1)
    first = game.logits()
    torch.manual_seed(2)
    assert game.logits() == first
    assert torch.equal(torch.rand(2), torch.rand(2, generator=torch.Generator().manual_seed(2)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in game.state().items())
    for network, logits in zip((game._generator, game._discriminator), first, strict=True):
        assert {name: len(values) for name, values in logits.items()} == {g.name: g.size for g in network.table.groups}


def test_the_final_logits_are_a_fixed_point_of_both_agents() -> None:
    game = listening_game()
    for_generator, for_discriminator = game.logits()
    assert game.discriminator_agent is not None
    h = game._h
    for _ in range(200):
        logits_d, h_d = game.discriminator_agent(h)
        logits_g, h = game.generator_agent(h_d)
    for name, values in for_generator.items():
        torch.testing.assert_close(torch.tensor(values), logits_g[name].detach(), atol=1e-4, rtol=0)
    for name, values in for_discriminator.items():
        torch.testing.assert_close(torch.tensor(values), logits_d[name].detach(), atol=1e-4, rtol=0)


def test_a_discriminator_that_is_not_pruned_has_no_logits_and_is_whole() -> None:
    game = tiny_game(settings=settings(prune_discriminator=False))
    (metrics,) = play(game, 1)
    assert (metrics["discriminator_kept"], metrics["discriminator_widths"], metrics["gradient_norm_d"]) == (1, {}, 0)
    assert game.logits()[1] == {}
    assert largest(gradients(game.generator_agent)) > 0


def mean_cost(metrics: list[dict[str, Any]]) -> float:
    return statistics.mean(float(step["macs_fraction"]) for step in metrics[-30:])


@pytest.mark.parametrize("agent", ["gru", "free"])
@pytest.mark.parametrize("regularizer", ["one_sided", "two_sided"])
def test_the_budget_is_approached(regularizer: str, agent: str) -> None:
    game = tiny_game(settings=GameSettings(regularizer=regularizer, agent=agent))  # type: ignore[arg-type]
    metrics = play(game, 120)
    assert metrics[0]["macs_fraction"] > 0.6
    cost = mean_cost(metrics)
    if regularizer == "one_sided":
        assert cost <= 1.1 * 0.3
    else:
        assert 0.75 * 0.3 <= cost <= 1.25 * 0.3

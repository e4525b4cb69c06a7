"""Agents: frozen orthogonal inputs, logits around the offset, and an ear for the other agent."""

from __future__ import annotations

import pytest
import torch

from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import LayerTable
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.pruning.gates import sample
from mggc_edge.pruning.mggc.agents import FREE_RATE_FACTOR, FreeAgent, GruAgent, agent_optimizer, make_agent


def table_of(blocks: int = 2, **widths: int) -> LayerTable:
    spec = resnet_spec(blocks=blocks, ngf=4)
    return layer_table(spec.with_widths({name.replace("_", "."): width for name, width in widths.items()}))


def gru(table: LayerTable | None = None, *, feedback: bool = True, seed: int = 0) -> GruAgent:
    torch.manual_seed(seed)
    return GruAgent(table or table_of(), feedback=feedback)


def some_h(seed: int, groups: int = 5) -> torch.Tensor:
    return torch.randn(groups, 256, generator=torch.Generator().manual_seed(seed))


def test_there_is_a_logit_for_every_channel_and_a_row_of_h_for_every_group() -> None:
    table = table_of()
    logits, h = gru(table)(some_h(0))
    assert {name: tuple(values.shape) for name, values in logits.items()} == {
        group.name: (group.size,) for group in table.groups
    }
    assert list(logits) == [group.name for group in table.groups]
    assert tuple(h.shape) == (7, 256) == gru(table).embedding_shape


def test_a_group_without_channels_has_no_logits() -> None:
    agent = gru(table_of(block1_inner=0))
    assert "block1.inner" not in agent(some_h(0))[0]
    assert agent.embedding_shape == (6, 256)


def test_the_inputs_are_orthonormal_and_not_learnt() -> None:
    agent = gru()
    torch.testing.assert_close(agent.inputs @ agent.inputs.T, torch.eye(7), atol=1e-5, rtol=0)
    assert all(parameter is not agent.inputs for parameter in agent.parameters())
    assert "inputs" in agent.state_dict()


def test_at_the_start_95_percent_of_the_gates_are_open() -> None:
    torch.manual_seed(0)
    agent = GruAgent(layer_table(resnet_spec(blocks=9)))
    logits = torch.cat(list(agent(some_h(0))[0].values())).detach()
    assert len(logits) == 2944
    assert logits.mean().item() == pytest.approx(3, abs=0.05)
    drawn = sample(logits.repeat(30), 0.4).mean().item()
    assert drawn == pytest.approx(0.951, abs=0.01)


def test_a_new_agent_does_not_hear_the_other_one_but_learns_to() -> None:
    agent = gru()
    first, second = (torch.cat(list(agent(some_h(seed))[0].values())) for seed in (1, 2))
    assert torch.equal(first, second)
    assert agent.peer is not None
    gradient, bias = torch.autograd.grad(first.sum(), [agent.peer.weight, agent.peer.bias])
    assert gradient.abs().max().item() > 1e-6
    assert bias.abs().max().item() > 1e-6


def test_an_agent_with_an_ear_answers_to_every_change_of_what_it_hears() -> None:
    agent = gru()
    assert agent.peer is not None
    torch.nn.init.normal_(agent.peer.weight, 0, 0.1)
    outputs = [torch.cat(list(agent(some_h(seed))[0].values())) for seed in (1, 2, 1)]
    assert (outputs[0] - outputs[1]).abs().max().item() > 1e-4
    assert torch.equal(outputs[0], outputs[2])


def test_the_other_agent_may_have_any_number_of_groups_and_its_mean_is_heard() -> None:
    agent = gru()
    assert agent.peer is not None
    torch.nn.init.normal_(agent.peer.weight, 0, 0.1)
    h = some_h(1, groups=3)
    many = agent(h)[1]
    torch.testing.assert_close(agent(h.mean(dim=0, keepdim=True))[1], many, atol=1e-6, rtol=0)


def test_without_feedback_nothing_is_heard() -> None:
    agent = gru(feedback=False)
    assert agent.peer is None
    assert torch.equal(agent(some_h(1))[1], agent(some_h(2))[1])


def test_every_group_is_seen_from_both_sides() -> None:
    agent = gru()
    inputs = agent.inputs.clone().requires_grad_()
    h = agent.gru(inputs)[0]
    (gradient,) = torch.autograd.grad(h[3].sum(), inputs)
    assert bool((gradient.abs().amax(dim=1) > 0).all())


def test_free_logits_are_parameters_that_start_at_the_offset() -> None:
    agent = make_agent("free", table_of(), offset=2.5, feedback=True)
    assert isinstance(agent, FreeAgent)
    logits, h = agent(some_h(0))
    assert all(bool((values == 2.5).all()) for values in logits.values())
    assert [tuple(parameter.shape) for parameter in agent.parameters()] == [
        (group.size,) for group in table_of().groups
    ]
    assert not h.any()
    assert h.shape == agent.embedding_shape


def test_only_matrices_decay() -> None:
    agent = gru(layer_table(patchgan_spec(ndf=4)))
    matrices, vectors = agent_optimizer(agent, 1e-3, 0.25).param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.25, 0.0)
    assert all(parameter.ndim == 2 for parameter in matrices["params"])
    assert all(parameter.ndim == 1 for parameter in vectors["params"])
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(agent.parameters()))
    assert matrices["lr"] == 1e-3


def test_free_logits_do_not_decay_and_learn_at_the_pace_of_those_of_an_agent() -> None:
    (group,) = agent_optimizer(FreeAgent(table_of()), 1e-3, 0.25).param_groups
    assert group["weight_decay"] == 0
    assert group["lr"] == pytest.approx(1e-3 * FREE_RATE_FACTOR)
    moved = {}
    for kind in ("gru", "free"):
        torch.manual_seed(0)
        agent = make_agent(kind, table_of(), offset=3, feedback=True)
        optimizer = agent_optimizer(agent, 1e-3, 0)
        before = torch.cat(list(agent(some_h(0))[0].values()))
        before.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        after = torch.cat(list(agent(some_h(0))[0].values()))
        moved[kind] = float((before - after).detach().mean())
    assert moved["free"] == pytest.approx(0.1, abs=1e-4)
    assert 0.1 < moved["gru"] < 0.4  # the heads alone 0.1, and the GRU moves with them

"""Gates are exact zeros and ones, open as often as their logits say, and pass a sigmoid's slope back."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mggc_edge.models.resnet import resnet_spec
from mggc_edge.pruning.gates import Noise, open_threshold, sample, sample_groups
from tests.models.model_helpers import network_of

TEMPERATURE = 0.4
OPEN: dict[Noise, Callable[[float], float]] = {
    "gumbel_paper": lambda logit: math.exp(-math.exp(-logit)),
    "gumbel_sibling": lambda logit: 1 - math.exp(-math.exp(logit)),
    "logistic": lambda logit: 1 / (1 + math.exp(-logit)),
}
NOISES = list(OPEN)
DRAWS = 100_000


def frequency(logit: float, noise: Noise) -> float:
    torch.manual_seed(0)
    return float(sample(torch.full((DRAWS,), logit), TEMPERATURE, noise).mean())


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("logit", [-1.0, 0.0, 0.3665, 3.0])
def test_gates_are_open_as_often_as_the_formula_says(noise: Noise, logit: float) -> None:
    wanted = OPEN[noise](logit)
    spread = math.sqrt(max(wanted * (1 - wanted), 1e-9) / DRAWS)
    assert frequency(logit, noise) == pytest.approx(wanted, abs=4 * spread + 1e-5)


def test_at_the_offset_of_3_about_95_percent_of_the_gates_are_open_with_the_paper_s_noise() -> None:
    assert frequency(3.0, "gumbel_paper") == pytest.approx(0.951, abs=0.003)
    assert frequency(3.0, "logistic") == pytest.approx(0.953, abs=0.003)


@pytest.mark.parametrize("noise", NOISES)
def test_at_the_threshold_a_gate_is_open_in_half_of_the_draws(noise: Noise) -> None:
    assert OPEN[noise](open_threshold(noise)) == pytest.approx(0.5, abs=1e-12)


def test_the_paper_s_threshold_is_0_3665() -> None:
    assert open_threshold("gumbel_paper") == pytest.approx(0.36651292, abs=1e-8)


def gumbel(like: Tensor, seed: int) -> Tensor:
    """The noise -g that `sample` draws after this seed."""
    torch.manual_seed(seed)
    return torch.empty_like(like).exponential_().log()


def test_values_are_the_rounded_sigmoid_and_gradients_its_slope() -> None:
    logits = torch.linspace(-2, 4, 50, dtype=torch.float64, requires_grad=True)
    soft = torch.sigmoid((logits.detach() + gumbel(logits, 7)) / TEMPERATURE)
    torch.manual_seed(7)
    gates = sample(logits, TEMPERATURE)
    assert torch.equal(gates, soft.round())
    assert 0 < int(gates.sum()) < 50
    weights = torch.arange(50, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((gates * weights).sum(), logits)
    torch.testing.assert_close(gradient, weights * soft * (1 - soft) / TEMPERATURE, rtol=1e-12, atol=0)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gates_are_exact_zeros_and_ones_of_the_logits_type(noise: Noise, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    gates = sample(torch.linspace(-3, 3, 1000, dtype=dtype), TEMPERATURE, noise)
    assert gates.dtype == dtype
    assert set(gates.tolist()) == {0.0, 1.0}


def test_a_group_that_must_not_be_empty_keeps_the_gate_that_is_nearest_to_opening() -> None:
    logits = torch.full((8,), -6.0, dtype=torch.float64, requires_grad=True)
    nearest = int(gumbel(logits, 3).argmax())
    torch.manual_seed(3)
    gates = sample(logits, TEMPERATURE, minimum=1)
    assert gates.nonzero().flatten().tolist() == [nearest]
    (gradient,) = torch.autograd.grad(gates.sum(), logits)
    assert bool((gradient > 0).all())
    torch.manual_seed(3)
    assert sample(logits, TEMPERATURE).sum().item() == 0


def test_a_minimum_above_the_channels_opens_them_all() -> None:
    assert sample(torch.full((3,), -9.0), TEMPERATURE, minimum=5).tolist() == [1, 1, 1]


def test_every_group_of_a_network_keeps_its_minimum_and_an_inner_one_may_be_empty() -> None:
    table = network_of(resnet_spec(blocks=1, ngf=4)).table
    logits = {group.name: torch.full((group.size,), -20.0) for group in table.groups if group.name != "up2"}
    gates = sample_groups(table, logits, TEMPERATURE, "gumbel_paper")
    assert {name: int(gate.sum()) for name, gate in gates.items()} == {
        "stem": 1,
        "down1": 1,
        "trunk": 1,
        "block1.inner": 0,
        "up1": 1,
    }

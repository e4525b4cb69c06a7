"""The adversarial losses are those of the papers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mggc_edge.tensors import Array
from mggc_edge.training.losses import GanLoss, discriminator_loss, generator_loss


def logistic(values: Array) -> Array:
    return 1 / (1 + np.exp(-values))


# What a discriminator pays for a real and for a generated patch, and what a generator pays.
PAPERS: dict[GanLoss, tuple[Callable[[Array], Array], Callable[[Array], Array], Callable[[Array], Array]]] = {
    "lsgan": (lambda d: (d - 1) ** 2, lambda d: d**2, lambda d: (d - 1) ** 2),
    "hinge": (lambda d: np.maximum(0, 1 - d), lambda d: np.maximum(0, 1 + d), lambda d: -d),
    "vanilla": (
        lambda d: -np.log(logistic(d)),
        lambda d: -np.log(1 - logistic(d)),
        lambda d: -np.log(logistic(d)),
    ),
}


@pytest.mark.parametrize("kind", PAPERS)
def test_losses_equal_the_formulas_of_the_papers(kind: GanLoss) -> None:
    for_real, for_fake, for_generator = PAPERS[kind]
    rng = np.random.default_rng(0)
    real, fake = rng.normal(0, 2, (2, 1, 3, 4)), rng.normal(0, 2, (2, 1, 5, 5))
    wanted_d = (for_real(real).mean() + for_fake(fake).mean()) / 2
    found = discriminator_loss(kind, torch.from_numpy(real), torch.from_numpy(fake))
    assert found.item() == pytest.approx(wanted_d, abs=1e-6)
    assert generator_loss(kind, torch.from_numpy(fake)).item() == pytest.approx(for_generator(fake).mean(), abs=1e-6)


def test_cross_entropy_stays_finite_where_a_sigmoid_would_not() -> None:
    far = torch.tensor([1000.0])
    assert discriminator_loss("vanilla", -far, far).item() == 1000
    assert generator_loss("vanilla", -far).item() == 1000
    assert generator_loss("vanilla", torch.zeros(1)).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("kind", PAPERS)
def test_losses_are_float32_whatever_the_discriminator_computes_in(kind: GanLoss) -> None:
    says = torch.full((1, 1, 2, 2), 0.3, dtype=torch.bfloat16)
    assert discriminator_loss(kind, says, says).dtype == torch.float32
    assert generator_loss(kind, says).dtype == torch.float32

"""The adversarial losses of the field, as functions of what a discriminator says (any shape, one number a patch)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

GanLoss = Literal["lsgan", "hinge", "vanilla"]


def discriminator_loss(kind: GanLoss, real: Tensor, fake: Tensor) -> Tensor:
    """Return half the sum of what a discriminator pays for real and for generated pictures.

    lsgan (Mao et al. 2017): (D(y) - 1)^2 and D(G(x))^2. hinge: max(0, 1 - D(y)) and max(0, 1 + D(G(x))).
    vanilla: cross-entropy on logits.
    """
    real, fake = real.float(), fake.float()
    if kind == "lsgan":
        return ((real - 1).square().mean() + fake.square().mean()) / 2
    if kind == "hinge":
        return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2


def generator_loss(kind: GanLoss, fake: Tensor) -> Tensor:
    """Return what a generator pays: lsgan (D(G(x)) - 1)^2, hinge -D(G(x)), vanilla -log sigmoid D(G(x))."""
    fake = fake.float()
    if kind == "lsgan":
        return (fake - 1).square().mean()
    if kind == "hinge":
        return -fake.mean()
    return F.softplus(-fake).mean()

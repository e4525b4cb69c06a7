"""Learning rates over the steps of a stage."""

from __future__ import annotations

import math

import torch


def constant_then_linear(step: int, steps: int, decay: float) -> float:
    """Return the factor of the learning rate at `step`: 1, and over the last fraction `decay` of the steps down to 0.

    CycleGAN and pix2pix train with decay = 0.5.
    """
    start = steps * (1 - decay)
    return 1.0 if step < start else max(0.0, (steps - step) / (steps - start))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter of an optimizer this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def half_cosine(step: int, steps: int) -> float:
    """Return the factor of the learning rate at `step`: from 1 down to nearly 0, as half a cosine."""
    return (1 + math.cos(math.pi * step / steps)) / 2

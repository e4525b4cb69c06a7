"""AdamW as agents and encoders train by it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def decaying_adamw(parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW in which only matrices and filters decay, neither biases nor norms nor free logits."""
    given = list(parameters)
    matrices = [parameter for parameter in given if parameter.ndim > 1]
    vectors = [parameter for parameter in given if parameter.ndim <= 1]
    groups = [
        {"params": chosen, "weight_decay": decay}
        for chosen, decay in ((matrices, weight_decay), (vectors, 0.0))
        if chosen
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.999), fused=True)

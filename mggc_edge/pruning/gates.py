"""Gates that are open or closed in the forward pass and learn in the backward pass: Gumbel-sigmoid, straight through.

A gate has a logit l; higher means open. One draw is (eqs. 3 and 4 of the MGGC paper, with l for its -o)

    v = round(sigmoid((l - g) / temperature)),    dv/dl = d sigmoid((l - g) / temperature) / dl,

with g from one of

    gumbel_paper    Gumbel(0, 1)     P(v = 1) = exp(-exp(-l))       the paper's
    gumbel_sibling  -Gumbel(0, 1)    P(v = 1) = 1 - exp(-exp(l))    of earlier methods with such gates
    logistic        Logistic(0, 1)   P(v = 1) = sigmoid(l)          a Bernoulli variable
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from mggc_edge.models.layers import LayerTable

Noise = Literal["gumbel_paper", "gumbel_sibling", "logistic"]


def sample(logits: Tensor, temperature: float, noise: Noise = "gumbel_paper", *, minimum: int = 0) -> Tensor:
    """Draw the gates of one channel group from torch's global generator.

    Args:
        logits: [C]; the gates have its type.
        temperature: above 0; a higher one spreads the gradient over more gates.
        noise: see above.
        minimum: as many gates are open at least: where a draw opens fewer, those nearest to opening.

    Returns:
        [C] of exact zeros and ones, with a gradient to every logit.
    """
    return _open(logits + _noise(logits, noise), temperature, minimum)


def _open(drawn: Tensor, temperature: float, minimum: int) -> Tensor:
    """Return the gates of logits with noise, [C]."""
    soft = torch.sigmoid(drawn / temperature)
    with torch.no_grad():
        hard = (drawn > 0).to(drawn.dtype)
        if minimum and int(hard.sum()) < minimum:
            hard[drawn.topk(min(minimum, drawn.numel())).indices] = 1
    return hard + (soft - soft.detach())  # the parenthesis is an exact zero


def sample_groups(
    table: LayerTable,
    logits: Mapping[str, Tensor],
    temperature: float,
    noise: Noise,
    *,
    share: Callable[[Sequence[Tensor]], None] = lambda _: None,
) -> dict[str, Tensor]:
    """Draw the gates of every channel group of a network that `logits` has; each group keeps its minimum.

    `share` is given the noise of all groups, which it may replace in place: by that of another process.
    """
    groups = [group for group in table.groups if group.name in logits]
    drawn = {group.name: _noise(logits[group.name], noise) for group in groups}
    share(list(drawn.values()))
    return {group.name: _open(logits[group.name] + drawn[group.name], temperature, group.minimum) for group in groups}


def open_threshold(noise: Noise) -> float:
    """Return the logit at which a gate is open in half of the draws."""
    return {"gumbel_paper": -math.log(math.log(2)), "gumbel_sibling": math.log(math.log(2)), "logistic": 0.0}[noise]


def _noise(like: Tensor, noise: Noise) -> Tensor:
    """Return -g. -log of an exponential variable is Gumbel, and a difference of two Gumbel variables is logistic."""
    if noise == "gumbel_paper":
        return _log_exponential(like)
    if noise == "gumbel_sibling":
        return -_log_exponential(like)
    return _log_exponential(like) - _log_exponential(like)


def _log_exponential(like: Tensor) -> Tensor:
    return torch.empty_like(like, requires_grad=False).exponential_().log_()

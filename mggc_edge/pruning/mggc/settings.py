"""The settings of the MGGC game: the paper's where it states them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from mggc_edge.errors import SettingError
from mggc_edge.pruning.cost import Regularizer
from mggc_edge.pruning.gates import Noise
from mggc_edge.pruning.mggc.agents import AgentKind
from mggc_edge.training.losses import GanLoss

Pairing = Literal["center", "neighbor"]
_CHOICES = {"noise": Noise, "regularizer": Regularizer, "loss": GanLoss, "pairing": Pairing, "agent": AgentKind}


@dataclass(frozen=True)
class GameSettings:
    """How the agents play.

    Attributes:
        k: neighbors of every picture; 0 compares with the original's own output.
        lambda_1: weight of the generator's distance from its budget.
        lambda_2: weight of the fraction of the discriminator's channels that is kept.
        temperature, noise: of the gates, see `mggc_edge.pruning.gates`.
        offset: logit of every gate at the start, about.
        regularizer: "one_sided" (eq. 5) has no say below the budget; "two_sided" also pushes up.
        loss: of the GAN, as the original was trained with.
        pairing: whose input a conditional discriminator sees beside a neighbor's picture, the centre's or its own.
        agent: "gru", or "free" logits without an agent (the ablation).
        feedback: whether the agents hear each other.
        prune_discriminator: whether the discriminator has gates.
        learning_rate, weight_decay: of AdamW; only matrices decay. Free logits learn 100 times as fast.
        clip: largest norm of an agent's gradient.

    Raises:
        SettingError: a field has an impossible value.
    """

    k: int = 5
    lambda_1: float = 3.0
    lambda_2: float = 0.1
    temperature: float = 0.4
    offset: float = 3.0
    noise: Noise = "gumbel_paper"
    regularizer: Regularizer = "two_sided"
    loss: GanLoss = "lsgan"
    pairing: Pairing = "center"
    agent: AgentKind = "gru"
    feedback: bool = True
    prune_discriminator: bool = True
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    clip: float = 1.0

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            value, choices = getattr(self, name), get_args(kind)
            if value not in choices:
                raise SettingError(f"mggc.{name} must be one of {', '.join(choices)}, not {value!r}")
        for name in ("k", "lambda_1", "lambda_2", "weight_decay"):
            self._check_number(name, above=False)
        for name in ("temperature", "learning_rate", "clip"):
            self._check_number(name, above=True)
        if not math.isfinite(self.offset):
            raise SettingError(f"mggc.offset must be a finite number, not {self.offset:g}")

    def _check_number(self, name: str, *, above: bool) -> None:
        value = getattr(self, name)
        if not math.isfinite(value) or value < 0 or (above and value == 0):
            bound = "above 0" if above else "of at least 0"
            raise SettingError(f"mggc.{name} must be a finite number {bound}, not {value:g}")

"""SimCLR (Chen et al. 2020), by which the small encoder is trained: each view is told from all other pictures.

Two random views of a picture shall be nearer to each other than to the views of all other pictures of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from mggc_edge.errors import SettingError
from mggc_edge.pruning.mggc.augment import random_views
from mggc_edge.pruning.mggc.encoder import Encoder, device_of
from mggc_edge.training.bank import Bank
from mggc_edge.training.optimizers import decaying_adamw
from mggc_edge.training.order import batch_indices, step_seed
from mggc_edge.training.precision import Precision, autocast
from mggc_edge.training.state import load_optimizer, named, optimizer_tensors, part


@dataclass(frozen=True)
class SimclrSettings:
    """How an encoder is trained. Defaults for a small encoder and a few hundred pictures, as in `settings.py`.

    Attributes:
        batch_size: pictures a step, each seen twice; every other picture of the batch is what a view must not be like.
        learning_rate, weight_decay: of AdamW; only matrices decay.
        temperature: of the NT-Xent loss: the lower, the more the most similar other pictures count.

    Raises:
        SettingError: a field has an impossible value.
    """

    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    temperature: float = 0.2

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise SettingError(
                f"the encoder tells pictures of a batch apart: it needs two or more, not {self.batch_size}"
            )
        for name, value in (("learning rate", self.learning_rate), ("temperature", self.temperature)):
            if not (value > 0 and math.isfinite(value)):
                raise SettingError(f"the encoder's {name} must be a number above 0, not {value:g}")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise SettingError(f"the encoder's weight decay must be a number of at least 0, not {self.weight_decay:g}")


class SimclrTraining:
    """A stage that trains an encoder on the pictures of a bank, in place."""

    name = "encoder"

    def __init__(
        self,
        encoder: Encoder,
        bank: Bank,
        settings: SimclrSettings | None = None,
        *,
        seed: int,
        steps: int,
        precision: Precision = "fp32",
    ) -> None:
        self.encoder, self.settings, self.steps = encoder, settings or SimclrSettings(), steps
        self._bank, self._seed, self._precision, self._device = bank, seed, precision, device_of(encoder)
        self._batch_size = min(self.settings.batch_size, len(bank))
        encoder.train()
        size, projected = encoder.embedding_size, encoder.projected_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step_seed(seed, f"{self.name}/projection", 0))
            # The views are compared after two more layers, which the embedding does without.
            self._projection = nn.Sequential(
                nn.Linear(size, size, bias=False),
                nn.BatchNorm1d(size),
                nn.ReLU(),
                nn.Linear(size, projected, bias=False),
                nn.BatchNorm1d(projected, affine=False),
            ).to(self._device)
        parameters = [*encoder.parameters(), *self._projection.parameters()]
        self._optimizer = decaying_adamw(parameters, self.settings.learning_rate, self.settings.weight_decay)

    def step(self, number: int) -> dict[str, Any]:
        """Draw two views of every picture of the batch, and move equal ones together and others apart."""
        indices = batch_indices(self._seed, self.name, number, len(self._bank), self._batch_size)
        pictures = self.encoder.prepare(self._bank.batch(indices).to(self._device))
        views = torch.cat([random_views(pictures), random_views(pictures)])
        with autocast(self._precision, self._device):
            projected = self._projection(self.encoder.embedding(self.encoder.pooled(views)))
        same = torch.tensor(indices, device=self._device)
        loss, found = nt_xent(projected.float(), same, self.settings.temperature)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return {"loss": loss.item(), "found": found, "learning_rate": self.settings.learning_rate}

    def state(self) -> dict[str, Tensor]:
        """Return weights and moments."""
        return {
            **named("encoder", self.encoder.state_dict()),
            **named("projection", self._projection.state_dict()),
            **optimizer_tensors("optimizer", self._optimizer),
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.encoder.load_state_dict(part(tensors, "encoder"))
        self._projection.load_state_dict(part(tensors, "projection"))
        load_optimizer("optimizer", self._optimizer, tensors)


def nt_xent(projected: Tensor, numbers: Tensor, temperature: float) -> tuple[Tensor, float]:
    """Return the NT-Xent loss, float32 [], and in what fraction of the views the other one was the most similar.

        -log( exp(s_ij / t) / sum over k != i of exp(s_ik / t) ),    s = cosines, i and j the views of one picture

    Args:
        projected: [2B, d], the first views of a batch and then the second ones.
        numbers: [B], the pictures' numbers; a picture that is in the batch twice is not compared with itself.
        temperature: t.
    """
    unit = F.normalize(projected, dim=1)
    count = len(numbers)
    cosines = unit @ unit.T / temperature
    partner = torch.arange(2 * count, device=projected.device).roll(count)
    twice = numbers.repeat(2)
    hidden = twice[:, None] == twice[None]
    hidden[torch.arange(2 * count, device=projected.device), partner] = False
    cosines = cosines.masked_fill(hidden, -torch.inf)
    found = (cosines.detach().argmax(dim=1) == partner).float().mean().item()
    return F.cross_entropy(cosines, partner), found

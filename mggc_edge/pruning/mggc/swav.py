"""SwAV: an encoder learns from views of pictures which share a code (Caron et al. 2020), without labels.

Of every picture two large views and some small ones are taken. Each is projected onto a sphere and compared with
prototypes. A large view's code is its share of every prototype when all of the batch are divided equally over them
(Sinkhorn-Knopp); every other view of the picture shall predict it:

    loss = - mean over large views s and other views t of  sum_k q_s[k] log softmax(z_t . c / temperature)[k]
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
from mggc_edge.training.order import batch_indices, step_seed, steps_of
from mggc_edge.training.precision import Precision, autocast
from mggc_edge.training.state import load_optimizer, named, optimizer_tensors, part

LARGE_VIEWS = 2
SMALL_SIDE = 96 / 224  # of a small view, in sides of a large one


@dataclass(frozen=True)
class SwavSettings:
    """How an encoder is trained. Defaults for a small encoder and a few hundred pictures; sources in `settings.py`.

    Attributes:
        batch_size: pictures a step.
        learning_rate, weight_decay: of AdamW, the rate falling to 0 as half a cosine; only matrices decay.
        prototypes: how many codes there are; pictures are divided over them equally.
        temperature: of the prediction's softmax.
        epsilon: how soft codes are: towards 0 each view has one prototype.
        iterations: of Sinkhorn-Knopp.
        small_views: beside the two large ones.
        large_area: a large view shows at least this part of the picture, a small one at most.
        small_area: a small view shows at least this part.
        frozen_epochs: for so long prototypes stay as they were drawn.

    Raises:
        SettingError: a field has an impossible value.
    """

    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    prototypes: int = 256
    temperature: float = 0.1
    epsilon: float = 0.03
    iterations: int = 3
    small_views: int = 2
    large_area: float = 0.3
    small_area: float = 0.1
    frozen_epochs: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 2), ("prototypes", 2), ("iterations", 1), ("small_views", 0)):
            if getattr(self, name) < least:
                raise SettingError(f"encoder.{name} must be at least {least}, not {getattr(self, name)}")
        for name in ("learning_rate", "temperature", "epsilon"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise SettingError(f"encoder.{name} must be a finite number above 0, not {value:g}")
        for name in ("weight_decay", "frozen_epochs"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise SettingError(f"encoder.{name} must be a finite number of at least 0, not {value:g}")
        if not 0 < self.small_area <= self.large_area <= 1:
            raise SettingError(
                f"views show parts of a picture: 0 < encoder.small_area <= encoder.large_area <= 1 must hold, not "
                f"{self.small_area:g} and {self.large_area:g}"
            )


class SwavTraining:
    """A stage that trains an encoder on the pictures of a bank, in place.

    Args:
        head: the projection, where the encoder's file brought one; None: a new one.
    """

    name = "encoder"

    def __init__(
        self,
        encoder: Encoder,
        bank: Bank,
        settings: SwavSettings | None = None,
        *,
        head: nn.Module | None = None,
        seed: int,
        steps: int,
        precision: Precision = "fp32",
    ) -> None:
        self.encoder, self.settings, self.steps = encoder, settings or SwavSettings(), steps
        self._bank, self._seed, self._precision, self._device = bank, seed, precision, device_of(encoder)
        self._batch_size = min(self.settings.batch_size, len(bank))
        frozen = self.settings.frozen_epochs
        self._frozen_steps = steps_of(frozen, len(bank), self._batch_size) if frozen else 0
        encoder.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step_seed(seed, f"{self.name}/projection", 0))
            self._projection = (encoder.projection() if head is None else head).to(self._device).train()
            drawn = torch.randn(self.settings.prototypes, encoder.projected_size)
        self._prototypes = nn.Parameter(F.normalize(drawn, dim=1).to(self._device))
        parameters = [*encoder.parameters(), *self._projection.parameters()]
        self._optimizer = decaying_adamw(parameters, self.settings.learning_rate, self.settings.weight_decay)
        # One of their own, which takes no step as long as prototypes are frozen.
        self._prototype_optimizer = torch.optim.AdamW(
            [self._prototypes], lr=self.settings.learning_rate, weight_decay=0.0, fused=True
        )

    def step(self, number: int) -> dict[str, Any]:
        """Give the large views of a batch their codes, and let the other views of each picture predict them."""
        settings = self.settings
        indices = batch_indices(self._seed, self.name, number, len(self._bank), self._batch_size)
        pictures = self.encoder.prepare(self._bank.batch(indices).to(self._device))
        large, small = self._views(pictures)
        with torch.no_grad():
            self._prototypes.copy_(F.normalize(self._prototypes, dim=1))
        with autocast(self._precision, self._device):
            pooled = torch.cat([self.encoder.pooled(views) for views in (large, small) if len(views)])
            projected = self._projection(self.encoder.embedding(pooled))
        # [views, B, prototypes], large views first
        scores = F.normalize(projected.float(), dim=1) @ self._prototypes.T
        scores = scores.reshape(-1, len(indices), settings.prototypes)
        codes = torch.stack(
            [sinkhorn(view, settings.epsilon, settings.iterations) for view in scores[:LARGE_VIEWS].detach()]
        )
        loss = swapped_loss(scores, codes, settings.temperature)
        rate = settings.learning_rate * (1 + math.cos(math.pi * number / self.steps)) / 2
        optimizers = [self._optimizer, *([self._prototype_optimizer] if number >= self._frozen_steps else [])]
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
        self._prototypes.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
        used = len(torch.unique(codes.argmax(dim=2))) / settings.prototypes
        return {"loss": loss.item(), "prototypes_used": used, "learning_rate": rate}

    def _views(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return the large views, [2 B, C, H, W], and the small ones: view by view, the pictures in their order."""
        settings, (height, width) = self.settings, pictures.shape[2:]
        small = (max(1, round(height * SMALL_SIDE)), max(1, round(width * SMALL_SIDE)))
        whole = pictures.repeat(LARGE_VIEWS, 1, 1, 1)
        parts = pictures.repeat(settings.small_views, 1, 1, 1)
        return (
            random_views(whole, (height, width), (settings.large_area, 1.0)),
            random_views(parts, small, (settings.small_area, settings.large_area)) if len(parts) else parts,
        )

    def state(self) -> dict[str, Tensor]:
        """Return weights, prototypes and moments."""
        return {
            **named("encoder", self.encoder.state_dict()),
            **named("projection", self._projection.state_dict()),
            "prototypes": self._prototypes.detach(),
            **optimizer_tensors("optimizer", self._optimizer),
            **optimizer_tensors("prototype_optimizer", self._prototype_optimizer),
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned; ValueError or KeyError where it is of another stage."""
        self.encoder.load_state_dict(part(tensors, "encoder"))
        self._projection.load_state_dict(part(tensors, "projection"))
        if tensors["prototypes"].shape != self._prototypes.shape:
            raise ValueError("there is another number of prototypes")
        with torch.no_grad():
            self._prototypes.copy_(tensors["prototypes"])
        load_optimizer("optimizer", self._optimizer, tensors)
        load_optimizer("prototype_optimizer", self._prototype_optimizer, tensors)


def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Return the codes of a batch: rows that add up to 1, with the pictures spread over all prototypes (eq. 5).

    exp(scores / epsilon) with its columns and then its rows scaled to equal sums, `iterations` times; in logarithms,
    so that no epsilon is too small, and in float32.

    Args:
        scores: [B, prototypes], cosines.

    Returns:
        float32 [B, prototypes].
    """
    logs = scores.float() / epsilon
    for _ in range(iterations):
        logs = logs - logs.logsumexp(dim=0, keepdim=True)
        logs = logs - logs.logsumexp(dim=1, keepdim=True)
    return logs.exp()


def swapped_loss(scores: Tensor, codes: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy between each large view's code and what every other view of its picture predicts.

    Args:
        scores: [V, B, prototypes] of all views, the large ones first.
        codes: [2, B, prototypes] of the large views.
        temperature: of the softmax.

    Returns:
        float32 [], the mean over pairs of views and pictures.
    """
    predicted = F.log_softmax(scores / temperature, dim=2)
    pairs = [(s, t) for s in range(len(codes)) for t in range(len(scores)) if s != t]
    return -torch.stack([(codes[s] * predicted[t]).sum(dim=1).mean() for s, t in pairs]).mean()

"""The recipe of pix2pix (Isola et al. 2017): a generator, and a discriminator that judges input and output together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mggc_edge.models.network import Network
from mggc_edge.training.bank import Ahead, PictureSet, to_tensor, views
from mggc_edge.training.losses import GanLoss, discriminator_loss, generator_loss
from mggc_edge.training.order import Share, steps_of
from mggc_edge.training.precision import Precision, autocast
from mggc_edge.training.processes import ALONE, Processes
from mggc_edge.training.schedule import constant_then_linear, set_rate
from mggc_edge.training.state import load_optimizer, named, optimizer_tensors, part


@dataclass(frozen=True)
class Pix2PixSettings:
    """How pix2pix trains: the defaults are the paper's.

    Attributes:
        epochs: how often the pairs are seen.
        batch_size: pairs that a step of each process sees.
        lambda_l1: weight of the L1 distance to the truth.
        decay: fraction of the steps over which the learning rate falls to 0.
    """

    epochs: float = 200
    batch_size: int = 1
    learning_rate: float = 2e-4
    beta_1: float = 0.5
    decay: float = 0.5
    lambda_l1: float = 100.0
    gan: GanLoss = "vanilla"
    flip: bool = True


class Pix2Pix:
    """A stage that trains G and D on pairs: D sees input and output joined along the channels."""

    name = "train"

    def __init__(
        self,
        networks: Mapping[str, Network],
        inputs: PictureSet,
        truths: PictureSet,
        settings: Pix2PixSettings,
        *,
        seed: int,
        precision: Precision,
        processes: Processes = ALONE,
    ) -> None:
        self.networks = {name: networks[name].train() for name in ("G", "D")}
        self._sets = (inputs, truths)
        self.settings, self._seed, self._precision = settings, seed, precision
        self._size = networks["G"].table.image_size
        self._processes = processes
        self._share = Share(settings.batch_size, processes.rank, processes.size)
        self.steps = steps_of(settings.epochs, len(inputs), self._share.total)
        rate, betas = settings.learning_rate, (settings.beta_1, 0.999)
        self._optimizers = {
            name: torch.optim.Adam(network.parameters(), rate, betas=betas, fused=True)
            for name, network in self.networks.items()
        }
        self._batches = Ahead(self._batch, self.steps)

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        numbers = self._share.pictures(self._seed, self.name, step, len(self._sets[0]))
        draws = self._share.draws(self._seed, f"{self.name}/views", step)
        crops = [
            views(self._sets, number, self._size, rng, flip=self.settings.flip)
            for number, rng in zip(numbers, draws, strict=True)
        ]
        x, y = (to_tensor(side, s.format) for side, s in zip(zip(*crops, strict=True), self._sets, strict=True))
        return x, y

    def step(self, number: int) -> dict[str, Any]:
        """Update the discriminator, then the generator."""
        rate = self.settings.learning_rate * constant_then_linear(number, self.steps, self.settings.decay)
        for optimizer in self._optimizers.values():
            set_rate(optimizer, rate)
        x, y = (pictures.to(self._processes.device) for pictures in self._batches.get(number))
        generator, judge = self.networks["G"], self.networks["D"]
        with autocast(self._precision, self._processes.device):
            fake = generator(x)
            says_real = judge(torch.cat([x, y], dim=1))
            says_fake = judge(torch.cat([x, fake.detach().float()], dim=1))
        loss_d = discriminator_loss(self.settings.gan, says_real, says_fake)
        self._update("D", loss_d)
        judge.requires_grad_(False)
        with autocast(self._precision, self._processes.device):
            says = judge(torch.cat([x, fake.float()], dim=1))
        gan = generator_loss(self.settings.gan, says)
        l1 = self.settings.lambda_l1 * F.l1_loss(fake.float(), y)
        self._update("G", gan + l1)
        judge.requires_grad_(True)
        return {
            "loss_d": loss_d.item(),
            "loss_g": (gan + l1).item(),
            "loss_gan": gan.item(),
            "loss_l1": l1.item(),
            "learning_rate": rate,
        }

    def _update(self, name: str, loss: Tensor) -> None:
        self._optimizers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._processes.mean_gradients(self.networks[name].parameters())
        self._optimizers[name].step()

    def state(self) -> dict[str, Tensor]:
        """Return weights, statistics and moments."""
        tensors: dict[str, Tensor] = {}
        for name, network in self.networks.items():
            tensors |= named(name, network.state_dict())
            tensors |= named("optimizer", optimizer_tensors(name, self._optimizers[name]))
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        for name, network in self.networks.items():
            network.load_state_dict(part(tensors, name))
            load_optimizer(f"optimizer.{name}", self._optimizers[name], tensors)

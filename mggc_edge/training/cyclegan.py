"""The recipe of CycleGAN (Zhu et al. 2017): two generators, two discriminators, unpaired pictures."""

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
from mggc_edge.training.pool import PicturePool
from mggc_edge.training.precision import Precision, autocast
from mggc_edge.training.processes import ALONE, Processes
from mggc_edge.training.schedule import constant_then_linear, set_rate
from mggc_edge.training.state import load_optimizer, named, optimizer_tensors, part


@dataclass(frozen=True)
class CycleGanSettings:
    """How CycleGAN trains: the defaults are the paper's.

    Attributes:
        epochs: how often the larger of the two sets is seen.
        batch_size: pictures of each side that a step of each process sees.
        lambda_cycle, lambda_identity: weights of the two losses; the identity loss has lambda_cycle * lambda_identity.
        pool: pictures that each discriminator's pool keeps.
        decay: fraction of the steps over which the learning rate falls to 0.
    """

    epochs: float = 200
    batch_size: int = 1
    learning_rate: float = 2e-4
    beta_1: float = 0.5
    decay: float = 0.5
    lambda_cycle: float = 10.0
    lambda_identity: float = 0.5
    pool: int = 50
    gan: GanLoss = "lsgan"
    flip: bool = True


class CycleGan:
    """A stage that trains G_A: A -> B and G_B: B -> A with D_A, which judges pictures of B, and D_B.

    The names are those of the well-known PyTorch implementation.
    """

    name = "train"

    def __init__(
        self,
        networks: Mapping[str, Network],
        pictures_a: PictureSet,
        pictures_b: PictureSet,
        settings: CycleGanSettings,
        *,
        seed: int,
        precision: Precision,
        processes: Processes = ALONE,
    ) -> None:
        self.networks = {name: networks[name].train() for name in ("G_A", "G_B", "D_A", "D_B")}
        self._sets = (pictures_a, pictures_b)
        self.settings, self._seed, self._precision = settings, seed, precision
        size = networks["G_A"].table.image_size
        self._size = size
        count = max(len(pictures_a), len(pictures_b))
        self._processes = processes
        self._share = Share(settings.batch_size, processes.rank, processes.size)
        self.steps = steps_of(settings.epochs, count, self._share.total)
        self._generators = self._adam("G_A", "G_B")
        self._discriminators = self._adam("D_A", "D_B")
        self._pools = {"D_A": PicturePool(settings.pool), "D_B": PicturePool(settings.pool)}
        self._batches = Ahead(self._batch, self.steps)
        # Identity: G_A(b) should be b, which needs pictures of the same number of channels on both sides.
        same = pictures_a.format.channels == pictures_b.format.channels
        self._identity = settings.lambda_identity if same else 0.0

    def _adam(self, *names: str) -> torch.optim.Optimizer:
        parameters = [parameter for name in names for parameter in self.networks[name].parameters()]
        rate = self.settings.learning_rate
        return torch.optim.Adam(parameters, rate, betas=(self.settings.beta_1, 0.999), fused=True)

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        sides = []
        for side, pictures in zip("AB", self._sets, strict=True):
            numbers = self._share.pictures(self._seed, f"{self.name}/{side}", step, len(pictures))
            draws = self._share.draws(self._seed, f"{self.name}/{side}/views", step)
            crops = [
                views([pictures], n, self._size, rng, flip=self.settings.flip)[0]
                for n, rng in zip(numbers, draws, strict=True)
            ]
            sides.append(to_tensor(crops, pictures.format))
        return sides[0], sides[1]

    def step(self, number: int) -> dict[str, Any]:
        """Update both generators, then both discriminators."""
        rate = self.settings.learning_rate * constant_then_linear(number, self.steps, self.settings.decay)
        set_rate(self._generators, rate)
        set_rate(self._discriminators, rate)
        real_a, real_b = (pictures.to(self._processes.device) for pictures in self._batches.get(number))
        fakes, metrics = self._update_generators(real_a, real_b)
        metrics |= self._update_discriminators(number, {"D_A": real_b, "D_B": real_a}, fakes)
        return {**metrics, "learning_rate": rate}

    def _update_generators(self, real_a: Tensor, real_b: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
        g_a, g_b, d_a, d_b = self.networks.values()
        cycle, identity = self.settings.lambda_cycle, self.settings.lambda_cycle * self._identity
        for judge in (d_a, d_b):
            judge.requires_grad_(False)
        with autocast(self._precision, self._processes.device):
            fake_b, fake_a = g_a(real_a), g_b(real_b)
            back_a, back_b = g_b(fake_b), g_a(fake_a)
            says_a, says_b = d_a(fake_b), d_b(fake_a)
            same_b, same_a = (g_a(real_b), g_b(real_a)) if identity else (real_b, real_a)
        parts = {
            "gan": generator_loss(self.settings.gan, says_a) + generator_loss(self.settings.gan, says_b),
            "cycle": cycle * (F.l1_loss(back_a.float(), real_a) + F.l1_loss(back_b.float(), real_b)),
            "identity": identity * (F.l1_loss(same_a.float(), real_a) + F.l1_loss(same_b.float(), real_b)),
        }
        loss = torch.stack(list(parts.values())).sum()
        self._generators.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._step(self._generators)
        for judge in (d_a, d_b):
            judge.requires_grad_(True)
        metrics = {f"loss_{name}": value.item() for name, value in {"g": loss, **parts}.items()}
        return {"D_A": fake_b.detach().float(), "D_B": fake_a.detach().float()}, metrics

    def _step(self, optimizer: torch.optim.Optimizer) -> None:
        self._processes.mean_gradients(parameter for group in optimizer.param_groups for parameter in group["params"])
        optimizer.step()

    def _update_discriminators(
        self, number: int, reals: Mapping[str, Tensor], fakes: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        losses = []
        for name, real in reals.items():
            draws = self._share.draws(self._seed, f"{self.name}/pool/{name}", number)
            judge, fake = self.networks[name], self._pools[name].exchange(fakes[name], draws)
            with autocast(self._precision, self._processes.device):
                says_real, says_fake = judge(real), judge(fake)
            losses.append(discriminator_loss(self.settings.gan, says_real, says_fake))
        self._discriminators.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        self._step(self._discriminators)
        return {f"loss_{name.lower()}": loss.item() for name, loss in zip(reals, losses, strict=True)}

    def state(self) -> dict[str, Tensor]:
        """Return weights, moments and pools."""
        tensors = named("optimizer", optimizer_tensors("G", self._generators))
        tensors |= named("optimizer", optimizer_tensors("D", self._discriminators))
        for name, network in self.networks.items():
            tensors |= named(name, network.state_dict())
        for name, pool in self._pools.items():
            tensors |= named(f"pool.{name}", pool.state())
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        load_optimizer("optimizer.G", self._generators, tensors)
        load_optimizer("optimizer.D", self._discriminators, tensors)
        for name, network in self.networks.items():
            network.load_state_dict(part(tensors, name))
        for name, pool in self._pools.items():
            pool.load_state(part(tensors, f"pool.{name}"))

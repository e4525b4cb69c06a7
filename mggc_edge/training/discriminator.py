"""A discriminator for a frozen generator that came without one, which most published generators do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mggc_edge.models.network import Network
from mggc_edge.training.bank import Bank
from mggc_edge.training.losses import GanLoss, discriminator_loss
from mggc_edge.training.order import Share, step_seed, steps_of
from mggc_edge.training.precision import Precision, autocast
from mggc_edge.training.processes import ALONE, Processes
from mggc_edge.training.state import load_optimizer, named, optimizer_tensors, part


@dataclass(frozen=True)
class DiscriminatorSettings:
    """How a discriminator is fitted."""

    epochs: float = 3
    batch_size: int = 1
    learning_rate: float = 2e-4
    beta_1: float = 0.5
    gan: GanLoss = "lsgan"


class FitDiscriminator:
    """A stage that fits a discriminator to the frozen original: the discriminator's own loss, the generator fixed.

    Real are the targets, generated the original's outputs. Where there are no targets, real are the original's outputs,
    and generated those of the original with channels closed at random: what a pruned generator must not be taken for.
    """

    name = "discriminator"

    def __init__(
        self,
        judge: Network,
        generator: Network,
        inputs: Bank,
        outputs: Bank,
        targets: Bank | None,
        settings: DiscriminatorSettings,
        *,
        paired: bool,
        seed: int,
        precision: Precision,
        processes: Processes = ALONE,
    ) -> None:
        self.judge, self._generator = judge.train(), generator
        self._inputs, self._outputs, self._targets = inputs, outputs, targets
        self._conditional = judge.spec.in_channels != generator.spec.out_channels
        self._paired, self.settings, self._seed, self._precision = paired, settings, seed, precision
        self._processes = processes
        self._share = Share(settings.batch_size, processes.rank, processes.size)
        self.steps = steps_of(settings.epochs, len(inputs), self._share.total)
        betas = (settings.beta_1, 0.999)
        self._optimizer = torch.optim.Adam(judge.parameters(), settings.learning_rate, betas=betas, fused=True)

    def step(self, number: int) -> dict[str, Any]:
        """Update the discriminator."""
        chosen = self._chosen(self.name, number, self._inputs)
        x = self._inputs.batch(chosen).to(self._processes.device)
        with autocast(self._precision, self._processes.device):
            real, fake = self._pictures(number, chosen, x)
            says_real, says_fake = self.judge(self._seen(x, real)), self.judge(self._seen(x, fake))
        loss = discriminator_loss(self.settings.gan, says_real, says_fake)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._processes.mean_gradients(self.judge.parameters())
        self._optimizer.step()
        return {
            "loss_d": loss.item(),
            "says_real": says_real.float().mean().item(),
            "says_fake": says_fake.float().mean().item(),
            "learning_rate": self.settings.learning_rate,
        }

    def _chosen(self, name: str, number: int, bank: Bank) -> list[int]:
        return self._share.pictures(self._seed, name, number, len(bank))

    def _pictures(self, number: int, chosen: list[int], x: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self._outputs.batch(chosen).to(x.device)
        if self._targets is None:
            return outputs, self._crippled(number, x)
        same = chosen if self._paired else self._chosen(f"{self.name}/targets", number, self._targets)
        return self._targets.batch(same).to(x.device), outputs

    @torch.no_grad()
    def _crippled(self, number: int, x: Tensor) -> Tensor:
        """Return the original's output with a random share of every group's channels closed, the same in a step."""
        masks = {}
        draws = torch.Generator().manual_seed(step_seed(self._seed, f"{self.name}/masks", number))
        for group in self._generator.table.groups:
            if not group.size:  # of a block that has been removed
                continue
            share = torch.rand((), generator=draws)
            mask = (torch.rand(group.size, generator=draws) < share).float()
            mask[int(torch.randint(group.size, (), generator=draws))] = 1.0
            masks[group.name] = mask.to(x.device)
        crippled: Tensor = self._generator(x, masks, "batch")
        return crippled.float()

    def _seen(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, y], dim=1) if self._conditional else y

    def state(self) -> dict[str, Tensor]:
        """Return weights and moments."""
        tensors = named("D", self.judge.state_dict())
        return tensors | named("optimizer", optimizer_tensors("D", self._optimizer))

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.judge.load_state_dict(part(tensors, "D"))
        load_optimizer("optimizer.D", self._optimizer, tensors)

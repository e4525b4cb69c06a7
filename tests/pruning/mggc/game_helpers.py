"""What the tests of MGGC share: banks in memory, tiny pairs of networks, and games between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.unet import unet_spec
from mggc_edge.pruning.mggc.game import Game
from mggc_edge.pruning.mggc.neighborhoods import neighborhoods
from tests.models.model_helpers import network_of


class MemoryBank:
    """Pictures in one tensor."""

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, indices: Sequence[int]) -> Tensor:
        return self.pictures[list(indices)]


def random_bank(count: int, channels: int, side: int, seed: int = 0) -> MemoryBank:
    generator = torch.Generator().manual_seed(seed)
    return MemoryBank(torch.rand(count, channels, side, side, generator=generator) * 2 - 1)


def tiny_resnet(seed: int = 0, ngf: int = 4) -> Network:
    return network_of(resnet_spec(blocks=2, ngf=ngf), seed=seed, size=(16, 16), dtype=torch.float32)


def tiny_discriminator(seed: int = 1, *, in_channels: int = 3, ndf: int = 4) -> Network:
    spec = patchgan_spec(ndf=ndf, layers=1, in_channels=in_channels)
    return network_of(spec, seed=seed, size=(16, 16), dtype=torch.float32)


def tiny_unet() -> Network:
    """With batch norm and dropout, which only U-Nets of 6 halvings and more have."""
    return network_of(unet_spec(halvings=6, ngf=2, norm="batch"), seed=0, size=(64, 64), dtype=torch.float32)


def batch_norm_discriminator() -> Network:
    spec = patchgan_spec(ndf=4, layers=2, in_channels=6, norm="batch")
    return Network(spec, layer_table(spec, (64, 64))).train()


def made_by(generator: Network, inputs: MemoryBank) -> MemoryBank:
    """The original's outputs, in evaluation mode."""
    with torch.no_grad():
        return MemoryBank(generator(inputs.pictures))


def tiny_game(*, count: int = 4, budget: float = 0.3, seed: int = 0, steps: int = 20, **changes: Any) -> Game:
    """A game between a ResNet and a PatchGAN on random pictures of 16 x 16."""
    generator = changes.pop("generator", None) or tiny_resnet()
    discriminator = changes.pop("discriminator", None) or tiny_discriminator()
    inputs = changes.pop("inputs", None) or random_bank(count, 3, 16)
    outputs = changes.pop("outputs", None) or made_by(generator, inputs)
    neighbors = changes.pop("neighbors", None)
    if neighbors is None:
        neighbors = neighborhoods(outputs.pictures.flatten(1), 1)
    return Game(generator, discriminator, inputs, outputs, neighbors, budget=budget, seed=seed, steps=steps, **changes)


def play(game: Game, steps: int, first: int = 0, seed: int = 0) -> list[dict[str, Any]]:
    """Do some steps as the loop of training does: every step from its own seed."""
    metrics = []
    for number in range(first, first + steps):
        torch.manual_seed(1000 * seed + number)
        metrics.append(dict(game.step(number)))
    return metrics


def gradients(agent: torch.nn.Module | None) -> list[Tensor]:
    """The gradients that the last step left, before clipping if it was switched off."""
    assert agent is not None
    found = []
    for parameter in agent.parameters():
        assert parameter.grad is not None
        found.append(parameter.grad.clone())
    return found

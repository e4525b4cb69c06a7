"""What an encoder is, which says which pictures are alike; and the small one that is trained from nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from mggc_edge.training.bank import Bank


class Encoder(nn.Module, ABC):
    """From pictures [B, C, H, W] in [low, high], of any size, to embeddings [B, d] of any length.

    In three steps, because SwAV takes views of different sizes together after the second: `prepare`, `pooled`,
    `embedding`. In evaluation mode no picture's embedding depends on the others in its batch.

    Attributes:
        max_side: pictures with a larger side are reduced to it.
        embedding_size: d.
        projected_size: of the projections that SwAV compares with its prototypes.
    """

    max_side: int
    embedding_size: int
    projected_size: int

    def __init__(self, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the embeddings, [B, d]."""
        return self.embedding(self.pooled(self.prepare(pictures)))

    def prepare(self, pictures: Tensor) -> Tensor:
        """Return pictures as views are taken of them: reduced, in [-1, 1]."""
        return (reduced(pictures, self.max_side) - self.low) * (2 / (self.high - self.low)) - 1

    @abstractmethod
    def pooled(self, prepared: Tensor) -> Tensor:
        """Return the mean of the last features over the positions, [B, features], of what `prepare` gave or a view."""

    @abstractmethod
    def embedding(self, pooled: Tensor) -> Tensor:
        """Return the embeddings, [B, d], of pooled features."""

    def projection(self) -> nn.Module:
        """Return a new head for SwAV: two layers between embeddings and what prototypes are compared with."""
        size = self.embedding_size
        return nn.Sequential(
            nn.Linear(size, size), nn.BatchNorm1d(size), nn.ReLU(), nn.Linear(size, self.projected_size)
        )


class SmallEncoder(Encoder):
    """Four convolutions that halve, a mean over the picture, a linear layer, and a batch norm.

    The batch norm takes away what all pictures share, so that cosines are of both signs. Pictures with a side above 64
    pixels are reduced to it.
    """

    max_side, embedding_size, projected_size = 64, 128, 64
    widths = (32, 64, 128, 128)

    def __init__(self, channels: int = 3, *, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__(low, high)
        layers: list[nn.Module] = []
        for before, width in zip((channels, *self.widths[:-1]), self.widths, strict=True):
            conv = nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False)
            layers += [conv, nn.GroupNorm(8, width), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(self.widths[-1], self.embedding_size, bias=False)
        self.center = nn.BatchNorm1d(self.embedding_size, affine=False)

    def pooled(self, prepared: Tensor) -> Tensor:
        """Return the mean of the last convolution over the positions, [B, 128]."""
        values: Tensor = self.features(prepared).mean(dim=(2, 3))
        return values

    def embedding(self, pooled: Tensor) -> Tensor:
        """Return the embeddings, [B, 128]."""
        values: Tensor = self.center(self.head(pooled))
        return values


def reduced(pictures: Tensor, max_side: int) -> Tensor:
    """Return pictures [B, C, H, W] with no side above `max_side`, every pixel the mean of those it stands for."""
    height, width = (min(side, max_side) for side in pictures.shape[2:])
    return pictures if (height, width) == pictures.shape[2:] else F.adaptive_avg_pool2d(pictures, (height, width))


def embed(encoder: nn.Module, bank: Bank, *, numbers: Sequence[int] | None = None, batch_size: int = 64) -> Tensor:
    """Return the embedding of every picture of a bank, float32 [n, d] of length 1, on the CPU.

    `numbers` are those of the pictures, where not all are wanted. Every picture is seen in float32.
    """
    wanted = range(len(bank)) if numbers is None else numbers
    training, device = encoder.training, device_of(encoder)
    encoder.eval()
    found = []
    try:
        with torch.inference_mode():
            for first in range(0, len(wanted), batch_size):
                pictures = bank.batch(wanted[first : first + batch_size])
                found.append(F.normalize(encoder(pictures.to(device)).float(), dim=1).cpu())
    finally:
        encoder.train(training)
    return torch.cat(found).clone()  # a clone outside inference mode is an ordinary tensor


def device_of(module: nn.Module) -> torch.device:
    """Return where a module's parameters are."""
    return next((tensor.device for tensor in module.parameters()), torch.device("cpu"))

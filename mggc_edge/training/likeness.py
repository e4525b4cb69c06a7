"""How far a generator's pictures are from the original's: L_dist of GAN Slimming, by pixels or by features."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mggc_edge.pictures import PictureFormat
from mggc_edge.quality.features import PREPROCESSINGS
from mggc_edge.training.distill import gram
from mggc_edge.training.ms_ssim import ms_ssim
from mggc_edge.training.perceptual import PerceptualNetwork


class PixelLikeness:
    """L1 of pixels + L1 of gradients + (1 - MS-SSIM), on values from 0 to 1: what there is without a network."""

    name = "pixels"

    def __init__(self, format: PictureFormat) -> None:  # noqa: A002
        self._format = format

    def __call__(self, y: Tensor, wanted: Tensor) -> Tensor:
        """Return the distance, float32 [], of two batches [N, C, H, W] in the values of the format."""
        a, b = (_unit(value, self._format) for value in (y, wanted))
        edges = F.l1_loss(a.diff(dim=2), b.diff(dim=2)) + F.l1_loss(a.diff(dim=3), b.diff(dim=3))
        return F.l1_loss(a, b) + edges + (1 - ms_ssim(a, b))


class PerceptualLikeness:
    """Johnson et al. 2016 by a fixed network, every part relative to the original's own features.

    |F(y) - F(t)|_1 / |F(t)|_1 at the first tap, and `style` times the sum over all taps of
    |Gram(y) - Gram(t)|^2 / |Gram(t)|^2, for every picture. The paper's 1e5 weighs Gram matrices of VGG16 on values from
    0 to 1 as they are; relative ones do not depend on the network, nor on the values that it takes. Of RGBA pictures
    the network sees the colours, and the L1 distance of alpha, from 0 to 1, is added.

    Args:
        network: its device is that of the pictures.
        preprocessing: a name in PREPROCESSINGS, what the network takes.
        style: weight of the Gram distances; 0 leaves them out.
    """

    def __init__(
        self,
        network: PerceptualNetwork,
        format: PictureFormat,  # noqa: A002
        *,
        preprocessing: str,
        style: float,
    ) -> None:
        self.name = network.name
        self._network, self._format, self._style = network.eval().requires_grad_(False), format, style
        wanted = PREPROCESSINGS[preprocessing]
        self._swap = (format.color == "BGR") != (wanted.format.color == "BGR")
        self._low, self._high = wanted.format.low, wanted.format.high
        device = next(network.parameters()).device
        self._mean, self._std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (wanted.mean, wanted.std)
        )

    def _features(self, y: Tensor) -> list[Tensor]:
        x = _unit(y, self._format)
        x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x[:, :3]
        x = x.flip(1) if self._swap else x
        x = self._low + (self._high - self._low) * x
        features: list[Tensor] = self._network((x - self._mean) / self._std)
        return features

    def __call__(self, y: Tensor, wanted: Tensor) -> Tensor:
        """Return the distance, float32 [], of two batches [N, C, H, W] in the values of the format."""
        with torch.no_grad():
            theirs = self._features(wanted.float())
        own = self._features(y.float())
        distance = _relative((own[0] - theirs[0]).abs(), theirs[0].abs())
        if y.shape[1] == 4:
            distance = distance + F.l1_loss(_unit(y[:, 3], self._format), _unit(wanted[:, 3], self._format))
        if self._style:
            for a, b in zip(own, theirs, strict=True):
                there = gram(b)
                distance = distance + self._style * _relative((gram(a) - there).square(), there.square())
        return distance


def _relative(error: Tensor, size: Tensor) -> Tensor:
    """Return the mean over pictures of the sum of `error` over that of `size`, both [N, ...]."""
    return (error.flatten(1).sum(1) / size.flatten(1).sum(1).clamp_min(1e-20)).mean()


def _unit(y: Tensor, format: PictureFormat) -> Tensor:  # noqa: A002
    return (y.float() - format.low) / (format.high - format.low)

"""The trunk of a ResNet-50 (He et al. 2016, stride in the 3 x 3 convolution), under the names torchvision gives it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from mggc_edge.pruning.mggc.encoder import Encoder

STAGES = (3, 4, 6, 3)  # blocks
WIDTHS = (64, 128, 256, 512)  # of the 3 x 3 convolutions; a block gives four times as many channels
EXPANSION = 4
# What ImageNet's networks take from values in 0..1, in the order RGB.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Bottleneck(nn.Module):
    """x + (1 x 1, 3 x 3, 1 x 1 convolutions, each with batch norm), x through one of 1 x 1 where shapes differ."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = width * EXPANSION
        self.conv1, self.bn1 = nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, after, 1, bias=False), nn.BatchNorm2d(after)
        self.downsample: nn.Module | None = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """From [B, before, H, W] to [B, 4 width, H / stride, W / stride]."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet50(Encoder):
    """From pictures to the mean of the last features over the positions, [B, 2048]: SwAV's features.

    Pictures with a side above 224 pixels are reduced to it. Grey pictures are repeated to three channels, a fourth
    channel is left out.

    Args:
        color: order of the pictures' channels: "L", "RGB", "BGR" or "RGBA".
        low, high: the values of black and white.
    """

    max_side, embedding_size, projected_size = 224, 2048, 128
    _mean: Tensor
    _std: Tensor

    def __init__(self, color: str = "RGB", *, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__(low, high)
        self._channels = {"L": (0, 0, 0), "RGB": (0, 1, 2), "BGR": (2, 1, 0), "RGBA": (0, 1, 2)}[color]
        self.conv1, self.bn1 = nn.Conv2d(3, WIDTHS[0], 7, 2, 3, bias=False), nn.BatchNorm2d(WIDTHS[0])
        before = WIDTHS[0]
        for number, (blocks, width) in enumerate(zip(STAGES, WIDTHS, strict=True), start=1):
            stage = []
            for block in range(blocks):
                stage.append(Bottleneck(before, width, 2 if number > 1 and block == 0 else 1))
                before = width * EXPANSION
            self.add_module(f"layer{number}", nn.Sequential(*stage))
        self.register_buffer("_mean", _column(MEAN), persistent=False)
        self.register_buffer("_std", _column(STD), persistent=False)

    def prepare(self, pictures: Tensor) -> Tensor:
        """Return pictures as views are taken of them: reduced, RGB, in [-1, 1]."""
        return super().prepare(pictures)[:, list(self._channels)]

    def pooled(self, prepared: Tensor) -> Tensor:
        """Return the mean of the last features over the positions, [B, 2048]."""
        x = ((prepared + 1) / 2 - self._mean) / self._std
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for number in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return x.mean(dim=(2, 3))

    def embedding(self, pooled: Tensor) -> Tensor:
        """Return the pooled features themselves."""
        return pooled


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values).reshape(1, -1, 1, 1)

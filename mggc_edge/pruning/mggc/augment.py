"""Random views of pictures: what an encoder shall see through. Batched; all draws are from torch's global generator."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

SMALLEST_AREA = 0.3  # of the picture that a crop shows, where nothing else is asked for
ASPECT = 4 / 3  # crops are stretched by up to this, or its inverse
JITTER = 0.4  # brightness, contrast and saturation are multiplied by 1 - JITTER to 1 + JITTER
GREY = 0.2  # fraction of the views without colour


def random_views(
    pictures: Tensor, size: tuple[int, int] | None = None, area: tuple[float, float] = (SMALLEST_AREA, 1.0)
) -> Tensor:
    """Return one random view of every picture: a crop, mirrored or not, in other colours.

    Args:
        pictures: float [B, C, H, W] in [-1, 1].
        size: (height, width) of the views; None: of the pictures.
        area: the smallest and the largest part of the picture that a crop shows, in (0, 1].

    Returns:
        float [B, C, height, width] in [-1, 1].
    """
    return _recoloured(_cropped(pictures, size or (pictures.shape[2], pictures.shape[3]), area))


def _uniform(count: int, low: float, high: float, like: Tensor) -> Tensor:
    return torch.rand(count, device=like.device) * (high - low) + low


def _cropped(pictures: Tensor, size: tuple[int, int], area: tuple[float, float]) -> Tensor:
    """Random place, area, aspect ratio and side, as one affine map a picture."""
    count = len(pictures)
    side = _uniform(count, *area, pictures).sqrt()
    stretch = torch.exp(_uniform(count, -1, 1, pictures) * torch.tensor(ASPECT).log().item() / 2)
    # The picture spans -1 to 1: a crop of half width w has its centre between w - 1 and 1 - w.
    wide, high = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
    x, y = ((1 - half) * _uniform(count, -1, 1, pictures) for half in (wide, high))
    mirrored = torch.where(torch.rand(count, device=pictures.device) < 0.5, -wide, wide)
    zero = torch.zeros_like(wide)
    maps = torch.stack([torch.stack([mirrored, zero, x], dim=1), torch.stack([zero, high, y], dim=1)], dim=1)
    grid = F.affine_grid(maps, [count, pictures.shape[1], *size], align_corners=False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _recoloured(pictures: Tensor) -> Tensor:
    """Random brightness, contrast and saturation, and some of the pictures grey."""
    count = len(pictures)
    brightness, contrast, saturation = (
        _uniform(count, 1 - JITTER, 1 + JITTER, pictures)[:, None, None, None] for _ in range(3)
    )
    saturation = torch.where(torch.rand(count, 1, 1, 1, device=pictures.device) < GREY, 0.0, saturation)
    light = (pictures + 1) * brightness
    mean = light.mean(dim=(1, 2, 3), keepdim=True)
    light = (light - mean) * contrast + mean
    grey = light.mean(dim=1, keepdim=True)
    return ((light - grey) * saturation + grey).clamp(0, 2) - 1

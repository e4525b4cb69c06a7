"""Multi-scale SSIM as a function with gradients (Wang, Simoncelli, Bovik 2003)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # pixels, of the Gaussian window
K_1, K_2 = 0.01, 0.03
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, the finest first
_LEAST = 1e-4  # of a scale's similarity: a power of what is below 0 is no number, and of 0 has no slope


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the multi-scale SSIM of pictures [N, C, H, W] with values from 0 to 1: their mean, float32 [].

    product over scales j of cs_j^w_j, at the coarsest of (l * cs)^w, every scale a 2x2 mean of the one before. Windows
    lie inside the picture. Pictures of less than 176 pixels have fewer than the five scales, the finest ones, and their
    weights are scaled up to the same sum. A window is no larger than the picture.
    """
    a, b = a.float(), b.float()
    with torch.autocast(a.device.type, enabled=False):
        side = min(a.shape[-2:])
        count = next((n for n in range(len(WEIGHTS), 1, -1) if side >> (n - 1) >= WINDOW), 1)
        whole = sum(WEIGHTS[:count])
        value = a.new_ones(len(a))
        for scale, weight in enumerate(WEIGHTS[:count]):
            if scale:
                a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
            luminance, contrast = _parts(a, b)
            seen = luminance * contrast if scale == count - 1 else contrast
            value = value * seen.mean((1, 2, 3)).clamp_min(_LEAST) ** (weight / whole)
        return value.mean()


def _parts(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return luminance and contrast-structure at every place of the window, each [N, C, h, w]."""
    channels = a.shape[1]
    size = min(WINDOW, *a.shape[-2:])
    places = torch.arange(size, device=a.device, dtype=a.dtype) - (size - 1) / 2
    window = torch.softmax(-places.square() / (2 * SIGMA**2), 0).repeat(channels, 1, 1, 1)  # [C, 1, 1, size]

    def smooth(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, window, groups=channels), window.transpose(2, 3), groups=channels)

    mean_a, mean_b = smooth(a), smooth(b)
    c_1, c_2 = K_1**2, K_2**2
    var_a, var_b = smooth(a * a) - mean_a.square(), smooth(b * b) - mean_b.square()
    covariance = smooth(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c_1) / (mean_a.square() + mean_b.square() + c_1)
    return luminance, (2 * covariance + c_2) / (var_a + var_b + c_2)

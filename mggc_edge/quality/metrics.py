"""Picture metrics in numpy: peak signal-to-noise ratio and structural similarity."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mggc_edge.tensors import FloatArray

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


def psnr_from_mse(mse: float, data_range: float) -> float | None:
    """Return 10 log10(data_range^2 / mse) in dB; None where the mean squared error is zero: the ratio has no value."""
    if math.isinf(mse):
        return -math.inf
    return None if mse == 0 else 10 * math.log10(data_range**2 / mse)


def ssim(a: FloatArray, b: FloatArray, data_range: float) -> float | None:
    """Return the mean structural similarity of two pictures, from -1 to 1.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004: Gaussian window of
    11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, only where the window lies inside the picture, mean over channels.

    Args:
        a, b: [..., H, W] arrays of the same shape.
        data_range: difference of the largest and the smallest possible value.

    Returns:
        None where a side is shorter than the window.
    """
    if min(a.shape[-2:]) < SSIM_WINDOW:
        return None
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return float(similarity.mean())


def _blur(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Separable Gaussian over the last two axes, where the window fits."""
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    kernel = np.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    kernel /= kernel.sum()
    for axis in (-2, -1):
        length = x.shape[axis] - SSIM_WINDOW + 1
        x = sum(weight * np.take(x, range(start, start + length), axis=axis) for start, weight in enumerate(kernel))
    return x

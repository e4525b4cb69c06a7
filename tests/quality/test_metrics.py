"""PSNR and SSIM give what their formulas give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import skimage.metrics

from mggc_edge.quality.metrics import psnr_from_mse, ssim
from mggc_edge.tensors import FloatArray

reference: Any = skimage.metrics  # without types


def pair(*shape: int, seed: int = 0, noise: float = 0.2) -> tuple[FloatArray, FloatArray]:
    """A smooth random array in [-1, 1] and the same with noise."""
    random = np.random.default_rng(seed)
    a = np.cumsum(random.normal(size=shape), axis=-1)
    a = (a / np.abs(a).max()).astype(np.float32)
    b = np.clip(a + random.normal(size=shape) * noise, -1, 1).astype(np.float32)
    return a, b


@pytest.mark.parametrize(
    ("mse", "data_range", "expected"),
    [(4.0, 2.0, 0.0), (0.04, 2.0, 20.0), (1.0, 255.0, 48.1308036), (0.01, 1.0, 20.0), (400.0, 2.0, -20.0)],
)
def test_psnr_is_ten_log_ten_of_squared_range_over_error(mse: float, data_range: float, expected: float) -> None:
    assert psnr_from_mse(mse, data_range) == pytest.approx(expected, abs=1e-7)


def test_psnr_without_error_has_no_value() -> None:
    assert psnr_from_mse(0.0, 2.0) is None


def test_psnr_of_an_infinite_error_is_minus_infinity() -> None:
    assert psnr_from_mse(math.inf, 2.0) == -math.inf


def test_psnr_of_nan_is_nan() -> None:
    value = psnr_from_mse(math.nan, 2.0)
    assert value is not None
    assert math.isnan(value)


def test_psnr_equals_scikit_image() -> None:
    a, b = pair(64, 48)
    mse = float(np.square(a.astype(np.float64) - b).mean())
    assert psnr_from_mse(mse, 2.0) == pytest.approx(reference.peak_signal_noise_ratio(a, b, data_range=2.0), abs=1e-6)


@pytest.mark.parametrize("shape", [(11, 11), (11, 40), (32, 32), (67, 48)])
@pytest.mark.parametrize("data_range", [2.0, 1.0, 255.0])
@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_ssim_equals_scikit_image(shape: tuple[int, int], data_range: float, noise: float) -> None:
    a, b = pair(*shape, seed=shape[1], noise=noise)
    a, b = a * np.float32(data_range / 2), b * np.float32(data_range / 2)
    expected = reference.structural_similarity(
        a.astype(np.float64),
        b.astype(np.float64),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=data_range,
    )
    assert ssim(a, b, data_range) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_colours_and_batches_is_the_mean_over_their_planes() -> None:
    a, b = pair(2, 3, 24, 20)
    planes = [ssim(x, y, 2.0) for x, y in zip(a.reshape(-1, 24, 20), b.reshape(-1, 24, 20), strict=True)]
    assert ssim(a, b, 2.0) == pytest.approx(np.mean([plane for plane in planes if plane is not None]), abs=1e-12)


def test_ssim_of_identical_pictures_is_one() -> None:
    a, _ = pair(3, 32, 32)
    assert ssim(a, a.copy(), 2.0) == pytest.approx(1.0, abs=1e-12)
    flat = np.zeros((1, 3, 16, 16), np.float32)
    assert ssim(flat, flat, 2.0) == 1.0


def test_ssim_is_symmetric_and_falls_below_zero_for_the_negative() -> None:
    a, b = pair(32, 32)
    assert ssim(a, b, 2.0) == pytest.approx(ssim(b, a, 2.0), abs=1e-15)
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (32, 32)).astype(np.float32)
    value = ssim(0.5 + noise, 0.5 - noise, 2.0)  # the same local means
    assert value is not None
    assert value < -0.5


@pytest.mark.parametrize("shape", [(10, 64), (64, 10), (1, 3, 10, 10), (3, 1, 1)])
def test_ssim_has_no_value_where_the_window_does_not_fit(shape: tuple[int, ...]) -> None:
    a, b = pair(*shape)
    assert ssim(a, b, 2.0) is None


def test_ssim_leaves_its_arguments_alone() -> None:
    a, b = pair(32, 32)
    before = a.copy(), b.copy()
    ssim(a, b, 2.0)
    assert np.array_equal(a, before[0])
    assert np.array_equal(b, before[1])

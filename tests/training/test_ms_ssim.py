"""Multi-scale SSIM equals torchmetrics' where both are defined, and has gradients everywhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from mggc_edge.training.ms_ssim import WEIGHTS, ms_ssim


def pair(side: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(2, 3, side // 8, side // 8, generator=generator)
    a = torch.nn.functional.interpolate(small, (side, side), mode="bicubic").clamp(0, 1)
    return a, (a + noise * torch.randn(a.shape, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.4])
def test_five_scales_equal_torchmetrics_up_to_its_reflected_border(noise: float) -> None:
    a, b = pair(192, noise)
    wanted = multiscale_structural_similarity_index_measure(a, b, data_range=1.0, betas=WEIGHTS, normalize="relu")
    assert isinstance(wanted, Tensor)
    assert ms_ssim(a, b).item() == pytest.approx(wanted.item(), abs=0.02)


def test_equal_pictures_are_one_and_more_noise_is_less() -> None:
    values = [ms_ssim(*pair(64, noise)).item() for noise in (0.0, 0.05, 0.2, 0.5)]
    assert values[0] == pytest.approx(1.0, abs=1e-6)
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.6


@pytest.mark.parametrize("side", [8, 11, 16, 32, 64])
def test_small_pictures_have_fewer_scales_and_a_window_that_fits(side: int) -> None:
    a, b = pair(side, 0.1)
    assert 0 < ms_ssim(a, b).item() < 1
    assert ms_ssim(a, a).item() == pytest.approx(1.0, abs=1e-6)


def test_gradients_are_finite_where_structure_is_opposite_and_where_pictures_are_equal() -> None:
    a, _ = pair(64, 0.0)
    for other in (1 - a, a.clone(), torch.zeros_like(a)):
        b = other.requires_grad_(True)
        (1 - ms_ssim(a, b)).backward()  # type: ignore[no-untyped-call]
        assert b.grad is not None
        assert bool(b.grad.isfinite().all())

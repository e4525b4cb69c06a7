"""Distances to the original's pictures: zero for equal ones, without a unit, a mean over pictures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mggc_edge.pictures import PictureFormat
from mggc_edge.quality.features import PREPROCESSINGS
from mggc_edge.training.likeness import PerceptualLikeness, PixelLikeness
from mggc_edge.training.ms_ssim import ms_ssim
from mggc_edge.training.perceptual import PerceptualNetwork
from tests.training.perceptual_files import SQUEEZENET, state_of
from tests.training.training_helpers import RGB

BGR = PictureFormat(3, "BGR", -1.0, 1.0)
GREY = PictureFormat.for_channels(1)


def shown(count: int = 2, side: int = 32, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def perceptual(form: PictureFormat = RGB, preprocessing: str = "imagenet", style: float = 1.0) -> PerceptualLikeness:
    rows = {key: value for key, value in state_of(SQUEEZENET).items() if key.startswith("features")}
    return PerceptualLikeness(PerceptualNetwork(SQUEEZENET, rows), form, preprocessing=preprocessing, style=style)


def test_the_pixel_distance_is_l1_gradients_and_ms_ssim_from_zero_to_one() -> None:
    a, b = shown(seed=1), shown(seed=2)
    u, v = (a + 1) / 2, (b + 1) / 2
    edges = sum((u.diff(dim=axis) - v.diff(dim=axis)).abs().mean() for axis in (2, 3))
    wanted = (u - v).abs().mean() + edges + 1 - ms_ssim(u, v)
    torch.testing.assert_close(PixelLikeness(RGB)(a, b), wanted)
    assert PixelLikeness(RGB)(a, a).item() == pytest.approx(0, abs=1e-6)
    levels = PictureFormat(3, "RGB", 0.0, 255.0)
    torch.testing.assert_close(PixelLikeness(levels)(u * 255, v * 255), wanted)


@pytest.mark.parametrize("preprocessing", PREPROCESSINGS)
def test_the_perceptual_distance_is_zero_for_equal_pictures_and_pulls_others_together(preprocessing: str) -> None:
    measure = perceptual(preprocessing=preprocessing)
    a, b = shown(seed=1).requires_grad_(True), shown(seed=2)
    assert measure(b, b).item() == 0
    distance = measure(a, b)
    distance.backward()  # type: ignore[no-untyped-call]
    assert a.grad is not None
    assert measure(a.detach() - 0.1 * a.grad / a.grad.abs().max(), b).item() < distance.item()


def test_a_generator_in_bgr_is_shown_as_it_looks() -> None:
    a, b = shown(seed=1), shown(seed=2)
    torch.testing.assert_close(perceptual(BGR)(a.flip(1), b.flip(1)), perceptual()(a, b))
    assert perceptual(preprocessing="caffe")(a, b).item() != pytest.approx(
        perceptual(BGR, preprocessing="caffe")(a, b).item(), rel=1e-3
    )


def test_grey_pictures_are_shown_in_three_equal_channels() -> None:
    a, b = shown(channels=1, seed=1), shown(channels=1, seed=2)
    torch.testing.assert_close(perceptual(GREY)(a, b), perceptual()(a.repeat(1, 3, 1, 1), b.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("preprocessing", ["imagenet", "caffe"])
def test_of_pictures_with_alpha_the_colours_are_shown_and_alpha_is_compared_as_it_is(preprocessing: str) -> None:
    a, b = shown(channels=4, seed=1), shown(channels=4, seed=2)
    of_alpha = 0.5 * (a[:, 3] - b[:, 3]).abs().mean()
    colours = perceptual(preprocessing=preprocessing)(a[:, :3], b[:, :3])
    measure = perceptual(PictureFormat.for_channels(4), preprocessing=preprocessing)
    torch.testing.assert_close(measure(a, b), colours + of_alpha)
    assert of_alpha > 0.1
    assert measure(a, a).item() == 0


def test_the_style_has_a_weight_and_the_distance_is_a_mean_over_pictures() -> None:
    a, b = shown(seed=1), shown(seed=2)
    content, half, whole = (perceptual(style=style)(a, b).item() for style in (0.0, 0.5, 1.0))
    assert whole - content == pytest.approx(2 * (half - content), rel=1e-4)
    for measure in (PixelLikeness(RGB), perceptual()):
        parts = [measure(a[n : n + 1], b[n : n + 1]).item() for n in (0, 1)]
        assert measure(a, b).item() == pytest.approx(sum(parts) / 2, rel=1e-4)


def test_every_preprocessing_is_a_choice_of_the_setting() -> None:
    from mggc_edge.settings import SETTINGS

    (setting,) = (setting for setting in SETTINGS if setting.name == "gan_slimming.preprocessing")
    assert setting.choices == ("auto", *PREPROCESSINGS)

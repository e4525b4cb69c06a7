"""Every metric gives the numbers of torchmetrics, on seeded pictures and features."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from mggc_edge.quality.confusion import UNDEFINED, agreement, confusion
from mggc_edge.quality.frechet import frechet_distance
from mggc_edge.quality.kid import kid
from mggc_edge.quality.metrics import psnr_from_mse, ssim

FEATURES = 16


class Rows(nn.Module):
    """A feature network whose pictures are their features already."""

    num_features = FEATURES

    def forward(self, rows: Tensor) -> Tensor:
        return rows.reshape(len(rows), FEATURES)


def pair(seed: int, shape: tuple[int, ...] = (1, 3, 32, 40)) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    a = random.uniform(-1, 1, shape)
    return a, np.clip(a + 0.2 * random.normal(size=shape), -1, 1)


def features(seed: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    return random.normal(size=(80, FEATURES)), random.normal(size=(80, FEATURES)) @ random.normal(
        size=(FEATURES, FEATURES)
    ) + 0.2


@pytest.mark.parametrize("seed", range(3))
def test_psnr(seed: int) -> None:
    a, b = pair(seed)
    expected = peak_signal_noise_ratio(torch.from_numpy(a), torch.from_numpy(b), data_range=2.0)
    assert psnr_from_mse(float(np.square(a - b).mean()), 2.0) == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_ssim(seed: int) -> None:
    a, b = pair(seed)
    found = ssim(a[0], b[0], 2.0)
    _, everywhere = structural_similarity_index_measure(
        torch.from_numpy(a), torch.from_numpy(b), data_range=2.0, sigma=1.5, kernel_size=11, return_full_image=True
    )
    inside = everywhere[..., 5:-5, 5:-5]  # torchmetrics reflects pictures at their border, the paper does not
    assert found == pytest.approx(inside.mean().item(), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_frechet_distance_of_any_features(seed: int) -> None:
    real, fake = features(seed)
    metric = FrechetInceptionDistance(feature=Rows(), input_img_size=(FEATURES, 1, 1), normalize=True)
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(fake), real=False)
    assert frechet_distance(real, fake) == pytest.approx(metric.compute().item(), rel=1e-6)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save")
@pytest.mark.parametrize("seed", range(3))
def test_kid_of_any_features(seed: int) -> None:
    real, fake = features(seed)
    metric = KernelInceptionDistance(feature=Rows(), subsets=1, subset_size=80, normalize=True)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(fake), real=False)
    mean, _ = metric.compute()
    assert kid(real, fake, seed=0).value == pytest.approx(mean.item(), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_miou_and_accuracies(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.integers(0, 5, (4, 20, 20))
    predicted = np.where(random.uniform(size=truth.shape) < 0.6, truth, random.integers(0, 6, truth.shape))
    truth[random.uniform(size=truth.shape) < 0.1] = UNDEFINED
    found = agreement(confusion(truth, predicted, 7))  # class 5 is predicted only, class 6 is nowhere
    target, guess = torch.from_numpy(truth), torch.from_numpy(predicted)
    miou = MulticlassJaccardIndex(7, average="macro", ignore_index=UNDEFINED)(guess, target)
    pixels = MulticlassAccuracy(7, average="micro", ignore_index=UNDEFINED)(guess, target)
    assert found.miou == pytest.approx(miou.item(), rel=1e-6)
    assert found.pixel_accuracy == pytest.approx(pixels.item(), rel=1e-6)
    each = MulticlassAccuracy(7, average="none", ignore_index=UNDEFINED)(guess, target)
    assert found.class_accuracy == pytest.approx(each[:5].mean().item(), rel=1e-6)  # the classes that the truth has

"""A compressed generator's pictures beside the original's, and both beside the truth where there is one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mggc_edge.backends.base import Runner
from mggc_edge.errors import FeedError
from mggc_edge.quality.metrics import psnr_from_mse, ssim
from mggc_edge.quality.parity import DATA_RANGE, only_output
from mggc_edge.tensors import Array

RESAMPLES = 2000
# Of fewer values, not even the range from the smallest to the largest holds the median in 95 % of samples.
FEWEST_FOR_INTERVAL = 6

OnPictures = Callable[[Array, Array, Array, "Array | None"], None]


@dataclass(frozen=True)
class Similarity:
    """How near pictures are to others. A number that does not exist is None, and none is NaN.

    Attributes:
        pictures: how many were compared.
        psnr: mean of the pictures' PSNR in dB, over those that differ at all; None where none does.
        psnr_ci95: bootstrap interval of that mean; None for fewer than FEWEST_FOR_INTERVAL of them.
        psnr_pooled: PSNR of all values together, in dB; None where all are identical.
        ssim: mean over the pictures; None where they are too small for it.
        identical_pictures: pictures without any difference, which have no PSNR.
        broken_pictures: pictures with values that are not finite; where there is one, every number above is None.
    """

    pictures: int
    psnr: float | None
    psnr_ci95: tuple[float, float] | None
    psnr_pooled: float | None
    ssim: float | None
    identical_pictures: int = 0
    broken_pictures: int = 0

    @property
    def identical(self) -> bool:
        """Whether every value of every picture is the same."""
        return self.identical_pictures == self.pictures

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with the attributes but `pictures` as keys, and `identical`."""
        return {
            "psnr": self.psnr,
            "psnr_ci95": None if self.psnr_ci95 is None else list(self.psnr_ci95),
            "psnr_pooled": self.psnr_pooled,
            "ssim": self.ssim,
            "identical": self.identical,
            "identical_pictures": self.identical_pictures,
            "broken_pictures": self.broken_pictures,
        }


@dataclass(frozen=True)
class Comparison:
    """A compressed generator against its original.

    Attributes:
        to_original: the compressed generator's pictures to the original's.
        original_to_truth, compressed_to_truth: the pictures of each to the true ones; None without truth.
    """

    to_original: Similarity
    original_to_truth: Similarity | None = None
    compressed_to_truth: Similarity | None = None

    @property
    def pictures(self) -> int:
        """How many pictures were compared."""
        return self.to_original.pictures

    def to_json(self) -> dict[str, Any]:
        """Return the picture part of `quality.json`; what has no value is null."""
        truth = self.original_to_truth, self.compressed_to_truth
        own = self.to_original.to_json()
        return {
            "pictures": self.pictures,
            "psnr_to_original": own.pop("psnr"),
            "psnr_to_original_ci95": own.pop("psnr_ci95"),
            "psnr_to_original_pooled": own.pop("psnr_pooled"),
            "ssim_to_original": own.pop("ssim"),
            **own,
            "to_truth": None
            if truth[0] is None or truth[1] is None
            else {"original": truth[0].to_json(), "compressed": truth[1].to_json()},
        }


def compare_pictures(
    original: Runner,
    compressed: Runner,
    pictures: Iterable[tuple[Array, Array | None]],
    *,
    on_pictures: OnPictures | None = None,
    data_range: float = DATA_RANGE,
    seed: int = 0,
) -> Comparison:
    """Feed the same pictures to two entered runners, a batch at a time, and compare what comes out.

    Only sums and a few numbers per picture are kept.

    Args:
        original, compressed: runners with one input and one output each.
        pictures: (input, truth) pairs: [N, C, H, W] arrays; truth is what the outputs should be, None where that is
            not known, for all pairs or for none.
        on_pictures: is given the input, the two outputs and the truth of every pair, for samples and features.
        data_range: difference of the largest and the smallest possible output value.
        seed: of the bootstrap intervals.

    Raises:
        FeedError: there is no picture, shapes differ, or only some pictures have a truth.
    """
    between, first, second = _Series(data_range), _Series(data_range), _Series(data_range)
    with_truth: bool | None = None
    for picture, truth in pictures:
        a, b = only_output(original, picture), only_output(compressed, picture)
        if a.ndim != 4 or a.size == 0:
            raise FeedError(f"{original.name} gives {a.shape}, but pictures are [N, C, H, W]")
        if a.shape != b.shape:
            raise FeedError(
                f"{original.name} gives {a.shape} and {compressed.name} gives {b.shape}: nothing to compare"
            )
        if truth is not None and truth.shape != a.shape:
            raise FeedError(f"the truth has the shape {truth.shape}, but {original.name} gives {a.shape}")
        if with_truth not in (None, truth is not None):
            raise FeedError("some pictures have a truth and some have none", hint="compare them separately")
        with_truth = truth is not None
        between.add(b, a)
        if truth is not None:
            first.add(a, truth)
            second.add(b, truth)
        if on_pictures is not None:
            on_pictures(picture, a, b, truth)
    if not between.psnr:
        raise FeedError("there is no picture to compare with")
    return Comparison(
        between.similarity(seed),
        first.similarity(seed) if first.psnr else None,
        second.similarity(seed) if second.psnr else None,
    )


class _Series:
    """Pictures compared so far."""

    def __init__(self, data_range: float) -> None:
        self._data_range = data_range
        self.psnr: list[float | None] = []  # of each picture: None if identical, NaN if broken
        self._ssim: list[float] = []
        self._sum_squares, self._values = 0.0, 0

    @np.errstate(invalid="ignore", over="ignore")  # what makes NaN or infinity is counted as broken
    def add(self, batch: Array, reference: Array) -> None:
        """Compare two [N, C, H, W] arrays, picture by picture."""
        for a, b in zip(batch.astype(np.float64), reference.astype(np.float64), strict=True):
            squares = float(np.square(a - b).sum())
            similarity = ssim(a, b, self._data_range) if math.isfinite(squares) else None
            if not math.isfinite(squares + (similarity or 0.0)):
                self.psnr.append(math.nan)
                continue
            self._sum_squares += squares
            self._values += a.size
            self.psnr.append(psnr_from_mse(squares / a.size, self._data_range))
            if similarity is not None:
                self._ssim.append(similarity)

    def similarity(self, seed: int) -> Similarity:
        different = [value for value in self.psnr if value is not None]
        identical, broken = len(self.psnr) - len(different), sum(map(math.isnan, different))
        if broken:
            return Similarity(len(self.psnr), None, None, None, None, identical, broken)
        return Similarity(
            pictures=len(self.psnr),
            psnr=math.fsum(different) / len(different) if different else None,
            psnr_ci95=mean_interval(different, seed),
            psnr_pooled=psnr_from_mse(self._sum_squares / self._values, self._data_range),
            ssim=math.fsum(self._ssim) / len(self._ssim) if self._ssim else None,
            identical_pictures=identical,
        )


def mean_interval(values: Sequence[float], seed: int) -> tuple[float, float] | None:
    """Return the 95 % percentile bootstrap interval of the mean of finite values.

    None for fewer than FEWEST_FOR_INTERVAL values, which cannot carry one.
    """
    if len(values) < FEWEST_FOR_INTERVAL:
        return None
    random, array = np.random.default_rng(seed), np.array(values, np.float64)
    means = [float(array[random.integers(len(array), size=len(array))].mean()) for _ in range(RESAMPLES)]
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)

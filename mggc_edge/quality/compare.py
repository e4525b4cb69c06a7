"""A compressed generator's pictures beside the original's, and both beside the truth where there is one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mggc_edge.backends.base import Runner
from mggc_edge.errors import FeedError
from mggc_edge.quality.bootstrap import Estimate, bootstrap, mean_interval, mean_of
from mggc_edge.quality.metrics import psnr_from_mse, ssim
from mggc_edge.quality.parity import DATA_RANGE, only_output
from mggc_edge.tensors import Array

OnPictures = Callable[[Array, Array, Array, "Array | None"], None]


@dataclass(frozen=True)
class Similarity:
    """How near pictures are to others. A number that does not exist is None, and none is NaN.

    Attributes:
        pictures: how many were compared.
        psnr: mean of the pictures' PSNR in dB, over those that differ at all; None where none does.
        psnr_ci95: bootstrap interval of that mean; None where there are too few of them for one.
        psnr_pooled: PSNR of all values together, in dB; None where all are identical.
        ssim: mean over the pictures; None where they are too small for it.
        identical_pictures: pictures without any difference, which have no PSNR.
        broken_pictures: pictures with values that are not finite; where there is one, every number above is None.
        ssim_ci95: bootstrap interval of the mean SSIM.
    """

    pictures: int
    psnr: float | None
    psnr_ci95: tuple[float, float] | None
    psnr_pooled: float | None
    ssim: float | None
    identical_pictures: int = 0
    broken_pictures: int = 0
    ssim_ci95: tuple[float, float] | None = None

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
            "ssim_ci95": None if self.ssim_ci95 is None else list(self.ssim_ci95),
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
        psnr_to_truth_difference, ssim_to_truth_difference: compressed less original, over the pictures for which both
            have the number; None without truth.
    """

    to_original: Similarity
    original_to_truth: Similarity | None = None
    compressed_to_truth: Similarity | None = None
    psnr_to_truth_difference: Estimate | None = None
    ssim_to_truth_difference: Estimate | None = None

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
            "ssim_to_original_ci95": own.pop("ssim_ci95"),
            **own,
            "to_truth": None
            if truth[0] is None or truth[1] is None
            else {"original": truth[0].to_json(), "compressed": truth[1].to_json()},
            "to_truth_difference": None
            if self.psnr_to_truth_difference is None or self.ssim_to_truth_difference is None
            else {"psnr": self.psnr_to_truth_difference.to_json(), "ssim": self.ssim_to_truth_difference.to_json()},
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
    if not first.psnr:
        return Comparison(between.similarity(seed))
    return Comparison(
        between.similarity(seed),
        first.similarity(seed),
        second.similarity(seed),
        _difference(second.psnr, first.psnr, seed),
        _difference(second.ssim, first.ssim, seed),
    )


def _difference(values: Sequence[float | None], others: Sequence[float | None], seed: int) -> Estimate:
    """Return the mean of values - others, picture by picture, where both are finite."""
    a, b = (np.array([math.nan if value is None else value for value in side]) for side in (values, others))
    both = np.isfinite(a) & np.isfinite(b)
    return bootstrap([mean_of((a - b)[both])], int(both.sum()), seed=seed)


class _Series:
    """Pictures compared so far."""

    def __init__(self, data_range: float) -> None:
        self._data_range = data_range
        self.psnr: list[float | None] = []  # of each picture: None if identical, NaN if broken
        self.ssim: list[float | None] = []  # of each picture: None if too small or broken
        self._sum_squares, self._values = 0.0, 0

    @np.errstate(invalid="ignore", over="ignore")  # what makes NaN or infinity is counted as broken
    def add(self, batch: Array, reference: Array) -> None:
        """Compare two [N, C, H, W] arrays, picture by picture."""
        for a, b in zip(batch.astype(np.float64), reference.astype(np.float64), strict=True):
            squares = float(np.square(a - b).sum())
            similarity = ssim(a, b, self._data_range) if math.isfinite(squares) else None
            if not math.isfinite(squares + (similarity or 0.0)):
                self.psnr.append(math.nan)
                self.ssim.append(None)
                continue
            self._sum_squares += squares
            self._values += a.size
            self.psnr.append(psnr_from_mse(squares / a.size, self._data_range))
            self.ssim.append(similarity)

    def similarity(self, seed: int) -> Similarity:
        different = [value for value in self.psnr if value is not None]
        identical, broken = len(self.psnr) - len(different), sum(map(math.isnan, different))
        if broken:
            return Similarity(len(self.psnr), None, None, None, None, identical, broken)
        similarities = [value for value in self.ssim if value is not None]
        return Similarity(
            pictures=len(self.psnr),
            psnr=math.fsum(different) / len(different) if different else None,
            psnr_ci95=mean_interval(different, seed),
            psnr_pooled=psnr_from_mse(self._sum_squares / self._values, self._data_range),
            ssim=math.fsum(similarities) / len(similarities) if similarities else None,
            identical_pictures=identical,
            ssim_ci95=mean_interval(similarities, seed),
        )

"""Parity: how far two runners agree on the same feeds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mggc_edge.backends.base import Runner
from mggc_edge.errors import CheckFailedError, FeedError
from mggc_edge.quality.metrics import psnr_from_mse, ssim
from mggc_edge.tensors import Array

DATA_RANGE = 2.0  # generators give values in [-1, 1]


@dataclass(frozen=True)
class ParityReport:
    """Agreement of a candidate with a reference.

    Attributes:
        images: pictures that both saw.
        max_abs, mean_abs: largest and mean absolute difference of output values in [-1, 1].
        psnr: of all values together, in dB; None where they are identical.
        ssim: mean over the pictures; None where they are too small for it.
        atol, min_psnr: what was asked for; None where it was not.
        worst: number of the fed array, from 0, whose outputs differ most.
    """

    images: int
    max_abs: float
    mean_abs: float
    psnr: float | None
    ssim: float | None
    atol: float | None
    min_psnr: float | None
    worst: int = 0

    @property
    def identical(self) -> bool:
        """Whether every value is the same."""
        return self.max_abs == 0

    @property
    def passed(self) -> bool:
        """Whether everything that was asked for holds. NaN in an output fails every check."""
        close = self.atol is None or self.max_abs <= self.atol
        good = self.min_psnr is None or (self.identical if self.psnr is None else self.psnr >= self.min_psnr)
        return math.isfinite(self.max_abs) and close and good

    def check(self, what: str, hint: str | None = None) -> None:
        """Raise CheckFailedError unless `passed`, with a way out where there is one."""
        if not self.passed:
            wanted = [f"at most {self.atol:g}"] if self.atol is not None else []
            wanted += [f"a PSNR of at least {self.min_psnr:g} dB"] if self.min_psnr is not None else []
            psnr = "" if self.psnr is None else f", PSNR {self.psnr:.2f} dB"
            raise CheckFailedError(
                f"{what}: outputs differ by up to {self.max_abs:.3g}{psnr}; wanted was {' and '.join(wanted)}",
                hint,
            )

    def to_json(self) -> dict[str, Any]:
        """Return the keys of `verify --json`; what has no finite value is null."""
        numbers = {"psnr": self.psnr, "ssim": self.ssim, "max_abs": self.max_abs, "mean_abs": self.mean_abs}
        return {
            "passed": self.passed,
            "identical": self.identical,
            **{key: value if value is not None and math.isfinite(value) else None for key, value in numbers.items()},
            "images": self.images,
            "atol": self.atol,
            "min_psnr": self.min_psnr,
        }


@np.errstate(invalid="ignore")  # infinite outputs make NaN, which fails the check
def check_parity(
    reference: Runner,
    candidate: Runner,
    pictures: Iterable[Array],
    *,
    atol: float | None = 1e-4,
    min_psnr: float | None = None,
    data_range: float = DATA_RANGE,
) -> ParityReport:
    """Feed the same pictures to two entered runners, one at a time, and compare what comes out.

    Args:
        reference, candidate: runners with one input and one output each.
        pictures: [N, C, H, W] arrays; streamed, so that any number fits into memory.
        atol: largest absolute difference allowed; None: any.
        min_psnr: smallest PSNR allowed, in dB; None: any.
        data_range: difference of the largest and the smallest possible output value.

    Raises:
        FeedError: there is no picture, or the two give outputs of different shapes, without values, or a number each.
    """
    images, values, worst = 0, 0, 0
    max_abs = sum_abs = sum_squares = 0.0
    similarities: list[float] = []
    for number, picture in enumerate(pictures):
        a, b = (only_output(runner, picture) for runner in (reference, candidate))
        if a.shape != b.shape:
            raise FeedError(
                f"{reference.name} gives {a.shape} and {candidate.name} gives {b.shape}: nothing to compare"
            )
        if not a.ndim or not a.size:
            raise FeedError(f"{reference.name} gives no pictures but an output of the shape {a.shape}")
        difference = np.abs(a.astype(np.float64) - b.astype(np.float64))
        if not difference.max() <= max_abs and not math.isnan(max_abs):
            worst = number
        max_abs = float(np.maximum(max_abs, difference.max()))  # unlike max(), keeps NaN
        sum_abs += float(difference.sum())
        sum_squares += float(np.square(difference).sum())
        images += len(a)
        values += a.size
        similarity = ssim(a, b, data_range)
        if similarity is not None:
            similarities += [similarity] * len(a)
    if not images:
        raise FeedError("there is no picture to compare with")
    return ParityReport(
        images=images,
        max_abs=max_abs,
        mean_abs=sum_abs / values,
        psnr=psnr_from_mse(sum_squares / values, data_range),
        ssim=sum(similarities) / len(similarities) if similarities else None,
        atol=atol,
        min_psnr=min_psnr,
        worst=worst,
    )


def only_output(runner: Runner, picture: Array) -> Array:
    """Run a runner that has one input and one output; raises FeedError for another one."""
    if len(runner.inputs) != 1 or len(runner.outputs) != 1:
        raise FeedError(
            f"{runner.name} has {len(runner.inputs)} inputs and {len(runner.outputs)} outputs, not one each"
        )
    (output,) = runner.infer({runner.inputs[0].name: picture}).values()
    return output

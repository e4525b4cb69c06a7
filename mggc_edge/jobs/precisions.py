"""The compressed generator in other precisions: which ones, calibrated on training pictures."""

from __future__ import annotations

from mggc_edge.calibration.samples import Samples, from_pixels
from mggc_edge.compiler.precision.wanted import Precisions, wanted_pictures
from mggc_edge.compiler.targets import choose_precisions
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.pictures import PictureFormat, Size
from mggc_edge.settings import Settings
from mggc_edge.training.material import Material


def precisions_for(
    request: CompressRequest, target: str, settings: Settings, material: Material, seed: int
) -> Precisions | None:
    """Return what a job is to make for a target beside the compressed generator's fp32 file; None: nothing.

    Calibration pictures, those that precision is measured on among them, are training pictures: test pictures, and
    those that checkpoints are chosen by, take no part.
    """
    names = choose_precisions(request.precisions, target)
    if set(names) == {"fp32"}:
        return None
    source = material.source

    def choose(_size: Size, format: PictureFormat) -> Samples:  # noqa: A002
        wanted = wanted_pictures(settings, seed)
        return from_pixels(
            len(source), source.pixels, format, wanted, where="training", place="among the training pictures"
        )

    return Precisions(names, choose, request.min_precision_psnr, settings)

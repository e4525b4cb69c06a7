"""What is wanted of the precisions of an export, and the calibration pictures for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from mggc_edge.artifacts import PRECISIONS
from mggc_edge.calibration.ranges import Finding, Method
from mggc_edge.calibration.samples import Samples, Wanted, built_in, check_folder, from_folder
from mggc_edge.errors import PictureError, SettingError
from mggc_edge.pictures import PictureFormat, Size
from mggc_edge.settings import Settings

MIN_PSNR = 35.0  # dB, where --min-precision-psnr is not given
MOST_PSNR = 1000.0
TRIED: tuple[Method, ...] = ("min-max", "percentile", "mse")  # by calibration.method auto
Tell = Callable[[str], None]
Choose = Callable[[Size, PictureFormat], Samples]


@dataclass(frozen=True)
class Precisions:
    """What is made of an fp32 file.

    Attributes:
        names: of the precisions beside fp32, which is always there: it is what the others are made from.
        choose: from the picture size and format of a graph to its calibration pictures.
        min_psnr: to the float output, in dB, below which a file is rejected.
        settings: `calibration.*`, `quantize.*`, `precision.*` and `bench.*` are read.

    Raises:
        SettingError: a name is none, or no PSNR is like that.
    """

    names: tuple[str, ...]
    choose: Choose
    min_psnr: float = MIN_PSNR
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in PRECISIONS:
                raise SettingError(f"'{name}' is no precision", hint=", ".join(PRECISIONS))
        check_psnr(self.min_psnr)


def check_psnr(value: float) -> None:
    """Raise SettingError where a PSNR cannot be asked of a file of another precision."""
    if not 0 <= value <= MOST_PSNR:
        raise SettingError(f"--min-precision-psnr must be a number of dB from 0 to {MOST_PSNR:g}, not {value:g}")


def wanted_pictures(settings: Settings, seed: int) -> Wanted:
    """Return how many calibration pictures the settings want."""
    return Wanted(
        observed=settings["calibration.pictures"],
        held_out=settings["calibration.held_out"],
        seed=seed,
        max_unreadable=settings["pictures.max_unreadable"],
    )


def chosen_from(folder: Path | None, settings: Settings, seed: int, tell: Tell) -> Choose:
    """Return what chooses calibration pictures out of a folder; None: built-in ones.

    Args:
        tell: is told of files that are skipped, and that built-in pictures were taken.

    Raises:
        PictureError: there is no such folder, or it has fewer than two pictures.
    """
    wanted = wanted_pictures(settings, seed)
    if folder is not None:
        check_folder(folder, wanted)

    def skipped(_path: Path, error: PictureError) -> None:
        tell(f"skipped: {error.message}")

    def choose(size: Size, format: PictureFormat) -> Samples:  # noqa: A002
        if folder is not None:
            half = settings["calibration.half"]
            return from_folder(folder, size, format, wanted, half=half, on_unreadable=skipped)
        tell("note: no --calibration pictures were given; other precisions are calibrated and judged on built-in ones")
        return built_in(size, format, wanted)

    return choose


def findings_of(settings: Settings) -> list[Finding]:
    """Return the ways to find ranges that the settings want: one, or several of which the best is to be taken."""
    method: str = settings["calibration.method"]
    names = TRIED if method == "auto" else [name for name in get_args(Method) if name == method]
    return [Finding(name, settings["calibration.percentile"], settings["calibration.momentum"]) for name in names]

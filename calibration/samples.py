"""The pictures that ranges are observed on, and others that precision is measured on: chosen by a seed, and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mggc_edge.errors import PictureError, SettingError, counted
from mggc_edge.pictures import PictureFormat, Size, find_pictures, read_picture, to_pixels
from mggc_edge.procedural import procedural_pictures
from mggc_edge.tensors import FloatArray

Pixels = npt.NDArray[np.uint8]
Stream = Callable[[], Iterator[FloatArray]]  # float32 [1, C, H, W], the same ones whenever it is called
Unreadable = Callable[[Path, PictureError], None]
Where = Literal["folder", "built-in", "training"]
LEAST = 2  # one to observe, and one to hold out


@dataclass(frozen=True)
class Wanted:
    """How many pictures are wanted, and how they are chosen.

    Attributes:
        observed: pictures that ranges are found on.
        held_out: other pictures, that precision is measured on. Of fewer than wanted in all, a quarter is held out.
        seed: of the choice, and of built-in pictures.
        max_unreadable: fraction of the pictures that were looked at which may be unreadable.
    """

    observed: int = 32
    held_out: int = 8
    seed: int = 0
    max_unreadable: float = 0.05

    def __post_init__(self) -> None:
        if self.observed < 1 or self.held_out < 1:
            raise SettingError(
                f"{self.observed} observed and {self.held_out} held-out pictures make no calibration",
                hint="at least 1 of each",
            )


@dataclass(frozen=True)
class Samples:
    """Calibration pictures, read one at a time.

    Attributes:
        observed, held_out: streams of float32 [1, C, H, W]; no picture is in both.
        observed_count, held_out_count: how many they give.
        sha256: of the size, the format, and the levels (uint8, as the network sees them) of both, in their order.
        where: a folder of the user's, the built-in ones, or the training pictures of a job.
        unreadable: files that could not be read and were left out.
    """

    observed: Stream
    held_out: Stream
    observed_count: int
    held_out_count: int
    sha256: str
    where: Where
    unreadable: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return what a manifest holds of them."""
        return {
            "where": self.where,
            "observed": self.observed_count,
            "held_out": self.held_out_count,
            "sha256": self.sha256,
            "unreadable": self.unreadable,
        }


def from_folder(
    folder: Path,
    size: Size,
    format: PictureFormat,  # noqa: A002
    wanted: Wanted,
    *,
    half: str = "whole",
    on_unreadable: Unreadable = lambda _path, _error: None,
) -> Samples:
    """Choose calibration pictures out of a folder.

    Args:
        size, format: of the network's input.
        half: as in `read_picture`.
        on_unreadable: is called once for every file that is skipped.

    Raises:
        PictureError: there are fewer than two pictures that can be read, or too many that cannot.
    """
    paths = check_folder(folder, wanted)

    def read(index: int) -> Pixels:
        try:
            return to_pixels(read_picture(paths[index], format.color, half), size, format)
        except PictureError as error:
            on_unreadable(paths[index], error)
            raise

    return from_pixels(len(paths), read, format, wanted, where="folder", place=f"in '{folder}'")


def check_folder(folder: Path, wanted: Wanted) -> list[Path]:
    """Return the pictures of a folder, none of which has been read; PictureError where fewer than two are there."""
    paths = find_pictures(folder)
    _check_count(len(paths), wanted, f"in '{folder}'")
    return paths


def _check_count(count: int, wanted: Wanted, place: str) -> None:
    if count < LEAST:
        raise PictureError(
            f"{counted(count, 'picture')} {place} cannot calibrate: ranges are found on some, and precision is "
            "measured on others",
            hint=f"give at least {LEAST}, better {wanted.observed + wanted.held_out}, or none for the built-in ones",
        )


def from_pixels(
    count: int,
    read: Callable[[int], Pixels],
    format: PictureFormat,  # noqa: A002
    wanted: Wanted,
    *,
    where: Where,
    place: str,
) -> Samples:
    """Choose calibration pictures out of `count` that are read by number.

    Args:
        read: from a number to levels, uint8 [C, H, W]; PictureError where it cannot be read.
        place: where they lie, for errors.

    Raises:
        PictureError: as for `from_folder`.
    """
    digest = _digest(format)
    order = np.random.default_rng((wanted.seed, count)).permutation(count).tolist()
    found: list[int] = []
    failed: list[PictureError] = []
    for index in order:
        if len(found) == wanted.observed + wanted.held_out:
            break
        try:
            digest.update(_bytes(read(index)))
        except PictureError as error:
            failed.append(error)
        else:
            found.append(index)
    looked_at = len(found) + len(failed)
    if failed and len(failed) > wanted.max_unreadable * looked_at:
        raise PictureError(
            f"{len(failed)} of {counted(looked_at, 'calibration picture')} {place} are unreadable; the first: "
            f"{failed[0].message}",
            hint=f"at most {wanted.max_unreadable:.0%} may be",
        )
    _check_count(len(found), wanted, place)
    enough = len(found) == wanted.observed + wanted.held_out
    kept = wanted.held_out if enough else min(wanted.held_out, max(1, len(found) // 4))
    held_out, observed = found[:kept], found[kept:]
    digest.update(str(kept).encode())

    def stream(numbers: Sequence[int]) -> Stream:
        return lambda: (_to_array(read(number), format) for number in numbers)

    return Samples(
        stream(observed), stream(held_out), len(observed), kept, digest.hexdigest(), where, unreadable=len(failed)
    )


def built_in(size: Size, format: PictureFormat, wanted: Wanted) -> Samples:  # noqa: A002
    """Return built-in pictures, for whoever has none: shapes before shapes, see `mggc_edge.procedural`."""
    seeds = {"held_out": wanted.seed + 1, "observed": wanted.seed}
    counts = {"held_out": wanted.held_out, "observed": wanted.observed}

    def levels(part: str) -> Iterator[Pixels]:
        pictures = procedural_pictures(counts[part], size, seed=seeds[part], color=format.color)
        return (to_pixels(picture, size, format) for picture in pictures)

    digest = _digest(format)
    for part in seeds:
        for pixels in levels(part):
            digest.update(_bytes(pixels))
    digest.update(str(wanted.held_out).encode())

    def stream(part: str) -> Stream:
        return lambda: (_to_array(pixels, format) for pixels in levels(part))

    return Samples(
        stream("observed"), stream("held_out"), wanted.observed, wanted.held_out, digest.hexdigest(), "built-in"
    )


def _digest(format: PictureFormat) -> hashlib._Hash:  # noqa: A002
    return hashlib.sha256(repr(format).encode())


def _bytes(pixels: Pixels) -> bytes:
    return repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()


def _to_array(pixels: Pixels, format: PictureFormat) -> FloatArray:  # noqa: A002
    return np.ascontiguousarray(format.levels()[pixels[None]])

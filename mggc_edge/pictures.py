"""The one place where pictures become arrays and arrays become pictures.

picture file -> `read_picture` -> PIL picture, 8 bit, upright -> `to_array` -> float32 [1, C, H, W] in the range of a
network, and back again with `to_picture`. Training, calibration, verification and translation all come through here.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mggc_edge.decoding import Size, as_mode, read_picture
from mggc_edge.errors import ArtifactError, PictureError, SettingError
from mggc_edge.tensors import Array, FloatArray

__all__ = [
    "PICTURE_SUFFIXES",
    "PictureFormat",
    "PictureStream",
    "Size",
    "contact_sheet",
    "find_pictures",
    "png_bytes",
    "read_picture",
    "to_array",
    "to_levels",
    "to_picture",
    "to_pixels",
]

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

USUAL_COLORS = {1: "L", 3: "RGB", 4: "RGBA"}  # channels -> colour order
_CHANNELS = {"L": 1, "RGB": 3, "BGR": 3, "RGBA": 4}


@dataclass(frozen=True)
class PictureFormat:
    """How a network sees pictures: how many channels in which order, and the values of black and of white.

    `channels`: 1, 3 or 4; `color`: "L", "RGB", "BGR" or "RGBA"; `low`, `high`: the values of levels 0 and 255.
    Raises SettingError where channels and colour order disagree, or the range cannot hold 256 levels in float32.
    """

    channels: int
    color: str
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.color not in _CHANNELS:
            raise SettingError(f"unknown colour order '{self.color}'", f"one of {', '.join(_CHANNELS)}")
        if self.channels != _CHANNELS[self.color]:
            wanted = _CHANNELS[self.color]
            raise SettingError(f"colour order {self.color} has {wanted} channel(s), not {self.channels}")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise SettingError(f"the value range {self.low}..{self.high} is not a range", "low must be below high")
        step = (self.high - self.low) / 255
        if max(abs(self.low), abs(self.high)) > 1e37 or step < 4e-7 * max(abs(self.low), abs(self.high)):
            raise SettingError(f"the value range {self.low}..{self.high} cannot hold 256 levels in float32")

    @classmethod
    def for_channels(cls, channels: int) -> PictureFormat:
        """Return the usual format in -1..1 for 1 (L), 3 (RGB) or 4 (RGBA) channels; SettingError for another number."""
        if channels not in USUAL_COLORS:
            raise SettingError(f"no picture has {channels} channels", "a network must take and give 1, 3 or 4")
        return cls(channels, USUAL_COLORS[channels])

    @property
    def mode(self) -> str:
        """Pillow's mode of a picture in this format: "L", "RGB" (for BGR too) or "RGBA"."""
        return "RGB" if self.color == "BGR" else self.color

    @property
    def in_bytes(self) -> PictureFormat:
        """How the same pictures are seen as bytes: values from 0 to 255, and RGB for BGR."""
        return PictureFormat(self.channels, self.mode, 0.0, 255.0)

    def levels(self) -> FloatArray:
        """Return the network's value of each of the 256 levels, float32 [256], rising from `low` to `high`."""
        return np.linspace(self.low, self.high, 256, dtype=np.float64).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with the keys `channels`, `color`, `low` and `high`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> PictureFormat:
        """Return what `to_json` wrote; ArtifactError for anything else."""
        if not isinstance(data, Mapping) or set(data) != {"channels", "color", "low", "high"}:
            raise ArtifactError("a picture format must be an object with exactly the keys channels, color, low, high")
        channels, color, low, high = (data[key] for key in ("channels", "color", "low", "high"))
        numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (low, high))
        if type(channels) is not int or not isinstance(color, str) or not numbers:
            raise ArtifactError("a picture format needs a whole number of channels, a colour name and two numbers")
        try:
            return cls(channels, color, float(low), float(high))
        except (SettingError, OverflowError) as error:
            raise ArtifactError(f"impossible picture format: {error}") from error


def find_pictures(folder: Path) -> list[Path]:
    """Return every picture below `folder` in natural order (2.jpg before 10.jpg), or `[folder]` if it is a picture.

    Goes by the names in PICTURE_SUFFIXES; hidden files and folders are left out, links to folders are not followed.
    Raises PictureError where nothing is there, nothing is found, or a folder cannot be listed.
    """
    hint = f"a picture is a file that ends in {' '.join(PICTURE_SUFFIXES)}"
    if folder.is_file():
        if folder.suffix.lower() not in PICTURE_SUFFIXES:
            raise PictureError(f"'{folder}' is not a picture", hint)
        return [folder]
    if not folder.is_dir():
        raise PictureError(f"there is no folder '{folder}'", hint)
    found: list[Path] = []

    def unlisted(error: OSError) -> None:
        raise PictureError(f"cannot list the folder '{error.filename}': {error.strerror}") from error

    for place, folders, names in os.walk(folder, onerror=unlisted):
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = (Path(place, name) for name in names if not name.startswith("."))
        # A pipe that is called a picture would be waited for without end.
        found.extend(path for path in shown if path.suffix.lower() in PICTURE_SUFFIXES and not path.is_fifo())
    if not found:
        raise PictureError(f"no pictures in '{folder}'", hint)
    return sorted(found, key=lambda path: ([_natural(part) for part in path.parts], path.parts))


def _natural(name: str) -> list[str | int]:
    # Text and numbers take turns, text first, so that like is always compared with like.
    return [int(part) if index % 2 else part.casefold() for index, part in enumerate(re.split(r"(\d+)", name))]


def to_array(picture: Image.Image, size: Size, format: PictureFormat) -> FloatArray:  # noqa: A002
    """Return `picture` as float32 [1, C, H, W] in the range and colour order of `format`, resized (bicubic) to `size`.

    `size` is (height, width); nothing is resampled where it already fits. Raises PictureError for an empty size.
    """
    return np.ascontiguousarray(format.levels()[to_pixels(picture, size, format)[None]])


def to_pixels(picture: Image.Image, size: Size, format: PictureFormat) -> npt.NDArray[np.uint8]:  # noqa: A002
    """Return `picture` as levels, uint8 [C, H, W] in the colour order of `format`; otherwise as `to_array`."""
    if min(size) < 1:
        raise PictureError(f"cannot resize a picture to {size[0]} x {size[1]} pixels")
    picture = as_mode(picture, format.mode)
    if picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    pixels = np.asarray(picture).reshape(*size, format.channels)
    if format.color == "BGR":
        pixels = pixels[..., ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def to_levels(values: Array, format: PictureFormat) -> npt.NDArray[np.float64]:  # noqa: A002
    """Return the nearest levels of values in the range of `format`, whole numbers clipped to 0..255; NaN stays NaN."""
    levels = np.rint((values.astype(np.float64) - format.low) * (255 / (format.high - format.low)))
    clipped: npt.NDArray[np.float64] = np.clip(levels, 0, 255)
    return clipped


def to_picture(array: Array, format: PictureFormat) -> Image.Image:  # noqa: A002
    """Return an array [C, H, W] or [1, C, H, W] of `format` as an 8-bit picture: nearest level, clipped to the range.

    Raises PictureError where the shape does not fit, or a value is not finite.
    """
    shape = array.shape
    if array.ndim == 4 and shape[0] == 1:
        array = array[0]
    if array.ndim != 3 or array.shape[0] != format.channels or array.size == 0:
        wanted = f"[{format.channels}, height, width]"
        raise PictureError(f"an array of shape {list(shape)} is not one {format.color} picture", f"expected {wanted}")
    values = array.astype(np.float64)
    wrong = int(values.size - np.isfinite(values).sum())
    if wrong:
        raise PictureError(f"{wrong} of {values.size} values of the picture are not finite", "the network overflowed")
    pixels = to_levels(values, format).astype(np.uint8).transpose(1, 2, 0)
    if format.color == "BGR":
        pixels = pixels[..., ::-1]
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if format.channels == 1 else pixels))


class PictureStream:
    """Pictures as arrays, read one by one: iterating yields (path, float32 [1, C, H, W]) for each readable file.

    `size`, `format`, `half`: as in `to_array` and `read_picture`. An unreadable file is skipped and handed to
    `on_unreadable` (once, however often the stream is iterated). After the last file PictureError is raised if more
    than the fraction `max_unreadable` (0..1) of the files was unreadable, or all were. `read` and `unreadable` count
    the files of the latest iteration. Raises SettingError for an impossible fraction, PictureError for no paths at all.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        size: Size,
        format: PictureFormat,  # noqa: A002
        half: str = "whole",
        on_unreadable: Callable[[Path, PictureError], None] | None = None,
        max_unreadable: float = 0.05,
    ) -> None:
        if not paths:
            raise PictureError("there are no pictures to read")
        if not 0 <= max_unreadable <= 1:
            raise SettingError(f"max_unreadable is {max_unreadable}, but it is a fraction", "between 0 and 1")
        self.paths, self.size, self.format, self.half = tuple(paths), size, format, half
        self.max_unreadable = max_unreadable
        self.read = self.unreadable = 0
        self._on_unreadable = on_unreadable
        self._reported: set[Path] = set()

    def __iter__(self) -> Iterator[tuple[Path, FloatArray]]:
        self.read = self.unreadable = 0
        first: PictureError | None = None
        for path in self.paths:
            try:
                array = to_array(read_picture(path, self.format.color, self.half), self.size, self.format)
            except PictureError as error:
                self.unreadable += 1
                first = first or error
                if self._on_unreadable is not None and path not in self._reported:
                    self._reported.add(path)
                    self._on_unreadable(path, error)
                continue
            self.read += 1
            yield path, array
            del array  # the next picture is read only after this one is let go
        if first is not None and (self.read == 0 or self.unreadable > self.max_unreadable * len(self.paths)):
            message = f"{self.unreadable} of {len(self.paths)} pictures are unreadable; the first: {first.message}"
            raise PictureError(message, f"at most {self.max_unreadable:.0%} may be") from first


def contact_sheet(columns: Sequence[tuple[str, Sequence[Image.Image]]], cell: int = 192) -> Image.Image:
    """Return an RGB picture with a titled column per entry and a row per picture, on white with thin margins.

    Each picture is scaled to fit `cell` x `cell` pixels, keeping its proportions, and stands in the middle of its cell.
    The sheet is `m + columns * (cell + m)` wide and `m + title + rows * (cell + m)` high, the margin m being cell / 48
    and the title cell / 8 (at least 2 and 14). Raises PictureError without any picture, SettingError for cell < 16.
    """
    rows = max((len(pictures) for _, pictures in columns), default=0)
    if rows == 0:
        raise PictureError("a contact sheet needs at least one picture")
    if cell < 16:
        raise SettingError(f"a cell of {cell} pixels is too small for a contact sheet", "at least 16")
    margin, title_height = max(2, cell // 48), max(14, cell // 8)
    pitch = cell + margin
    sheet = Image.new("RGB", (margin + len(columns) * pitch, margin + title_height + rows * pitch), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (title, pictures) in enumerate(columns):
        left = margin + column * pitch
        points = title_height * 0.7
        width = ImageFont.load_default(size=points).getlength(title)
        font = ImageFont.load_default(size=points * min(1.0, cell / max(width, 1.0)))
        draw.text((left + cell / 2, margin + title_height / 2), title, fill="black", font=font, anchor="mm")
        for row, picture in enumerate(pictures):
            scale = cell / max(picture.size)
            small = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            shown = as_mode(picture, "RGB").resize(small, Image.Resampling.BICUBIC)
            top = margin + title_height + row * pitch
            sheet.paste(shown, (left + (cell - small[0]) // 2, top + (cell - small[1]) // 2))
    return sheet


def png_bytes(picture: Image.Image) -> bytes:
    """Return an 8-bit "L", "RGB" or "RGBA" picture as a PNG file without metadata; PictureError for another mode."""
    if picture.mode not in ("L", "RGB", "RGBA"):
        raise PictureError(f"a picture of mode {picture.mode} is not written as PNG", "convert it to L, RGB or RGBA")
    buffer = io.BytesIO()
    plain = picture.copy()
    plain.info = {}
    plain.save(buffer, format="PNG")
    return buffer.getvalue()

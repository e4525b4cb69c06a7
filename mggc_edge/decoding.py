"""From a picture file to an 8-bit, upright picture without metadata, whatever the file holds.

The lower half of `pictures`, which is where the rest of the package finds `read_picture`.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mggc_edge.errors import PictureError, SettingError
from mggc_edge.tensors import Array

Size = tuple[int, int]  # (height, width) in pixels

COLORS = ("L", "RGB", "BGR", "RGBA")
HALVES = ("whole", "left", "right")
# No other decoder is tried on an untrusted file (Pillow's EPS decoder would start Ghostscript).
_DECODERS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
# What Pillow's decoders have been seen to raise on broken files; warnings are raised where filters say "error".
_DECODING_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError),
    *(EOFError, MemoryError, RuntimeError, Warning, struct.error, zlib.error, Image.DecompressionBombError),
)
# EXIF tag 274 says how the stored picture must be turned to stand upright; 1 is upright already.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = tuple(_TURNS[orientation] for orientation in (5, 6, 7, 8))


def read_picture(path: Path, color: str = "RGB", half: str = "whole") -> Image.Image:
    """Return the first frame of a picture file, upright by its EXIF orientation, 8 bit, without its metadata.

    `color`: "L", "RGB" (also for "BGR": an order of arrays, not of pictures) or "RGBA"; transparency is dropped, not
    blended, where it is not asked for. `half`: "left" or "right" cuts a side-by-side pair, whose width must be even.
    Grey of more than 8 bits is scaled by the depth that the file states (16 bit: >> 8; negative values are black);
    float is taken as 0..1 if no value is above 1, else as 0..255, and clipped.
    Raises PictureError naming the file, whatever is wrong with it; SettingError for an unknown `color` or `half`.
    """
    if color not in COLORS:
        raise SettingError(f"unknown colour order '{color}'", f"one of {', '.join(COLORS)}")
    if half not in HALVES:
        raise SettingError(f"unknown half '{half}'", f"one of {', '.join(HALVES)}")
    with _opened(path) as file:
        file.load()
        turn = _turn(file)
        picture = as_mode(file, "RGB" if color == "BGR" else color)
        if turn is not None:
            picture = picture.transpose(turn)
    if half == "whole":
        return picture
    if picture.width % 2:
        raise PictureError(f"'{path}' is {picture.width} pixels wide, which cannot be cut into a left and a right half")
    middle = picture.width // 2
    return picture.crop((0, 0, middle, picture.height) if half == "left" else (middle, 0, 2 * middle, picture.height))


def picture_size(path: Path) -> Size:
    """Return the (height, width) that a picture file has upright, as `read_picture` returns it with half="whole".

    Raises PictureError naming the file where even that cannot be told.
    """
    with _opened(path) as file:
        sideways = _turn(file) in _SIDEWAYS
        return (file.width, file.height) if sideways else (file.height, file.width)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=_DECODERS) as file:
            # Pillow only warns up to twice its limit, and a filter may hide the warning.
            if Image.MAX_IMAGE_PIXELS is not None and file.width * file.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            yield file
    except (PictureError, *_DECODING_ERRORS) as error:
        raise PictureError(f"cannot read '{path}': {_reason(path, error)}") from error


def _turn(file: Image.Image) -> Image.Transpose | None:
    return _TURNS.get(file.getexif().get(274, 1))


def _reason(path: Path, error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not a picture" if path.stat().st_size else "it is empty"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"it has more than {Image.MAX_IMAGE_PIXELS} pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def as_mode(picture: Image.Image, mode: str) -> Image.Image:
    """Return a copy of any picture as 8-bit "L", "RGB" or "RGBA" (`mode`), without metadata; see `read_picture`."""
    if picture.mode == "F" or picture.mode.startswith("I"):
        picture = _grey8(picture)
    elif picture.mode in ("P", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    elif picture.mode == "LAB":  # Pillow knows no way from it to grey
        picture = picture.convert("RGB")
    picture = picture.convert(mode)
    picture.info = {}  # a colour profile or a rotation would not be true any more
    return picture


def _grey8(picture: Image.Image) -> Image.Image:
    values: Array = np.asarray(picture)
    if picture.mode == "F":
        if not np.isfinite(values).all():
            raise PictureError("it has values that are not finite")
        scaled = np.clip(values * 255.0 if values.max() <= 1 else values, 0, 255)
        return Image.fromarray(np.rint(scaled).astype(np.uint8))
    tags = getattr(picture, "tag_v2", {})
    bits = int(tags.get(258, (16,))[0])  # TIFF: BitsPerSample; PNG fills 16 bits
    signed = tags.get(339, (1,))[0] == 2  # TIFF: SampleFormat
    if signed:
        wide, bits = np.maximum(values.astype(np.int64), 0), bits - 1
    elif bits == 32:
        wide = values.astype(np.uint32).astype(np.int64)  # Pillow keeps unsigned 32 bit in int32
    else:
        wide = values.astype(np.int64)
    return Image.fromarray(np.clip(wide >> max(bits - 8, 0), 0, 255).astype(np.uint8))

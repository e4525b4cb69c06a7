"""The colours of label pictures, one a class: given by the user, or learnt from label pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from mggc_edge.decoding import as_mode
from mggc_edge.errors import PictureError, SettingError
from mggc_edge.quality.confusion import UNDEFINED, Labels

MAX_CLASSES = 256
# Learning: a class needs this share of the pixels that lie in an even area, and an even area is one of 3 x 3 pixels
# whose levels differ by at most FLATNESS in every channel: where classes meet, resizing makes colours of no class.
SMALLEST_SHARE = 0.001
FLATNESS = 24
RADIUS = 40  # levels, Euclidean: colours that are nearer are one, which compression of the file has spread
EXPLAINED = 0.95  # of the even pixels must lie within RADIUS / 2 of a found colour
_BIN = 8  # levels
_BINS = 256 // _BIN

Levels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Palette:
    """The colour of every class, in their order: RGB levels from 0 to 255.

    Raises:
        SettingError: there are fewer than 2 or more than MAX_CLASSES, or two are equal.
    """

    colors: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.colors) <= MAX_CLASSES:
            raise SettingError(f"a palette of {len(self.colors)} colours is none", f"from 2 to {MAX_CLASSES}")
        if len(set(self.colors)) != len(self.colors):
            raise SettingError("two classes of the palette have the same colour")

    @classmethod
    def parse(cls, text: str) -> Palette:
        """Return the palette of a text such as "0000aa ff5500 ffff00": six hexadecimal digits a class.

        Raises:
            SettingError: the text is none.
        """
        words = text.replace(",", " ").replace("#", " ").split()
        if not all(re.fullmatch(r"[0-9a-fA-F]{6}", word) for word in words):
            raise SettingError(f"'{text}' is no palette", "colours of six hexadecimal digits, such as 0000aa ff5500")
        return cls(tuple((int(w[:2], 16), int(w[2:4], 16), int(w[4:], 16)) for w in words))

    def words(self) -> list[str]:
        """Return the colours as `parse` takes them."""
        return ["{:02x}{:02x}{:02x}".format(*color) for color in self.colors]

    @property
    def clear_distance(self) -> float:
        """Half of the smallest distance of two colours, in levels: within it, no other colour is nearer."""
        colors = np.array(self.colors, np.float64)
        distances = np.sqrt(np.square(colors[:, None] - colors[None]).sum(axis=2))
        return float(distances[~np.eye(len(colors), dtype=bool)].min() / 2)

    def nearest(self, picture: Image.Image) -> Labels:
        """Return the class whose colour is nearest, for every pixel, [H, W]; of equally near ones the first."""
        return self._nearest(picture)[0]

    def labels(self, picture: Image.Image) -> Labels:
        """Return the class of every pixel of a true label picture, [H, W].

        UNDEFINED where no colour is within `clear_distance`: such pixels are a mixture, where classes meet.
        """
        nearest, squares = self._nearest(picture)
        return np.where(squares <= self.clear_distance**2, nearest, UNDEFINED)

    def _nearest(self, picture: Image.Image) -> tuple[Labels, Levels]:
        pixels = _levels(picture)
        squares = np.stack([np.square(pixels - np.array(color)).sum(axis=2) for color in self.colors])
        nearest = squares.argmin(axis=0)
        return nearest, np.take_along_axis(squares, nearest[None], axis=0)[0]


def learn_palette(pictures: Iterable[Image.Image]) -> Palette:
    """Return the colours that label pictures are made of, from the most frequent to the rarest.

    Only pixels in even areas count. The most frequent cell of 8 x 8 x 8 levels is a class, its colour the mean of the
    pixels within RADIUS / 2; all within RADIUS are then left out, and so on until a cell has less than SMALLEST_SHARE.

    Raises:
        PictureError: there are no pictures, or they are not made of few colours.
    """
    counts = np.zeros(_BINS**3, np.int64)
    sums = np.zeros((_BINS**3, 3), np.float64)
    for picture in pictures:
        pixels = _levels(picture)
        even = pixels[1:-1, 1:-1][_even(pixels)]
        cells = (even // _BIN) @ np.array((_BINS * _BINS, _BINS, 1))
        counts += np.bincount(cells, minlength=len(counts))
        for channel in range(3):
            sums[:, channel] += np.bincount(cells, even[:, channel], minlength=len(counts))
    total = int(counts.sum())
    if total == 0:
        raise PictureError("there is no label picture with an even area to learn colours from")
    means = sums / np.maximum(counts, 1)[:, None]
    left = counts.copy()
    colors: list[tuple[int, int, int]] = []
    explained = 0
    while left.max() >= SMALLEST_SHARE * total and len(colors) <= MAX_CLASSES:
        distances = np.sqrt(np.square(means - means[left.argmax()]).sum(axis=1))
        near = (distances <= RADIUS / 2) & (left > 0)
        red, green, blue = np.rint(np.average(means[near], axis=0, weights=left[near])).astype(int).tolist()
        colors.append((red, green, blue))
        explained += int(left[near].sum())
        left[distances <= RADIUS] = 0
    if not 2 <= len(colors) <= MAX_CLASSES or explained < EXPLAINED * total:
        raise PictureError(
            f"the generator's inputs are no label pictures: their even areas lie near "
            f"{len(colors)} colours for {explained / total:.0%} of their pixels",
            hint="a segmenter needs labels that go in and photographs that come out; or give segmenter.palette",
        )
    return Palette(tuple(colors))


def _even(pixels: Levels) -> npt.NDArray[np.bool_]:
    """Return where the 3 x 3 pixels around differ by at most FLATNESS in every channel, [H - 2, W - 2]."""
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (3, 3), axis=(0, 1))
    even: npt.NDArray[np.bool_] = (windows.max(axis=(3, 4)) - windows.min(axis=(3, 4))).max(axis=2) <= FLATNESS
    return even


def _levels(picture: Image.Image) -> Levels:
    return np.asarray(as_mode(picture, "RGB")).astype(np.int64)

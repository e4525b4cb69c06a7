"""Label pictures for tests: rectangles of known colours, and what resizing and JPEG make of them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

COLORS = ((0, 0, 170), (255, 85, 0), (255, 255, 0), (0, 170, 255))


def label_picture(seed: int, side: int = 48, colors: tuple[tuple[int, int, int], ...] = COLORS) -> Image.Image:
    """Rectangles of every colour on a ground of the first."""
    random = np.random.default_rng(seed)
    pixels = np.full((side, side, 3), colors[0], np.uint8)
    for color in (*colors[1:], *colors[1:]):
        top, left = random.integers(0, side - 14, 2)
        height, width = random.integers(10, 14, 2)
        pixels[top : top + height, left : left + width] = color
    return Image.fromarray(pixels)


def as_jpeg(picture: Image.Image) -> Image.Image:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=75)
    return Image.open(data).convert("RGB")

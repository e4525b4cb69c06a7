"""Pictures out of a random generator, for those who have none: shapes in front of shapes, lit and slightly noisy.

The dead-leaves model: opaque shapes of all sizes occlude each other, the number of shapes of radius r falling with
r ** -2. Like photographs, such pictures have flat and textured regions, sharp edges at every scale, and power that
falls steadily with the frequency (measured: as frequency ** -3; photographs: -2 to -3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

from mggc_edge.errors import SettingError
from mggc_edge.pictures import Size
from mggc_edge.tensors import Array, FloatArray

_MODES = {"L": "L", "RGB": "RGB", "BGR": "RGB", "RGBA": "RGBA"}
_SHAPES = 44
_KINDS = ("ellipse", "ellipse", "polygon", "polygon", "box", "box", "blob", "blob", "line")
_OVERSAMPLING = 3  # masks are drawn this much larger, so that edges are smooth


def procedural_pictures(count: int, size: Size, seed: int = 0, color: str = "RGB") -> Iterator[Image.Image]:
    """Yield `count` different pictures of `size` (height, width) in 8 bit; `color` as in `read_picture`.

    Picture i depends on nothing but `seed`, i and `size`, so a longer series begins with the shorter one.
    Raises SettingError for a negative count or seed, an empty size or an unknown `color`.
    """
    if count < 0 or seed < 0:
        raise SettingError(f"count is {count} and seed is {seed}, but neither can be negative")
    if min(size) < 1:
        raise SettingError(f"a picture cannot be {size[0]} x {size[1]} pixels")
    if color not in _MODES:
        raise SettingError(f"unknown colour order '{color}'", f"one of {', '.join(_MODES)}")
    return (
        _picture(np.random.default_rng((seed, index, *size)), size).convert(_MODES[color]) for index in range(count)
    )


def _picture(rng: np.random.Generator, size: Size) -> Image.Image:
    palette = _palette(rng)
    scene = _background(rng, size, palette)
    fills = [_textured(rng, size, palette) for _ in range(2)]
    # The inverse of the distribution with density r ** -2 between a 60th and a half of the picture; big ones behind.
    radii = np.sort(1 / (60 - rng.random(_SHAPES) * (60 - 2)))[::-1]
    for radius in radii * min(size):
        center = rng.random(2) * (size[1], size[0])
        _stamp(rng, scene, center, max(float(radius), 0.5), fills, palette)
    return _lit(rng, scene, size)


def _palette(rng: np.random.Generator) -> FloatArray:
    """Six colours, [6, 3] in 0..255, dark to light: grey with a common tint and some of their own."""
    light = np.linspace(rng.uniform(10, 60), rng.uniform(190, 250), 6)[:, None] + rng.normal(0, 15, (6, 1))
    tint = rng.normal(0, rng.uniform(5, 25), (1, 3)) + rng.normal(0, 1, (6, 3)) * rng.uniform(5, 60, (6, 1))
    palette: FloatArray = np.clip(light + tint - tint.mean(axis=1, keepdims=True), 0, 255).astype(np.float32)
    return palette


def _smooth(
    rng: np.random.Generator, size: Size, cells: int, between: Image.Resampling = Image.Resampling.BICUBIC
) -> FloatArray:
    """A random field [H, W] of about -1..1 that changes over 1 / `cells` of the picture."""
    coarse = Image.fromarray(rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32))
    return np.asarray(coarse.resize((size[1], size[0]), between))


def _rough(rng: np.random.Generator, size: Size) -> FloatArray:
    """Cloud-like noise [H, W] of about -1..1, of the same amplitude at every scale: power falls with frequency ** 2."""
    rough = _smooth(rng, size, 3)
    for cells in (12, 45, 128):
        rough = rough + _smooth(rng, size, cells, Image.Resampling.BILINEAR)
    return rough * np.float32(0.6)


def _wave(rng: np.random.Generator, size: Size) -> FloatArray:
    """Stripes [H, W] in -1..1, slightly bent: 4 to 40 across the picture, soft or hard."""
    angle = rng.uniform(0, math.pi)
    turns = 2 * math.pi * math.exp(rng.uniform(math.log(4), math.log(40))) / max(size)
    across = np.arange(size[1], dtype=np.float32) * np.float32(math.cos(angle) * turns)
    down = np.arange(size[0], dtype=np.float32) * np.float32(math.sin(angle) * turns)
    wave = np.sin(across[None] + down[:, None] + _smooth(rng, size, 2) * rng.uniform(0, 3))
    stripes: FloatArray = np.clip(wave * rng.choice([1.0, 4.0]), -1, 1).astype(np.float32)
    return stripes


def _gradient(rng: np.random.Generator, size: Size, colors: Array) -> Image.Image:
    """A smooth colour field between the given colours, [n, 3] in 0..255."""
    cells = int(rng.integers(2, 4))
    coarse = Image.fromarray(colors[rng.integers(0, len(colors), (cells, cells))].clip(0, 255).astype(np.uint8))
    return coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC)


def _background(rng: np.random.Generator, size: Size, palette: Array) -> Image.Image:
    """A smooth sky, and mostly a rough ground under a wavy horizon."""
    first, second = rng.integers(0, 4, 2)
    scene = _gradient(rng, size, palette[first : first + 3])
    if rng.random() < 0.7:
        ground = _gradient(rng, size, palette[second : second + 3])
        ground.paste(_rgb(palette[rng.integers(0, 6)]), mask=_mask(_rough(rng, size), rng.uniform(0.3, 0.9)))
        horizon = size[0] * (rng.uniform(0.35, 0.8) + _smooth(rng, (1, size[1]), 6)[0] * rng.uniform(0, 0.12))
        below = (np.arange(size[0], dtype=np.float32)[:, None] - horizon[None]) * 2
        scene.paste(ground, mask=_mask(below, 1.0))
    return scene


def _textured(rng: np.random.Generator, size: Size, palette: Array) -> Image.Image:
    """A gradient with stripes, checks or clouds on it."""
    first, second = palette[rng.choice(len(palette), 2, replace=False)]
    kind = rng.integers(0, 3)
    if kind == 0:
        pattern = _wave(rng, size)
    elif kind == 1:
        pattern = _wave(rng, size) * _wave(rng, size)
    else:
        pattern = _rough(rng, size) * 1.2
    field = _gradient(rng, size, np.stack([first, first * 0.6 + second * 0.4]))
    field.paste(_rgb(second), mask=_mask(pattern, rng.uniform(0.3, 1.0)))
    return field


def _mask(field: FloatArray, strength: float) -> Image.Image:
    """A mask from a field in -1..1: nothing at -1, `strength` at 1."""
    return Image.fromarray(((field + 1) * (127.5 * strength)).clip(0, 255).astype(np.uint8))


def _rgb(color: Array) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in color.clip(0, 255))
    return red, green, blue


def _stamp(
    rng: np.random.Generator,
    scene: Image.Image,
    center: Array,
    radius: float,
    fills: list[Image.Image],
    palette: Array,
) -> None:
    """Draw one shape of about `radius` pixels into `scene`: plain, shaded or filled from a textured picture."""
    left, top = (max(0, math.floor(at - 1.5 * radius)) for at in center)
    right, bottom = (min(most, math.ceil(at + 1.5 * radius)) for at, most in zip(center, scene.size, strict=True))
    if right <= left or bottom <= top:
        return
    scale = _OVERSAMPLING
    mask = Image.new("L", ((right - left) * scale, (bottom - top) * scale))
    outline, width = _outline(rng, radius)
    points = ((outline + center - (left, top)) * scale).ravel().tolist()
    draw = ImageDraw.Draw(mask)
    if width:
        draw.line(points, fill=255, width=max(1, round(width * scale)), joint="curve")
    else:
        draw.polygon(points, fill=255)
    box = (left, top, right, bottom)
    mask = mask.reduce(scale)
    if radius > 6 and rng.random() < 0.55:
        inside = fills[int(rng.integers(0, len(fills)))].crop(box)
    elif radius > 6:
        start = int(rng.integers(0, len(palette) - 1))
        colors = palette[start : start + 2] + rng.normal(0, 8, (2, 3))
        inside = _gradient(rng, (bottom - top, right - left), colors)
    else:
        color = palette[rng.integers(0, len(palette))] + rng.normal(0, 15, 3)
        inside = Image.new("RGB", mask.size, _rgb(color))
    scene.paste(inside, (left, top), mask)


def _outline(rng: np.random.Generator, radius: float) -> tuple[Array, float]:
    """Points [n, 2] around 0 within 1.5 radii, and the width of the line through them (0: a filled shape)."""
    kind = _KINDS[rng.integers(0, len(_KINDS))]
    width = 0.0
    if kind == "line":
        steps = np.linspace(-1.3, 1.3, 16)
        points = np.stack([steps, rng.normal(0, 0.25) * np.sin(steps * rng.uniform(1, 4))], axis=1)
        width = max(0.7, radius * rng.uniform(0.03, 0.15))
    elif kind == "box":
        points = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * rng.uniform(0.4, 1.0, 2)
    else:
        corners = int(rng.integers(3, 8)) if kind == "polygon" else 40
        angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
        reach = np.ones(corners)
        if kind == "polygon":
            angles, reach = angles + rng.uniform(-0.3, 0.3, corners), rng.uniform(0.6, 1.3, corners)
        elif kind == "blob":
            reach = 1 + 0.2 * np.sin(2 * angles + rng.uniform(0, 6)) + 0.15 * np.sin(3 * angles + rng.uniform(0, 6))
        points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * reach[:, None]
        points = points * ((1.0, rng.uniform(0.35, 1.0)) if kind == "ellipse" else (1.0, 1.0))
    turn = rng.normal(0, 0.08) if kind == "box" and rng.random() < 0.6 else rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return points @ rotation * radius, width


def _lit(rng: np.random.Generator, scene: Image.Image, size: Size) -> Image.Image:
    """The scene under uneven light that brings out a grain, with the noise of a sensor."""
    light = 1 + _rough(rng, size) * rng.uniform(0.02, 0.12)
    noise = rng.standard_normal(size, dtype=np.float32) * rng.uniform(0.5, 3.0)
    pixels = np.asarray(scene) * light[..., None] + noise[..., None] + 0.5
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

"""Procedural pictures: the same from the same seed, and as rich as pictures are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from mggc_edge.errors import SettingError
from mggc_edge.procedural import procedural_pictures


def pixels(pictures: Iterator[Image.Image]) -> list[bytes]:
    return [picture.tobytes() for picture in pictures]


def test_a_longer_series_begins_with_the_shorter_one() -> None:
    assert pixels(procedural_pictures(5, (32, 48), seed=3))[:2] == pixels(procedural_pictures(2, (32, 48), seed=3))


def test_every_picture_and_every_seed_is_different() -> None:
    series = [*procedural_pictures(6, (32, 32), seed=0), *procedural_pictures(6, (32, 32), seed=1)]
    assert len(set(pixels(iter(series)))) == 12


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 7), (64, 96), (300, 20)])
def test_pictures_have_the_size_and_the_colours_asked_for(size: tuple[int, int]) -> None:
    for color, mode in {"L": "L", "RGB": "RGB", "BGR": "RGB", "RGBA": "RGBA"}.items():
        [picture] = procedural_pictures(1, size, color=color)
        assert (picture.mode, picture.size) == (mode, (size[1], size[0]))


def test_grey_is_the_grey_of_the_coloured_picture() -> None:
    [coloured], [grey] = procedural_pictures(1, (40, 40)), procedural_pictures(1, (40, 40), color="L")
    assert grey.tobytes() == coloured.convert("L").tobytes()


def test_nothing_is_computed_before_it_is_asked_for() -> None:
    assert len(list(itertools.islice(procedural_pictures(10**9, (16, 16)), 2))) == 2
    assert list(procedural_pictures(0, (16, 16))) == []


def test_pictures_have_contrast_edges_flat_parts_and_colour() -> None:
    for picture in procedural_pictures(12, (128, 128), seed=5):
        values = np.asarray(picture).astype(float)
        steps = np.abs(np.diff(values.mean(axis=2), axis=1))
        assert values.std() > 15
        assert np.quantile(steps, 0.5) < 10
        assert steps.max() > 40
        assert (values.max(axis=2) - values.min(axis=2)).mean() > 5


def test_power_falls_with_the_frequency_about_as_in_photographs() -> None:
    window = np.hanning(128)[:, None] * np.hanning(128)
    power = np.zeros((128, 128))
    for picture in procedural_pictures(24, (128, 128), color="L"):
        values = np.asarray(picture).astype(float)
        power += np.abs(np.fft.fftshift(np.fft.fft2((values - values.mean()) * window))) ** 2
    y, x = np.indices(power.shape) - 64
    radius = np.hypot(x, y).round().astype(int).ravel()
    ring = np.bincount(radius, power.ravel()) / np.bincount(radius)
    frequencies = np.arange(4, 50)
    slope = np.polyfit(np.log(frequencies), np.log(ring[4:50]), 1)[0]
    assert -3.3 < slope < -2.0


@pytest.mark.parametrize(
    ("count", "size", "seed", "color", "message"),
    [
        (-1, (8, 8), 0, "RGB", "count is -1 and seed is 0, but neither can be negative"),
        (1, (8, 8), -2, "RGB", "count is 1 and seed is -2, but neither can be negative"),
        (1, (8, 0), 0, "RGB", "a picture cannot be 8 x 0 pixels"),
        (1, (8, 8), 0, "HSV", "unknown colour order 'HSV' (one of L, RGB, BGR, RGBA)"),
    ],
)
def test_impossible_requests_are_refused_at_once(
    count: int, size: tuple[int, int], seed: int, color: str, message: str
) -> None:
    with pytest.raises(SettingError) as caught:
        procedural_pictures(count, size, seed, color)
    assert str(caught.value) == message

"""A palette is read or learnt, and tells the class of a pixel; where that is no question of one colour, it says so."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mggc_edge.errors import PictureError, SettingError
from mggc_edge.procedural import procedural_pictures
from mggc_edge.quality.confusion import UNDEFINED
from mggc_edge.quality.palette import Palette, learn_palette
from tests.quality.label_pictures import COLORS, as_jpeg, label_picture

PALETTE = Palette(COLORS)


def pixel(*colors: tuple[int, int, int]) -> Image.Image:
    return Image.fromarray(np.array([colors], np.uint8))


@pytest.mark.parametrize("text", ["0000aa ff5500 ffff00 00aaff", "#0000AA, #ff5500,#FFFF00  #00aaff"])
def test_a_palette_is_read_from_hexadecimal_colours(text: str) -> None:
    assert Palette.parse(text) == PALETTE
    assert PALETTE.words() == ["0000aa", "ff5500", "ffff00", "00aaff"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a palette of 0 colours is none"),
        ("0000aa", "a palette of 1 colours is none"),
        ("0000aa red", "'0000aa red' is no palette"),
        ("0000aa 00000", "'0000aa 00000' is no palette"),
        ("0000aa 0000AA", "two classes of the palette have the same colour"),
    ],
)
def test_what_is_no_palette_is_refused(text: str, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        Palette.parse(text)
    assert caught.value.message == message


def test_the_nearest_colour_is_the_class() -> None:
    assert PALETTE.nearest(pixel((10, 10, 160), (255, 100, 0), (200, 255, 30), (0, 170, 255))).tolist() == [
        [0, 1, 2, 3]
    ]


def test_of_a_true_label_only_pixels_clearly_near_a_colour_count() -> None:
    # (0, 0, 170) and (0, 170, 255) are 190 apart, (255, 85, 0) and (255, 255, 0) 170: clear within 85.
    assert PALETTE.clear_distance == 85
    found = PALETTE.labels(pixel((0, 84, 170), (0, 85, 170), (60, 86, 170), (255, 255, 86)))
    assert found.tolist() == [[0, 0, UNDEFINED, UNDEFINED]]


def test_a_palette_is_learnt_from_pictures_that_were_resized_and_compressed() -> None:
    pictures = [as_jpeg(label_picture(seed, 96)).resize((64, 64), Image.Resampling.BICUBIC) for seed in range(6)]
    found = learn_palette(pictures)
    assert len(found.colors) == 4
    nearest = [int(PALETTE.nearest(pixel(color))[0, 0]) for color in found.colors]
    assert nearest[0] == 0  # the ground is the most frequent
    assert sorted(nearest) == [0, 1, 2, 3]
    for color, number in zip(found.colors, nearest, strict=True):
        assert max(abs(a - b) for a, b in zip(color, COLORS[number], strict=True)) <= 8


def test_exact_pictures_give_exact_colours_whatever_their_order() -> None:
    pictures = [label_picture(seed) for seed in range(3)]
    assert set(learn_palette(pictures).colors) == set(COLORS)
    assert learn_palette(pictures) == learn_palette(reversed(pictures))


def test_photographs_are_no_label_pictures() -> None:
    with pytest.raises(PictureError, match=r"^the generator's inputs are no label pictures: "):
        learn_palette(procedural_pictures(4, (48, 48), seed=0))


def test_pictures_of_one_colour_are_no_label_pictures() -> None:
    with pytest.raises(PictureError) as caught:
        learn_palette([Image.new("RGB", (8, 8), (9, 9, 9))])
    assert caught.value.message == (
        "the generator's inputs are no label pictures: their even areas lie near 1 colours for 100% of their pixels"
    )


@pytest.mark.parametrize("pictures", [[], [Image.fromarray((np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8))]])
def test_without_an_even_area_there_is_nothing_to_learn_from(pictures: list[Image.Image]) -> None:
    with pytest.raises(PictureError, match=r"^there is no label picture with an even area to learn colours from$"):
        learn_palette(pictures)

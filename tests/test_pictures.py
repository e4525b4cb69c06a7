"""Pictures: found, read, turned into arrays and back."""

from __future__ import annotations

import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mggc_edge.errors import ArtifactError, PictureError, SettingError
from mggc_edge.pictures import (
    PictureFormat,
    PictureStream,
    contact_sheet,
    find_pictures,
    png_bytes,
    read_picture,
    to_array,
    to_picture,
)

RGB = PictureFormat.for_channels(3)
FORMATS = [
    PictureFormat(channels, color, low, high)
    for channels, color in ((1, "L"), (3, "RGB"), (3, "BGR"), (4, "RGBA"))
    for low, high in ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (-127.5, 127.5), (-0.3, 0.1), (1000.0, 1001.0))
]
HINT = "a picture is a file that ends in .jpg .jpeg .png .webp .bmp .tif .tiff"


def noise(*shape: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def saved(path: Path, picture: Image.Image | None = None, **options: Any) -> Path:
    (picture or Image.new("RGB", (4, 2), (10, 20, 30))).save(path, **options)
    return path


# --- finding ---


def test_pictures_are_found_in_natural_order_through_folders(tmp_path: Path) -> None:
    for name in ("10.jpg", "2.JPG", "1.png", "b/2.webp", "b/10.bmp", "b/a2.tif", "b/A1.TIFF", "notes.txt", "x.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in find_pictures(tmp_path)]
    assert found == ["1.png", "2.JPG", "10.jpg", "b/2.webp", "b/10.bmp", "b/A1.TIFF", "b/a2.tif"]


def test_hidden_files_and_folders_are_not_found_but_a_hidden_parent_does_not_matter(tmp_path: Path) -> None:
    folder = tmp_path / ".data"
    for name in (".thumbs/1.jpg", "._2.jpg", "3.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    assert find_pictures(folder) == [folder / "3.jpg"]


def test_a_single_picture_file_is_found_as_itself(tmp_path: Path) -> None:
    assert find_pictures(saved(tmp_path / "één фото.png")) == [tmp_path / "één фото.png"]


def test_nothing_found_says_what_a_picture_is(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    for path, message in (
        (tmp_path, f"no pictures in '{tmp_path}'"),
        (tmp_path / "a.txt", f"'{tmp_path / 'a.txt'}' is not a picture"),
        (tmp_path / "gone", f"there is no folder '{tmp_path / 'gone'}'"),
    ):
        with pytest.raises(PictureError) as caught:
            find_pictures(path)
        assert (caught.value.message, caught.value.hint) == (message, HINT)


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(PictureError, match=re.escape(f"cannot list the folder '{tmp_path}': Permission denied")):
        find_pictures(tmp_path)


# --- formats ---


def test_the_usual_formats_are_grey_rgb_and_rgba_in_minus_one_to_one() -> None:
    usual = [(f.channels, f.color, f.low, f.high) for f in map(PictureFormat.for_channels, (1, 3, 4))]
    assert usual == [(1, "L", -1.0, 1.0), (3, "RGB", -1.0, 1.0), (4, "RGBA", -1.0, 1.0)]
    with pytest.raises(SettingError, match="no picture has 2 channels"):
        PictureFormat.for_channels(2)


@pytest.mark.parametrize(
    ("channels", "color", "low", "high", "message"),
    [
        (3, "HSV", -1.0, 1.0, "unknown colour order 'HSV'"),
        (1, "RGB", -1.0, 1.0, "colour order RGB has 3 channel(s), not 1"),
        (3, "RGB", 1.0, 1.0, "the value range 1.0..1.0 is not a range"),
        (3, "RGB", 0.0, float("inf"), "the value range 0.0..inf is not a range"),
        (3, "RGB", float("nan"), 1.0, "the value range nan..1.0 is not a range"),
        (3, "RGB", 1e6, 1e6 + 1, "the value range 1000000.0..1000001.0 cannot hold 256 levels in float32"),
        (3, "RGB", -1e38, 1e38, "the value range -1e+38..1e+38 cannot hold 256 levels in float32"),
    ],
)
def test_a_format_that_makes_no_sense_is_refused(
    channels: int, color: str, low: float, high: float, message: str
) -> None:
    with pytest.raises(SettingError) as caught:
        PictureFormat(channels, color, low, high)
    assert caught.value.message == message


def test_a_format_survives_json() -> None:
    written = PictureFormat(3, "BGR", 0.0, 255.0).to_json()
    assert written == {"channels": 3, "color": "BGR", "low": 0.0, "high": 255.0}
    assert PictureFormat.from_json(written) == PictureFormat(3, "BGR", 0.0, 255.0)


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 3.0},
        {"channels": True},
        {"channels": 4},
        {"color": 3},
        {"low": "0"},
        {"low": True},
        {"low": 2},
        {"high": 10**400},
        {"more": 1},
    ],
)
def test_malformed_json_is_no_format(change: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match="picture format"):
        PictureFormat.from_json(RGB.to_json() | change)
    with pytest.raises(ArtifactError, match="exactly the keys channels, color, low, high"):
        PictureFormat.from_json([1, 2])


# --- arrays ---


@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_all_256_levels_survive_the_round_trip(layout: PictureFormat) -> None:
    pixels = np.stack([np.roll(np.arange(256, dtype=np.uint8), 17 * c) for c in range(layout.channels)], axis=-1)
    picture = Image.fromarray(pixels.reshape(16, 16, -1).squeeze())
    array = to_array(picture, (16, 16), layout)
    assert (array.dtype.name, array.shape) == ("float32", (1, layout.channels, 16, 16))
    assert array.flags.c_contiguous
    assert (array.min(), array.max()) == (np.float32(layout.low), np.float32(layout.high))
    for given in (array, array[0]):
        assert np.array_equal(np.asarray(to_picture(given, layout)), np.asarray(picture))


def test_channels_come_in_the_order_of_the_format() -> None:
    picture = Image.new("RGB", (1, 1), (0, 51, 255))
    expected = {"RGB": [0.0, 51.0, 255.0], "BGR": [255.0, 51.0, 0.0], "RGBA": [0.0, 51.0, 255.0, 255.0], "L": [59.0]}
    for color, values in expected.items():
        layout = PictureFormat(len(values), color, 0.0, 255.0)
        assert to_array(picture, (1, 1), layout).ravel().tolist() == values
    bgr = PictureFormat(3, "BGR", 0.0, 255.0)
    back = to_picture(np.array([255.0, 51.0, 0.0], np.float32).reshape(3, 1, 1), bgr)
    assert back.getpixel((0, 0)) == (0, 51, 255)


def test_a_picture_is_resized_to_height_and_width() -> None:
    picture = Image.fromarray(noise(10, 20, 3))
    array = to_array(picture, (5, 7), PictureFormat(3, "RGB", 0.0, 255.0))
    resized = np.asarray(picture.resize((7, 5), Image.Resampling.BICUBIC))
    assert np.array_equal(array[0].transpose(1, 2, 0), resized.astype(np.float32))
    with pytest.raises(PictureError, match="cannot resize a picture to 0 x 7 pixels"):
        to_array(picture, (0, 7), RGB)


def test_values_are_rounded_to_the_nearest_level_and_clipped() -> None:
    grey = PictureFormat(1, "L", 0.0, 255.0)
    values = np.array([[[-9.0, 0.4, 0.6, 254.4, 254.6, 9e9]]], np.float32)
    assert np.asarray(to_picture(values, grey)).tolist() == [[0, 0, 1, 254, 255, 255]]
    assert np.asarray(to_picture(values.clip(-9, 300).astype(np.float16), grey)).tolist() == [[0, 0, 1, 254, 255, 255]]


@pytest.mark.parametrize("shape", [(2, 2), (3, 2), (2, 3, 4, 4), (1, 1, 4, 4), (4, 4, 3), (3, 0, 4), (1, 1, 3, 4, 4)])
def test_an_array_of_another_shape_is_no_picture(shape: tuple[int, ...]) -> None:
    with pytest.raises(PictureError) as caught:
        to_picture(np.zeros(shape, np.float32), RGB)
    assert caught.value.message == f"an array of shape {list(shape)} is not one RGB picture"
    assert caught.value.hint == "expected [3, height, width]"


def test_values_that_are_not_finite_are_counted_and_refused() -> None:
    array = np.zeros((1, 3, 2, 2), np.float32)
    array[0, 0, 0] = (np.nan, np.inf)
    with pytest.raises(PictureError, match="2 of 12 values of the picture are not finite"):
        to_picture(array, RGB)


# --- streams ---


def folder_with(tmp_path: Path, good: int, bad: int) -> list[Path]:
    for number in range(bad):
        (tmp_path / f"bad{number}.png").write_bytes(b"no")
    for number in range(good):
        saved(tmp_path / f"good{number}.png", Image.new("RGB", (2, 2), (number, 0, 0)))
    return find_pictures(tmp_path)


def test_a_stream_yields_the_readable_and_counts_both(tmp_path: Path) -> None:
    paths = folder_with(tmp_path, good=19, bad=1)
    told: list[tuple[Path, str]] = []
    stream = PictureStream(paths, (2, 2), RGB, on_unreadable=lambda path, error: told.append((path, error.message)))
    for _ in range(2):
        read = [(path.name, array.shape) for path, array in stream]
        assert read == [(f"good{number}.png", (1, 3, 2, 2)) for number in range(19)]
        assert (stream.read, stream.unreadable) == (19, 1)
    bad = tmp_path / "bad0.png"
    assert told == [(bad, f"cannot read '{bad}': it is not a picture")]


def test_a_stream_with_too_many_unreadable_pictures_ends_in_an_error(tmp_path: Path) -> None:
    stream = PictureStream(folder_with(tmp_path, good=18, bad=2), (2, 2), RGB)
    names: list[str] = []
    with pytest.raises(PictureError) as caught:
        names.extend(path.name for path, _ in stream)
    first = f"cannot read '{tmp_path / 'bad0.png'}': it is not a picture"
    assert caught.value.message == f"2 of 20 pictures are unreadable; the first: {first}"
    assert caught.value.hint == "at most 5% may be"
    assert (stream.read, stream.unreadable) == (18, 2)


def test_a_stream_in_which_nothing_is_readable_is_an_error_whatever_is_allowed(tmp_path: Path) -> None:
    stream = PictureStream(folder_with(tmp_path, good=0, bad=3), (2, 2), RGB, max_unreadable=1.0)
    with pytest.raises(PictureError, match="3 of 3 pictures are unreadable"):
        list(stream)
    assert (stream.read, stream.unreadable) == (0, 3)


def test_a_stream_cuts_pairs_and_counts_those_it_cannot_cut(tmp_path: Path) -> None:
    pixels = noise(2, 8, 3)
    pair = saved(tmp_path / "pair.png", Image.fromarray(pixels))
    odd = saved(tmp_path / "odd.png", Image.new("RGB", (3, 2)))
    stream = PictureStream([pair, odd], (2, 4), RGB, half="right", max_unreadable=0.5)
    [(path, array)] = stream
    assert (path, stream.read, stream.unreadable) == (pair, 1, 1)
    assert np.array_equal(np.asarray(to_picture(array, RGB)), pixels[:, 4:])


def test_a_stream_lets_go_of_a_picture_before_it_reads_the_next(tmp_path: Path) -> None:
    good, bad = saved(tmp_path / "a.png"), tmp_path / "b.png"
    bad.write_bytes(b"no")
    alive: list[bool] = []
    stream = PictureStream(
        [good, bad], (2, 2), RGB, on_unreadable=lambda *_: alive.append(held() is not None), max_unreadable=0.5
    )
    iterator = iter(stream)
    _, array = next(iterator)
    held = weakref.ref(array)
    del array
    assert list(iterator) == []
    assert alive == [False]


def test_a_stream_without_pictures_or_with_an_impossible_fraction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="there are no pictures to read"):
        PictureStream([], (2, 2), RGB)
    with pytest.raises(SettingError, match=r"max_unreadable is 5, but it is a fraction \(between 0 and 1\)"):
        PictureStream([tmp_path], (2, 2), RGB, max_unreadable=5)


# --- sheets and files ---


def test_a_contact_sheet_has_a_titled_column_per_entry_and_a_row_per_picture() -> None:
    red, blue = Image.new("RGB", (50, 100), "red"), Image.new("L", (7, 7), 128)
    sheet = contact_sheet([("input", [red, red, red]), ("compressed", [blue])], cell=96)
    assert (sheet.mode, sheet.size) == ("RGB", (2 + 2 * 98, 2 + 14 + 3 * 98))
    pixels = np.asarray(sheet)
    is_red = np.all(pixels == (255, 0, 0), axis=-1)
    # 50 x 100 fits a cell of 96 as 48 x 96, in the middle of the first column.
    assert [int(values.min()) for values in np.nonzero(is_red)] == [16, 2 + 24]
    assert [int(values.max()) for values in np.nonzero(is_red)] == [16 + 2 * 98 + 95, 2 + 24 + 47]
    assert int(is_red.sum()) == 3 * 48 * 96
    assert np.all(pixels[16:112, 100:196] == 128)
    assert np.all(pixels[112:, 100:] == 255)
    titles = np.all(pixels[:16] < 128, axis=-1)
    assert titles[:, :98].any()
    assert titles[:, 98:].any()


def test_a_long_title_is_made_to_fit_its_column() -> None:
    sheet = contact_sheet([("", []), ("a title that is much wider than its column", [Image.new("L", (1, 9))])], cell=96)
    dark = np.nonzero((np.asarray(sheet)[:16] < 200).any(axis=(0, 2)))[0]
    assert dark.min() >= 100
    assert dark.max() < 196


def test_a_contact_sheet_of_nothing_or_of_tiny_cells_is_refused() -> None:
    with pytest.raises(PictureError, match="a contact sheet needs at least one picture"):
        contact_sheet([("input", [])])
    with pytest.raises(SettingError, match="a cell of 15 pixels is too small for a contact sheet"):
        contact_sheet([("input", [Image.new("L", (1, 1))])], cell=15)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_png_bytes_hold_the_pixels_and_nothing_else(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(noise(5, 4, 4)).convert(mode)
    plain = png_bytes(picture)
    picture.info["icc_profile"] = b"profile"
    assert png_bytes(picture) == plain
    assert picture.info == {"icc_profile": b"profile"}
    (tmp_path / "a.png").write_bytes(plain)
    assert np.array_equal(np.asarray(read_picture(tmp_path / "a.png", mode)), np.asarray(picture))


def test_a_picture_of_another_mode_is_not_written() -> None:
    with pytest.raises(PictureError, match=re.escape("a picture of mode CMYK is not written as PNG")):
        png_bytes(Image.new("CMYK", (1, 1)))


def test_as_bytes_a_format_is_rgb_from_0_to_255() -> None:
    assert PictureFormat(3, "BGR", 0.0, 1.0).in_bytes == PictureFormat(3, "RGB", 0.0, 255.0)
    assert PictureFormat.for_channels(1).in_bytes == PictureFormat(1, "L", 0.0, 255.0)

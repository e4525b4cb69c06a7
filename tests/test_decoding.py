"""One file, one picture: whatever a file holds is read or refused by name."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mggc_edge.decoding import picture_size
from mggc_edge.errors import PictureError, SettingError
from mggc_edge.pictures import read_picture


def noise(*shape: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def saved(path: Path, picture: Image.Image | None = None, **options: Any) -> Path:
    (picture or Image.new("RGB", (4, 2), (10, 20, 30))).save(path, **options)
    return path


def png_claiming(path: Path, width: int, height: int) -> Path:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_a_one_pixel_picture_is_read(tmp_path: Path) -> None:
    picture = read_picture(saved(tmp_path / "1.png", Image.new("RGB", (1, 1), (1, 2, 3))))
    assert (picture.mode, picture.size, picture.getpixel((0, 0))) == ("RGB", (1, 1), (1, 2, 3))


def test_names_with_spaces_and_other_letters_are_read(tmp_path: Path) -> None:
    assert read_picture(saved(tmp_path / "mijn foto één 写真 фото.png")).size == (4, 2)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_its_high_byte(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 255, 256, 0x1234], [0x8000, 0xFEFF, 0xFF00, 0xFFFF]], np.uint16)
    path = saved(tmp_path / f"deep.{suffix}", Image.fromarray(values))
    assert np.asarray(read_picture(path, "L")).tolist() == [[0, 0, 1, 0x12], [0x80, 0xFE, 0xFF, 0xFF]]


def test_32_bit_grey_is_scaled_by_its_depth(tmp_path: Path) -> None:
    values = np.array([[-5, 0, 1 << 23, (1 << 31) - 1]], np.int32)
    path = saved(tmp_path / "deep.tif", Image.fromarray(values))
    assert np.asarray(read_picture(path, "L")).tolist() == [[0, 0, 1, 255]]
    # The same file stating unsigned values (SampleFormat, tag 339, is 1 instead of 2).
    data = path.read_bytes()
    entry = struct.pack("<HHIH", 339, 3, 1, 2)
    assert data.count(entry) == 1
    path.write_bytes(data.replace(entry, struct.pack("<HHIH", 339, 3, 1, 1)))
    assert np.asarray(read_picture(path, "L")).tolist() == [[255, 0, 0, 127]]


def test_12_bit_grey_is_scaled_by_its_depth(tmp_path: Path) -> None:
    # Two values 0xABC and 0x123 in three bytes, behind a hand-written TIFF directory.
    tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 3)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags)
    path = tmp_path / "12.tif"
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 12) + b"\xab\xc1\x23\x00" + directory + bytes(4))
    assert np.asarray(read_picture(path, "L")).tolist() == [[0xAB, 0x12]]


def test_float_pictures_are_taken_as_0_to_1_or_as_0_to_255(tmp_path: Path) -> None:
    small = saved(tmp_path / "1.tif", Image.fromarray(np.array([[-1.0, 0.0, 0.5, 1.0]], np.float32)))
    large = saved(tmp_path / "255.tif", Image.fromarray(np.array([[-1.0, 1.0, 99.6, 300.0]], np.float32)))
    assert np.asarray(read_picture(small, "L")).tolist() == [[0, 0, 128, 255]]
    assert np.asarray(read_picture(large, "L")).tolist() == [[0, 1, 100, 255]]


def test_a_float_picture_with_nan_is_an_error(tmp_path: Path) -> None:
    path = saved(tmp_path / "nan.tif", Image.fromarray(np.array([[np.nan]], np.float32)))
    with pytest.raises(PictureError, match=re.escape(f"cannot read '{path}': it has values that are not finite")):
        read_picture(path)


def test_every_kind_of_picture_becomes_the_colours_asked_for(tmp_path: Path) -> None:
    red = (200, 0, 0)
    grey = 60  # 200 * 0.299, rounded
    palette = Image.new("P", (2, 2))
    palette.putpalette([*red, 0, 0, 0])
    cases = {
        saved(tmp_path / "rgb.bmp", Image.new("RGB", (2, 2), red)): red,
        saved(tmp_path / "rgba.png", Image.new("RGBA", (2, 2), (*red, 0))): red,
        saved(tmp_path / "l.png", Image.new("L", (2, 2), 60)): (grey,) * 3,
        saved(tmp_path / "la.png", Image.new("LA", (2, 2), (60, 9))): (grey,) * 3,
        saved(tmp_path / "bit.png", Image.new("1", (2, 2), 1)): (255,) * 3,
        saved(tmp_path / "p.png", palette): red,
        saved(tmp_path / "p-one.png", palette, transparency=0): red,
        saved(tmp_path / "p-many.png", palette, transparency=bytes([7, 255])): red,
        saved(tmp_path / "rgb-trns.png", Image.new("RGB", (2, 2), red), transparency=red): red,
    }
    for path, color in cases.items():
        picture = read_picture(path)
        assert (path.name, picture.mode, picture.getpixel((1, 1))) == (path.name, "RGB", color)
        assert (read_picture(path, "L").mode, read_picture(path, "BGR").mode) == ("L", "RGB")
    assert read_picture(tmp_path / "rgb.bmp", "L").getpixel((0, 0)) == grey
    assert read_picture(tmp_path / "rgb.bmp", "RGBA").getpixel((0, 0)) == (*red, 255)
    assert read_picture(tmp_path / "rgba.png", "RGBA").getpixel((0, 0)) == (*red, 0)
    assert read_picture(tmp_path / "p-many.png", "RGBA").getpixel((0, 0)) == (*red, 7)


def test_a_lab_tiff_becomes_the_colours_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path / "lab.tif", Image.new("LAB", (4, 4), (128, 128, 128)))
    color = read_picture(path)
    assert read_picture(path, "L").tobytes() == color.convert("L").tobytes()
    assert read_picture(path, "RGBA").tobytes() == color.convert("RGBA").tobytes()
    red, green, blue = np.asarray(color)[0, 0].astype(int)
    assert (abs(red - green) <= 2, abs(green - blue) <= 2, 100 < red < 140) == (True, True, True)


def test_a_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    picture = read_picture(saved(tmp_path / "c.jpg", Image.new("CMYK", (16, 16), (255, 0, 0, 0)), quality=100))
    assert picture.mode == "RGB"
    assert np.abs(np.asarray(picture).astype(int) - (0, 255, 255)).max() <= 2


@pytest.mark.parametrize("suffix", ["webp", "tif", "png"])
def test_of_an_animated_picture_the_first_frame_is_read(tmp_path: Path, suffix: str) -> None:
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", first, save_all=True, append_images=[second], **options)
    with Image.open(path) as file:
        assert getattr(file, "n_frames", 1) == 2
    assert np.unique(np.asarray(read_picture(path)).reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_a_rotated_picture_is_turned_upright(tmp_path: Path, suffix: str) -> None:
    stored = np.zeros((16, 48), np.uint8)
    stored[:, :16] = 255  # white on the left
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.T,
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].T,
        8: np.rot90(stored),
    }
    for orientation, wanted in upright.items():
        exif = Image.Exif()
        exif[274] = orientation
        path = saved(tmp_path / f"{orientation}.{suffix}", Image.fromarray(stored).convert("RGB"), exif=exif)
        picture = read_picture(path, "L")
        assert picture.size == (wanted.shape[1], wanted.shape[0])
        assert np.abs(np.asarray(picture).astype(int) - wanted).max() <= 3
        assert (picture.info, dict(picture.getexif())) == ({}, {})


def test_a_pair_is_cut_into_its_halves_after_it_is_turned_upright(tmp_path: Path) -> None:
    pixels = noise(6, 8, 3)
    path = saved(tmp_path / "pair.png", Image.fromarray(pixels))
    assert np.array_equal(np.asarray(read_picture(path, half="left")), pixels[:, :4])
    assert np.array_equal(np.asarray(read_picture(path, half="right")), pixels[:, 4:])
    exif = Image.Exif()
    exif[274] = 6
    path = saved(tmp_path / "turned.png", Image.fromarray(pixels), exif=exif)
    assert np.array_equal(np.asarray(read_picture(path, half="left")), np.rot90(pixels, -1)[:, :3])


def test_a_pair_of_odd_width_is_an_error(tmp_path: Path) -> None:
    path = saved(tmp_path / "odd.png", Image.new("RGB", (1, 3)))
    with pytest.raises(PictureError) as caught:
        read_picture(path, half="left")
    assert caught.value.message == f"'{path}' is 1 pixels wide, which cannot be cut into a left and a right half"


def test_unknown_colours_and_halves_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=re.escape("unknown colour order 'CMYK' (one of L, RGB, BGR, RGBA)")):
        read_picture(tmp_path, "CMYK")
    with pytest.raises(SettingError, match=re.escape("unknown half 'top' (one of whole, left, right)")):
        read_picture(tmp_path, half="top")


def broken(folder: Path) -> dict[str, Path]:
    whole = io.BytesIO()
    Image.fromarray(noise(64, 64, 3)).save(whole, "JPEG")
    files = {
        "image file is truncated": whole.getvalue()[: len(whole.getvalue()) // 2],
        "it is empty": b"",
        "it is not a picture": b"only text",
    }
    paths = {}
    for number, (reason, content) in enumerate(files.items()):
        paths[reason] = folder / f"{number}.png"
        paths[reason].write_bytes(content)
    paths["No such file or directory"] = folder / "gone.png"
    paths["Is a directory"] = folder
    paths["it has more than 89478485 pixels"] = png_claiming(folder / "bomb.png", 100000, 100000)
    return paths


@pytest.mark.parametrize(
    "reason",
    [
        "image file is truncated",
        "it is empty",
        "it is not a picture",
        "No such file or directory",
        "Is a directory",
        "it has more than 89478485 pixels",
    ],
)
def test_an_unreadable_file_is_an_error_that_names_it(tmp_path: Path, reason: str) -> None:
    path = broken(tmp_path)[reason]
    with pytest.raises(PictureError, match=re.escape(f"cannot read '{path}': {reason}")):
        read_picture(path)


@pytest.mark.parametrize("action", ["ignore", "default", "error"])
def test_a_picture_that_pillow_only_warns_of_is_an_error_under_any_filter(tmp_path: Path, action: str) -> None:
    path = png_claiming(tmp_path / "large.png", 10000, 9000)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter(action)  # type: ignore[arg-type]
        with pytest.raises(PictureError, match=re.escape(f"cannot read '{path}': it has more than 89478485 pixels")):
            read_picture(path)


@pytest.mark.parametrize("error", [MemoryError(), SyntaxError("broken PNG file"), struct.error("short"), KeyError(1)])
def test_whatever_a_decoder_raises_becomes_an_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(self: object) -> None:
        raise error

    path = saved(tmp_path / "a.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    reason = str(error) or "MemoryError"
    with pytest.raises(PictureError, match=re.escape(f"cannot read '{path}': {reason}")) as caught:
        read_picture(path)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp"])
def test_damaged_files_are_read_or_are_picture_errors_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    good = saved(tmp_path / f"good.{suffix}", Image.fromarray(noise(24, 24, 3))).read_bytes()
    rng = np.random.default_rng(7)
    path = tmp_path / f"bad.{suffix}"
    refused = named = 0
    for _ in range(150):
        damaged = bytearray(good[: int(rng.integers(1, len(good) + 1))] if rng.random() < 0.5 else good)
        for position in rng.integers(0, min(len(damaged), 200), 4):
            damaged[position] = int(rng.integers(0, 256))
        path.write_bytes(damaged)
        try:
            read_picture(path)
        except PictureError as error:
            refused += str(path) in error.message
            named += 1
    assert refused == named > 50


@pytest.mark.parametrize("format_", ["GIF", "PPM", "TGA", "PCX", "ICO"])
def test_no_decoder_is_tried_but_those_of_the_documented_types(tmp_path: Path, format_: str) -> None:
    path = saved(tmp_path / "a.png", Image.new("RGB", (16, 16)), format=format_)
    for read in (read_picture, picture_size):
        with pytest.raises(PictureError, match=re.escape(f"cannot read '{path}': it is not a picture")):
            read(path)


def test_no_other_decoder_is_tried(tmp_path: Path) -> None:
    path = tmp_path / "script.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n%%EndComments\nshowpage\n")
    with pytest.raises(PictureError, match="it is not a picture"):
        read_picture(path)


@pytest.mark.parametrize(("orientation", "wanted"), [(1, (2, 4)), (3, (2, 4)), (5, (4, 2)), (6, (4, 2)), (8, (4, 2))])
def test_the_size_of_a_picture_is_its_upright_height_and_width(
    tmp_path: Path, orientation: int, wanted: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = saved(tmp_path / "a.jpg", exif=exif)
    assert picture_size(path) == wanted
    assert read_picture(path).size == wanted[::-1]


def test_a_picture_without_a_size_is_an_error_that_names_it(tmp_path: Path) -> None:
    large = png_claiming(tmp_path / "large.png", 10000, 9000)
    with pytest.raises(PictureError, match=re.escape(f"cannot read '{large}': it has more than")):
        picture_size(large)
    with pytest.raises(PictureError, match="No such file"):
        picture_size(tmp_path / "none.png")

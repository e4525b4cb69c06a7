"""Calibration pictures: which ones, in which order, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mggc_edge.calibration.samples import Samples, Wanted, built_in, from_folder, from_pixels
from mggc_edge.errors import PictureError, SettingError
from mggc_edge.pictures import PictureFormat
from mggc_edge.tensors import FloatArray

RGB = PictureFormat(3, "RGB")
SIZE = (8, 12)


def folder_of(place: Path, count: int) -> Path:
    """Pictures of one colour each, by which they can be told apart."""
    place.mkdir()
    for number in range(count):
        Image.new("RGB", (24, 16), (number, 10, 20)).save(place / f"{number}.png")
    return place


def numbers(stream: list[FloatArray]) -> list[int]:
    return [round((float(picture[0, 0, 0, 0]) + 1) * 127.5) for picture in stream]


def parts(samples: Samples) -> tuple[list[int], list[int]]:
    return numbers(list(samples.observed())), numbers(list(samples.held_out()))


def test_a_folder_gives_different_pictures_to_observe_and_to_hold_out_by_the_seed_alone(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "p", 20)
    samples = from_folder(folder, SIZE, RGB, Wanted(6, 2, seed=5))
    observed, held_out = parts(samples)
    assert (len(observed), len(held_out), len({*observed, *held_out})) == (6, 2, 8)
    assert (samples.observed_count, samples.held_out_count, samples.where) == (6, 2, "folder")
    assert parts(samples) == (observed, held_out), "the same ones again"
    again = from_folder(folder, SIZE, RGB, Wanted(6, 2, seed=5))
    assert (parts(again), again.sha256) == ((observed, held_out), samples.sha256)
    other = from_folder(folder, SIZE, RGB, Wanted(6, 2, seed=6))
    assert parts(other) != (observed, held_out)
    (first, *_) = samples.observed()
    assert (first.shape, first.dtype.name) == ((1, 3, 8, 12), "float32")


def test_the_hash_is_of_pixels_and_not_of_names_and_knows_which_are_held_out(tmp_path: Path) -> None:
    one, two = folder_of(tmp_path / "a", 9), folder_of(tmp_path / "b", 9)
    wanted = Wanted(6, 2)
    assert from_folder(one, SIZE, RGB, wanted).sha256 == from_folder(two, SIZE, RGB, wanted).sha256
    assert from_folder(one, SIZE, RGB, Wanted(5, 3)).sha256 != from_folder(one, SIZE, RGB, wanted).sha256
    bgr = PictureFormat(3, "BGR")
    assert from_folder(one, SIZE, bgr, wanted).sha256 != from_folder(one, SIZE, RGB, wanted).sha256
    for number in range(9):
        Image.new("RGB", (24, 16), (number, 11, 20)).save(two / f"{number}.png")
    assert from_folder(one, SIZE, RGB, wanted).sha256 != from_folder(two, SIZE, RGB, wanted).sha256


@pytest.mark.parametrize(("count", "observed", "held_out"), [(2, 1, 1), (7, 6, 1), (8, 6, 2), (12, 9, 3), (40, 32, 8)])
def test_of_few_pictures_a_quarter_is_held_out(tmp_path: Path, count: int, observed: int, held_out: int) -> None:
    samples = from_folder(folder_of(tmp_path / "p", count), SIZE, RGB, Wanted())
    assert (samples.observed_count, samples.held_out_count) == (observed, held_out)


def test_a_folder_with_one_picture_is_refused_with_a_way_out(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "p", 1)
    with pytest.raises(PictureError) as caught:
        from_folder(folder, SIZE, RGB, Wanted())
    assert caught.value.message == (
        f"1 picture in '{folder}' cannot calibrate: ranges are found on some, and precision is measured on others"
    )
    assert caught.value.hint == "give at least 2, better 40, or none for the built-in ones"


def test_an_unreadable_picture_is_named_and_left_out_and_too_many_are_an_error(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "p", 10)
    (folder / "3.png").write_bytes(b"no picture")
    skipped: list[Path] = []
    wanted = Wanted(8, 2, max_unreadable=0.1)
    samples = from_folder(folder, SIZE, RGB, wanted, on_unreadable=lambda path, _: skipped.append(path))
    assert (samples.observed_count, samples.held_out_count, samples.unreadable) == (7, 2, 1)
    assert skipped == [folder / "3.png"]
    with pytest.raises(
        PictureError, match=r"^1 of 10 calibration pictures in '.*' are unreadable; the first: "
    ) as caught:
        from_folder(folder, SIZE, RGB, Wanted(8, 2))
    assert caught.value.hint == "at most 5% may be"


def test_built_in_pictures_are_the_same_every_time_and_held_out_ones_are_others() -> None:
    samples = built_in((16, 16), RGB, Wanted(3, 2, seed=1))
    assert (samples.observed_count, samples.held_out_count, samples.where) == (3, 2, "built-in")
    first, again = (list(samples.observed()) for _ in range(2))
    assert np.array_equal(first, again)
    pictures = [*first, *samples.held_out()]
    assert len({picture.tobytes() for picture in pictures}) == 5
    assert built_in((16, 16), RGB, Wanted(3, 2, seed=1)).sha256 == samples.sha256
    assert built_in((16, 16), RGB, Wanted(3, 2, seed=2)).sha256 != samples.sha256


def test_pictures_of_a_job_are_chosen_by_number() -> None:
    read = lambda number: np.full((3, *SIZE), number, np.uint8)  # noqa: E731
    samples = from_pixels(5, read, RGB, Wanted(3, 1), where="training", place="among the training pictures")
    observed, held_out = parts(samples)
    assert (len(observed), len(held_out), samples.where) == (3, 1, "training")
    assert samples.to_json() == {
        "where": "training", "observed": 3, "held_out": 1, "sha256": samples.sha256, "unreadable": 0
    }  # fmt: skip


def test_no_pictures_at_all_cannot_be_wanted() -> None:
    with pytest.raises(SettingError, match="0 observed and 8 held-out pictures make no calibration"):
        Wanted(0)

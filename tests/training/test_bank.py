"""Pictures as levels and as tensors: exact both ways, kept as far as memory allows, and left out in step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from mggc_edge.errors import PictureError
from mggc_edge.pictures import PictureFormat, Size, to_array, to_picture
from mggc_edge.procedural import procedural_pictures
from mggc_edge.training.bank import (
    FolderPictures,
    GivenPictures,
    PictureSet,
    Pixels,
    ProceduralPictures,
    Selection,
    readable,
    to_levels,
    to_tensor,
    views,
)
from tests.training.training_helpers import RGB, broken, levels, pictures, views_of, write_pictures

FORMATS = [
    PictureFormat(3, "RGB"),
    PictureFormat(1, "L"),
    PictureFormat(4, "RGBA"),
    PictureFormat(3, "BGR"),
    PictureFormat(3, "RGB", 0.0, 1.0),
    PictureFormat(1, "L", 0.0, 255.0),
]


class Counted(PictureSet):
    """Pictures that count how often each is made."""

    def __init__(self, count: int, cache_bytes: int) -> None:
        super().__init__([str(number) for number in range(count)], (4, 6), RGB, cache_bytes)
        self.made = [0] * count

    def _make(self, index: int) -> Pixels:
        self.made[index] += 1
        return np.full((3, 4, 6), index, np.uint8)


@pytest.mark.parametrize("format_", FORMATS, ids=lambda f: f"{f.color}{f.low:g}..{f.high:g}")
def test_every_level_survives_the_way_to_a_tensor_and_back(format_: PictureFormat) -> None:
    pixels = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(16, 16), (2, format_.channels, 16, 16))
    tensor = to_tensor(list(pixels), format_)
    assert tensor.dtype == torch.float32
    assert tuple(tensor.shape) == (2, format_.channels, 16, 16)
    assert tensor.min().item() == pytest.approx(format_.low, abs=1e-6)
    assert tensor.max().item() == pytest.approx(format_.high, abs=1e-6)
    assert (to_levels(tensor, format_) == pixels).all()


@pytest.mark.parametrize("format_", FORMATS, ids=lambda f: f"{f.color}{f.low:g}..{f.high:g}")
def test_training_sees_what_a_runner_is_fed(format_: PictureFormat, tmp_path: Path) -> None:
    picture = to_picture(
        to_array(next(procedural_pictures(1, (8, 12), seed=1, color=format_.mode)), (8, 12), format_), format_
    )
    path = tmp_path / "a.png"
    picture.save(path)
    found = FolderPictures([path], (8, 12), format_).batch([0])
    assert float(np.abs(found.numpy() - to_array(picture, (8, 12), format_)).max()) <= 2e-7 * 255


def test_levels_are_the_nearest_and_clipped_to_the_range() -> None:
    values = torch.tensor([-9.0, -1.0, -1 + 0.9 / 255, -1 + 1.1 / 255, 0.999, 1.0, 9.0]).reshape(1, 1, 1, 7)
    assert to_levels(values, PictureFormat(1, "L")).ravel().tolist() == [0, 0, 0, 1, 255, 255, 255]
    half = torch.tensor(0.5).bfloat16().reshape(1, 1, 1, 1).requires_grad_()
    assert to_levels(half, PictureFormat(1, "L", 0.0, 1.0)).item() == 128  # 127.5: the even one


def test_a_batch_has_the_pictures_in_the_order_that_was_asked_for() -> None:
    a_set = pictures(4)
    batch = a_set.batch([2, 0, 2])
    assert torch.equal(batch, to_tensor([a_set.pixels(2), a_set.pixels(0), a_set.pixels(2)], RGB))


def test_what_fits_into_the_cache_is_made_once_and_the_rest_each_time() -> None:
    one = 3 * 4 * 6
    a_set = Counted(4, cache_bytes=3 * one - 1)  # two fit
    for _ in range(3):
        assert [int(a_set.pixels(number)[0, 0, 0]) for number in range(4)] == [0, 1, 2, 3]
    assert a_set.made == [1, 1, 3, 3]
    none = Counted(1, cache_bytes=one - 1)
    none.pixels(0), none.pixels(0)
    assert none.made == [2]


def test_a_selection_has_its_own_numbers_and_shares_the_cache_of_the_whole() -> None:
    whole = Counted(5, cache_bytes=2**20)
    some = Selection(whole, [4, 1])
    again = Selection(some, [1])
    assert (some.names, again.names, len(some)) == (("4", "1"), ("1",), 2)
    assert int(some.pixels(0)[0, 0, 0]) == 4
    assert int(again.pixels(0)[0, 0, 0]) == 1
    some.pixels(1)
    assert whole.made == [0, 1, 0, 0, 1]


def test_given_pictures_know_their_size_and_names() -> None:
    given = GivenPictures(levels(2, (4, 6)), RGB)
    assert (given.size, given.names, len(given)) == ((4, 6), ("0", "1"), 2)
    assert GivenPictures(levels(1, (4, 6)), RGB, ["a"]).names == ("a",)


def test_built_in_pictures_follow_from_their_seed() -> None:
    first, same, other = (ProceduralPictures(3, (16, 8), RGB, seed=seed) for seed in (1, 1, 2))
    assert views_of(first) == views_of(same)
    assert set(views_of(first)).isdisjoint(views_of(other))
    assert first.names == ("built-in 0", "built-in 1", "built-in 2")
    assert first.pixels(0).shape == (3, 16, 8)


def test_halves_of_a_pair_are_its_left_and_its_right(tmp_path: Path) -> None:
    (path,) = write_pictures(tmp_path, ["a.png"], (8, 12))
    whole, left, right = (
        FolderPictures([path], (8, width), RGB, half=half).pixels(0)
        for half, width in (("whole", 12), ("left", 6), ("right", 6))
    )
    assert (whole == np.concatenate([left, right], axis=2)).all()


# --- which can be read ----------------------------------------------------------------------------------------------


def folder_sets(paths: Sequence[Path]) -> list[PictureSet]:
    return [FolderPictures(paths, (4, 4), RGB, cache_bytes=2**20)]


def read(paths: Sequence[Path], told: list[str], most: float = 0.05) -> Sequence[PictureSet]:
    return readable(
        paths, folder_sets, max_unreadable=most, on_unreadable=lambda path, error: told.append(f"{path.name}: {error}")
    )


def some_broken(folder: Path, good: int, bad: int) -> list[Path]:
    paths = write_pictures(folder, [f"good{number:03}.png" for number in range(good)], (4, 4))
    return sorted([*paths, *(broken(folder / f"good{number:03}x.png") for number in range(bad))])


def test_a_twentieth_of_the_pictures_may_be_unreadable(tmp_path: Path) -> None:
    paths = some_broken(tmp_path, 38, 2)
    told: list[str] = []
    (found,) = read(paths, told)
    assert found.names == tuple(f"good{number:03}.png" for number in range(38))
    assert told == [
        f"{name}: cannot read '{tmp_path / name}': it is not a picture" for name in ("good000x.png", "good001x.png")
    ]
    assert len(set(views_of(found))) == 38


def test_more_than_a_twentieth_is_an_error_that_names_the_first(tmp_path: Path) -> None:
    paths = some_broken(tmp_path, 47, 3)  # 6 %
    told: list[str] = []
    with pytest.raises(PictureError) as caught:
        read(paths, told)
    assert caught.value.message == (
        f"3 of 50 pictures are unreadable; the first: cannot read '{tmp_path / 'good000x.png'}': it is not a picture"
    )
    assert caught.value.hint == "at most 5% may be"
    assert len(told) == 3


def test_pictures_that_are_all_unreadable_are_an_error_whatever_may_be(tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(PictureError, match="2 of 2 pictures are unreadable; the first: "):
        read(some_broken(tmp_path, 0, 2), told, most=1.0)
    assert len(told) == 2


def test_a_picture_that_cannot_be_read_is_left_out_of_every_set_in_step(tmp_path: Path) -> None:
    left = write_pictures(tmp_path / "a", [f"{n}.png" for n in range(5)], (4, 4), seed=1)
    right = write_pictures(tmp_path / "b", [f"{n}.png" for n in range(5)], (4, 4), seed=2)
    broken(left[1]), broken(right[3])
    told: list[str] = []

    def make(_: Sequence[Path]) -> list[PictureSet]:
        return [FolderPictures(paths, (4, 4), RGB) for paths in (left, right)]

    first, second = readable(
        left, make, max_unreadable=0.4, on_unreadable=lambda path, error: told.append(error.message)
    )
    assert first.names == second.names == ("0.png", "2.png", "4.png")
    assert views_of(second) == views_of(FolderPictures([right[n] for n in (0, 2, 4)], (4, 4), RGB))
    assert [message.split("'")[1] for message in told] == [str(left[1]), str(right[3])]


def test_reading_fills_the_caches_and_shows_how_far_it_is(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, ["a.png", "b.png"], (4, 4))
    seen: list[tuple[int, int]] = []

    def track(numbers: Iterable[int], total: int) -> Iterable[int]:
        for number in numbers:
            seen.append((number, total))
            yield number

    (found,) = readable(paths, folder_sets, max_unreadable=0, on_unreadable=lambda _path, _error: None, track=track)
    before = views_of(found)
    for path in paths:
        path.unlink()
    assert views_of(found) == before
    assert seen == [(0, 2), (1, 2)]


# --- crops ----------------------------------------------------------------------------------------------------------


def positions(size: Size) -> GivenPictures:
    """One picture whose values say where they are: row, column, 0."""
    rows, columns = np.indices(size, dtype=np.uint8)
    return GivenPictures(np.stack([rows, columns, np.zeros_like(rows)])[None], RGB)


def test_views_are_crops_at_every_place_and_mirrored_half_of_the_time() -> None:
    whole, rng = positions((7, 9)), np.random.default_rng(0)
    places, mirrored = set(), 0
    for _ in range(400):
        (crop,) = views([whole], 0, (5, 6), rng, flip=True)
        assert crop.shape == (3, 5, 6)
        top, columns = int(crop[0, 0, 0]), crop[1, 0].astype(int)
        flipped = columns[0] > columns[-1]
        mirrored += bool(flipped)
        left = int(columns.min())
        wanted = whole.pixels(0)[:, top : top + 5, left : left + 6]
        assert (crop == (wanted[:, :, ::-1] if flipped else wanted)).all()
        places.add((top, left))
    assert places == {(top, left) for top in range(3) for left in range(4)}
    assert 160 <= mirrored <= 240


def test_views_of_two_sets_are_the_same_crop_mirrored_alike() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        first, second = views([positions((7, 9)), positions((7, 9))], 0, (4, 4), rng, flip=True)
        assert (first == second).all()


def test_views_are_not_mirrored_where_that_is_not_asked_for_and_whole_where_they_fit() -> None:
    rng, whole = np.random.default_rng(2), positions((4, 6))
    for _ in range(20):
        assert (views([whole], 0, (4, 6), rng, flip=False)[0] == whole.pixels(0)).all()
    seen = {views([whole], 0, (4, 6), rng, flip=True)[0].tobytes() for _ in range(20)}
    assert seen == {whole.pixels(0).tobytes(), whole.pixels(0)[:, :, ::-1].tobytes()}


def test_mirrored_views_become_tensors_as_they_look() -> None:
    mirrored = positions((4, 6)).pixels(0)[:, :, ::-1]
    assert to_levels(to_tensor([mirrored], RGB), RGB)[0, 1, 0].tolist() == [5, 4, 3, 2, 1, 0]

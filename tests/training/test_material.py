"""Pictures are divided once, by seed, into what is trained on, what is held out and what is reported on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mggc_edge.errors import PictureError
from mggc_edge.pictures import PictureFormat
from mggc_edge.training.bank import FolderPictures, PictureSet
from mggc_edge.training.folders import Split, find_folders, split, split_sha256
from mggc_edge.training.material import Material, Reading, built_in, from_folders
from tests.training.training_helpers import RGB, broken, views_of, write_pictures

READING = Reading(size=(8, 8), view_size=(10, 10), input_format=RGB, output_format=RGB, seed=5)


def named(count: int, first: int = 0) -> list[str]:
    return [f"{number:02}.png" for number in range(first, first + count)]


def material(*, reading: Reading = READING, skipped: list[str] | None = None, **places: Any) -> Material:
    known = {"data": None, "layout": None, "source": None, "target": None, "direction": "AtoB", **places}
    told = skipped if skipped is not None else []
    return from_folders(find_folders(**known), reading, on_unreadable=lambda path, _: told.append(path.name))


def names(*sets: PictureSet | None) -> list[Sequence[str] | None]:
    return [None if a_set is None else a_set.names for a_set in sets]


# --- division -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", [False, True])
@pytest.mark.parametrize(
    ("count", "fraction", "most", "part"),
    [(100, 0.1, 40, 10), (1000, 0.1, 40, 40), (10, 0.0, 40, 1), (26, 0.4, 40, 10), (3, 0.4, 40, 1)],
)
def test_a_division_is_complete_without_overlap_and_of_the_sizes_that_were_asked_for(
    test: bool, count: int, fraction: float, most: int, part: int
) -> None:
    found = split(count, fraction=fraction, most=most, test=test, seed=3)
    assert sorted([*found.train, *found.held_out, *found.test]) == list(range(count))
    assert len(found.held_out) == part
    assert len(found.test) == (max(1, round(count * fraction)) if test else 0)  # `most` is for what is held out
    assert all(list(numbers) == sorted(numbers) for numbers in (found.train, found.held_out, found.test))


def test_a_division_follows_from_its_seed() -> None:
    def of(seed: int) -> Split:
        return split(50, fraction=0.1, most=40, test=True, seed=seed)

    assert of(1) == of(1)
    assert of(1) != of(2)


def test_too_few_pictures_cannot_be_divided() -> None:
    message = "2 pictures cannot be divided into training, held-out and test pictures"
    with pytest.raises(PictureError) as caught:
        split(2, fraction=0.1, most=40, test=True, seed=0)
    assert (caught.value.message, caught.value.hint) == (message, "give at least 3")
    assert split(2, fraction=0.1, most=40, test=False, seed=0).test == ()
    with pytest.raises(
        PictureError, match=r"^1 picture cannot be divided into training and held-out pictures"
    ) as caught:
        split(1, fraction=0.1, most=40, test=False, seed=0)
    assert caught.value.hint == "give at least 2"


@pytest.mark.parametrize("test", [False, True])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.4])
def test_as_many_pictures_as_are_advised_can_be_divided(fraction: float, test: bool) -> None:
    with pytest.raises(PictureError) as caught:
        split(1, fraction=fraction, most=40, test=test, seed=0)
    assert caught.value.hint is not None
    least = int(caught.value.hint.removeprefix("give at least "))
    assert split(least, fraction=fraction, most=40, test=test, seed=0).train != ()
    with pytest.raises(PictureError):
        split(least - 1, fraction=fraction, most=40, test=test, seed=0)


def test_the_hash_of_a_division_tells_lists_apart() -> None:
    hashes = [split_sha256(*lists) for lists in ((["a", "b"], []), (["a"], ["b"]), ([], ["a", "b"]), (["b", "a"], []))]
    assert len(set(hashes)) == 4
    assert split_sha256(["\udcff"], []) != split_sha256(["?"], [])


# --- built-in -------------------------------------------------------------------------------------------------------


def test_built_in_pictures_are_material_for_distillation() -> None:
    found = built_in(READING, 10)
    assert (found.objective, found.where, found.remarks) == ("distill", "built-in", ())
    assert [len(s) for s in (found.source, found.held_out, found.test)] == [8, 1, 1]
    sides = (found.target, found.target_views, found.held_out_truth, found.test_truth, found.test_target)
    assert sides == (None,) * 5
    assert found.source_views is found.source
    assert len({*found.source.names, *found.held_out.names, *found.test.names}) == 10
    assert built_in(READING, 10).split_sha256 == found.split_sha256
    assert built_in(dataclasses.replace(READING, seed=6), 10).split_sha256 != found.split_sha256


# --- pairs ----------------------------------------------------------------------------------------------------------


def paired_root(root: Path, train: int = 20, test: int = 0) -> Path:
    write_pictures(root / "train", named(train), (8, 16), seed=1)
    if test:
        write_pictures(root / "test", named(test, 50), (8, 16), seed=2)
    return root


def halves(paths: Sequence[Path], half: str) -> list[bytes]:
    return views_of(FolderPictures(paths, (8, 8), RGB, half=half))


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_pairs_without_a_test_folder_are_divided_in_three_in_step(tmp_path: Path, direction: str) -> None:
    found = material(data=paired_root(tmp_path), direction=direction)
    goes_in, comes_out = ("left", "right") if direction == "AtoB" else ("right", "left")
    assert (found.objective, found.where, found.remarks) == ("paired", "held out", ())
    sizes = [len(s) for s in (found.source, found.held_out, found.test)]
    assert sizes == [16, 2, 2]
    for inputs, truths in (
        (found.source, found.target),
        (found.held_out, found.held_out_truth),
        (found.test, found.test_truth),
    ):
        assert truths is not None
        assert inputs.names == truths.names
        paths = [tmp_path / "train" / name for name in inputs.names]
        assert views_of(inputs) == halves(paths, goes_in)
        assert views_of(truths) == halves(paths, comes_out)
    assert found.target_views is not None
    assert found.source_views.names == found.target_views.names == found.source.names
    assert found.source_views.size == found.target_views.size == (10, 10)
    assert found.test_target is found.test_truth
    assert sorted([*found.source.names, *found.held_out.names, *found.test.names]) == named(20)


def test_pairs_with_a_test_folder_are_reported_on_by_it(tmp_path: Path) -> None:
    found = material(data=paired_root(tmp_path, test=3))
    assert found.where == "test"
    assert names(found.test, found.test_truth) == [tuple(named(3, 50))] * 2
    assert len(found.source) == 18
    assert len(found.held_out) == 2
    assert found.test_truth is not None
    paths = [tmp_path / "test" / name for name in found.test.names]
    assert (views_of(found.test), views_of(found.test_truth)) == (halves(paths, "left"), halves(paths, "right"))


def test_pairs_in_two_folders_stay_pairs(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", named(20), (8, 8), seed=1)
    write_pictures(tmp_path / "b", named(20), (8, 8), seed=2)
    found = material(source=tmp_path / "a", target=tmp_path / "b", layout="paired")
    assert found.target is not None
    assert found.source.names == found.target.names
    assert views_of(found.source) == halves([tmp_path / "a" / name for name in found.source.names], "whole")
    assert views_of(found.target) == halves([tmp_path / "b" / name for name in found.target.names], "whole")


def test_a_pair_of_which_one_side_is_unreadable_is_left_out_on_both(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", named(40), (8, 8), seed=1)
    write_pictures(tmp_path / "b", named(40), (8, 8), seed=2)
    broken(tmp_path / "a" / "03.png")
    broken(tmp_path / "b" / "17.png")
    skipped: list[str] = []
    found = material(source=tmp_path / "a", target=tmp_path / "b", layout="paired", skipped=skipped)
    assert skipped == ["03.png", "17.png"]
    left = {*found.source.names, *found.held_out.names, *found.test.names}
    assert left == set(named(40)) - {"03.png", "17.png"}
    assert found.target is not None
    assert found.target.names == found.source.names
    assert views_of(found.target) == halves([tmp_path / "b" / name for name in found.target.names], "whole")


def test_sides_of_different_shapes_are_no_pair(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", named(9), (12, 16), seed=1)
    write_pictures(tmp_path / "b", named(9), (6, 8), seed=2)  # of another size, but of the same shape
    write_pictures(tmp_path / "b", ["04.png"], (5, 8))  # up to rounding
    places: dict[str, Any] = {"source": tmp_path / "a", "target": tmp_path / "b", "layout": "paired"}
    assert material(**places).objective == "paired"
    write_pictures(tmp_path / "b", ["02.png", "07.png"], (16, 12))
    with pytest.raises(PictureError) as caught:
        material(**places)
    assert caught.value.message == (
        f"the sides of 2 of 9 pairs have different shapes: '{tmp_path / 'a/02.png'}' is 12x16 (height x width) and "
        f"'{tmp_path / 'b/02.png'}' is 16x12"
    )
    assert caught.value.hint == "a pair shows the same scene in the same frame; cut both sides to one shape"


def test_a_pair_of_odd_width_cannot_be_cut_and_is_unreadable(tmp_path: Path) -> None:
    root = paired_root(tmp_path)
    Image.new("RGB", (15, 8)).save(root / "train" / "04.png")
    skipped: list[str] = []
    found = material(data=root, skipped=skipped)
    assert skipped == ["04.png"]
    assert len(found.source) + len(found.held_out) + len(found.test) == 19
    Image.new("RGB", (15, 8)).save(root / "train" / "05.png")
    with pytest.raises(PictureError, match=r"2 of 20 pictures .* the first: '.*04\.png' is 15 pixels wide"):
        material(data=root)


# --- no pairs -------------------------------------------------------------------------------------------------------


def unpaired_root(root: Path, **counts: int) -> Path:
    for number, (side, count) in enumerate(counts.items()):
        write_pictures(root / side, named(count, 100 * number), (8, 8), seed=number)
    return root


def test_unpaired_sources_are_divided_and_targets_are_all_trained_on(tmp_path: Path) -> None:
    found = material(data=unpaired_root(tmp_path, trainA=20, trainB=7))
    assert (found.objective, found.where) == ("unpaired", "held out")
    assert [len(s) for s in (found.source, found.held_out, found.test)] == [16, 2, 2]
    assert names(found.target, found.target_views, found.test_target) == [tuple(named(7, 100))] * 3
    assert (found.held_out_truth, found.test_truth) == (None, None)
    assert found.remarks == (
        "there are no test pictures of the target; distributions are compared with the training ones",
    )


def test_unpaired_test_folders_are_used(tmp_path: Path) -> None:
    found = material(data=unpaired_root(tmp_path, trainA=20, trainB=7, testA=3, testB=4))
    assert (found.where, found.remarks) == ("test", ())
    assert names(found.test, found.test_target) == [tuple(named(3, 200)), tuple(named(4, 300))]
    assert [len(s) for s in (found.source, found.held_out)] == [18, 2]


def test_of_the_test_folders_either_may_be_missing(tmp_path: Path) -> None:
    only_a = material(data=unpaired_root(tmp_path / "1", trainA=20, trainB=7, testA=3))
    assert (only_a.where, len(only_a.remarks)) == ("test", 1)
    only_b = material(data=unpaired_root(tmp_path / "2", trainA=20, trainB=7, testB=3))
    assert (only_b.where, only_b.remarks) == ("held out", ())
    assert len(only_b.test_target or ()) == 3


def test_sources_alone_are_material_for_distillation(tmp_path: Path) -> None:
    write_pictures(tmp_path, named(20), (8, 8))
    found = material(source=tmp_path)
    assert (found.objective, found.where, found.remarks) == ("distill", "held out", ())
    assert names(found.target, found.target_views, found.test_truth, found.test_target) == [None] * 4
    assert [len(s) for s in (found.source, found.held_out, found.test)] == [16, 2, 2]


def test_each_side_is_read_in_its_own_format(tmp_path: Path) -> None:
    reading = dataclasses.replace(READING, output_format=PictureFormat.for_channels(1), view_size=(8, 8))
    found = material(data=unpaired_root(tmp_path, trainA=20, trainB=7, testB=2), reading=reading)
    assert tuple(found.source.batch([0]).shape) == (1, 3, 8, 8)
    assert found.target is not None
    assert found.test_target is not None
    assert tuple(found.target.batch([0]).shape) == tuple(found.test_target.batch([0]).shape) == (1, 1, 8, 8)


def test_without_larger_views_every_picture_is_decoded_once(tmp_path: Path) -> None:
    root = paired_root(tmp_path)
    found = material(data=root, reading=dataclasses.replace(READING, view_size=(8, 8)))
    for path in (root / "train").iterdir():
        path.unlink()
    assert views_of(found.source) == views_of(found.source_views)


def test_the_hash_of_a_division_changes_with_the_set_the_seed_and_the_targets(tmp_path: Path) -> None:
    def of(place: str, reading: Reading = READING, **counts: int) -> str:
        return material(data=unpaired_root(tmp_path / place, **counts), reading=reading).split_sha256

    first = of("1", trainA=20, trainB=5)
    assert of("2", trainA=20, trainB=5) == first
    others = [
        of("3", trainA=21, trainB=5),
        of("4", trainA=20, trainB=6),
        of("5", trainA=20, trainB=5, testA=2),
        of("6", trainA=20, trainB=5, testB=2),
        of("7", dataclasses.replace(READING, seed=6), trainA=20, trainB=5),
    ]
    assert len({first, *others}) == 6


def test_too_few_pictures_in_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="2 pictures cannot be divided"):
        material(data=paired_root(tmp_path, 2))

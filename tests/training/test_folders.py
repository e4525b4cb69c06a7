"""Folders are found by their names, pairs by theirs, and what contradicts itself is refused in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from mggc_edge.errors import InputError, PictureError
from mggc_edge.training.folders import Direction, Files, Folders, Layout, find_folders
from tests.training.training_helpers import write_pictures


def find(
    data: Path | None = None,
    *,
    layout: Layout | None = None,
    source: Path | None = None,
    target: Path | None = None,
    direction: Direction = "AtoB",
) -> Folders:
    return find_folders(data=data, layout=layout, source=source, target=target, direction=direction)


def touched(folder: Path, *names: str) -> tuple[Path, ...]:
    """Files that are found by their names; nothing is read here."""
    paths = tuple(folder / name for name in names)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


@pytest.mark.parametrize("layout", [None, "paired"])
@pytest.mark.parametrize("test", ["test", "val"])
def test_side_by_side_pairs_are_found(tmp_path: Path, layout: Layout | None, test: str) -> None:
    train = touched(tmp_path / "train", "1.jpg", "2.jpg", "10.jpg")
    tests = touched(tmp_path / test, "3.jpg")
    assert find(tmp_path, layout=layout) == Folders(
        "paired", Files(train, "left"), Files(train, "right"), Files(tests, "left"), Files(tests, "right")
    )
    turned = find(tmp_path, layout=layout, direction="BtoA")
    assert turned == Folders(
        "paired", Files(train, "right"), Files(train, "left"), Files(tests, "right"), Files(tests, "left")
    )


def test_test_comes_before_val_and_neither_need_be_there(tmp_path: Path) -> None:
    train = touched(tmp_path / "train", "1.jpg")
    assert find(tmp_path) == Folders("paired", Files(train, "left"), Files(train, "right"))
    touched(tmp_path / "val", "2.jpg")
    tests = touched(tmp_path / "test", "3.jpg")
    assert find(tmp_path).test_source == Files(tests, "left")


@pytest.mark.parametrize("layout", [None, "unpaired"])
def test_unpaired_folders_are_found(tmp_path: Path, layout: Layout | None) -> None:
    sides = {name: touched(tmp_path / name, "1.png", "2.png") for name in ("trainA", "trainB", "testA", "testB")}
    files = {name: Files(paths) for name, paths in sides.items()}
    assert find(tmp_path, layout=layout) == Folders(
        "unpaired", files["trainA"], files["trainB"], files["testA"], files["testB"]
    )
    assert find(tmp_path, layout=layout, direction="BtoA") == Folders(
        "unpaired", files["trainB"], files["trainA"], files["testB"], files["testA"]
    )


def test_each_test_folder_may_be_missing_on_its_own(tmp_path: Path) -> None:
    for name in ("trainA", "trainB", "testB"):
        touched(tmp_path / name, "1.png")
    found = find(tmp_path)
    assert found.test_source is None
    assert found.test_target == Files((tmp_path / "testB" / "1.png",))


def test_a_root_with_both_layouts_is_read_as_it_is_asked_for(tmp_path: Path) -> None:
    for name in ("train", "trainA", "trainB"):
        touched(tmp_path / name, "1.png")
    assert find(tmp_path).layout == "unpaired"
    assert find(tmp_path, layout="paired").layout == "paired"


def test_plain_folders_are_lists_without_a_relation(tmp_path: Path) -> None:
    a, b = touched(tmp_path / "a", "1.png", "sub/2.png"), touched(tmp_path / "b", "9.png")
    assert find(source=tmp_path / "a") == Folders("unpaired", Files(a), None)
    assert find(source=tmp_path / "a", target=tmp_path / "b") == Folders("unpaired", Files(a), Files(b))


def test_pairs_in_two_folders_are_matched_by_name_whatever_the_ending_or_the_order(tmp_path: Path) -> None:
    touched(tmp_path / "a", "1.png", "2.png", "sub/1.png")
    touched(tmp_path / "b", "2.jpg", "1.jpg", "sub/1.webp")
    found = find(layout="paired", source=tmp_path / "a", target=tmp_path / "b")
    assert found.target is not None
    pairs = zip(found.source.paths, found.target.paths, strict=True)
    assert {(x.relative_to(tmp_path / "a").as_posix(), y.relative_to(tmp_path / "b").as_posix()) for x, y in pairs} == {
        ("1.png", "1.jpg"),
        ("2.png", "2.jpg"),
        ("sub/1.png", "sub/1.webp"),
    }
    assert (found.source.half, found.target.half) == ("whole", "whole")


def test_two_pictures_may_be_a_pair_of_the_same_name(tmp_path: Path) -> None:
    (a,), (b,) = touched(tmp_path / "a", "1.png"), touched(tmp_path / "b", "1.jpg")
    assert find(layout="paired", source=a, target=b) == Folders("paired", Files((a,)), Files((b,)))


def test_pictures_without_a_partner_are_refused(tmp_path: Path) -> None:
    touched(tmp_path / "a", "1.png", "2.png", "3.png")
    touched(tmp_path / "b", "1.png", "4.png")
    with pytest.raises(PictureError) as caught:
        find(layout="paired", source=tmp_path / "a", target=tmp_path / "b")
    assert caught.value.message == (
        f"3 of the pictures in '{tmp_path / 'a'}' and '{tmp_path / 'b'}' have no partner of the same name, such as '2'"
    )
    assert caught.value.hint == "a pair has the same name in both folders"


def test_two_pictures_of_one_name_in_one_folder_are_refused_for_pairs(tmp_path: Path) -> None:
    touched(tmp_path / "a", "1.jpg", "1.png")
    touched(tmp_path / "b", "1.png")
    with pytest.raises(PictureError, match=r"1\.jpg' and '.*1\.png' have the same name, so their partner cannot"):
        find(layout="paired", source=tmp_path / "a", target=tmp_path / "b")


@pytest.mark.parametrize("side", ["source", "target"])
def test_data_and_plain_folders_contradict_each_other(tmp_path: Path, side: Literal["source", "target"]) -> None:
    places = {side: tmp_path}
    with pytest.raises(InputError, match="--data and --source or --target name the same pictures twice"):
        find(tmp_path, source=places.get("source"), target=places.get("target"))


def test_a_target_needs_a_source_and_pairs_need_both(tmp_path: Path) -> None:
    touched(tmp_path, "1.png")
    with pytest.raises(InputError, match="--target without --source says what comes out, but not what goes in"):
        find(target=tmp_path)
    with pytest.raises(InputError, match="--layout paired needs both sides"):
        find(layout="paired", source=tmp_path)


def test_a_root_without_known_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder '.*nowhere'"):
        find(tmp_path / "nowhere")
    touched(tmp_path, "1.png")
    with pytest.raises(InputError, match="has neither trainA/ and trainB/ nor train/") as caught:
        find(tmp_path)
    assert caught.value.hint == "give the folder above them, or plain folders with --source and --target"


PLAIN = "give the folder above them, or plain folders with --source and --target"


@pytest.mark.parametrize(
    ("there", "layout", "message", "hint"),
    [
        (("trainA",), None, "'{0}' has trainA/ but no trainB/", "pictures of the other side belong into '{0}/trainB'"),
        (
            ("trainB",),
            "unpaired",
            "'{0}' has trainB/ but no trainA/",
            "pictures of the other side belong into '{0}/trainA'",
        ),
        (
            ("trainA", "trainB"),
            "paired",
            "'{0}' holds two sides (trainA/ and trainB/); --layout paired needs train/",
            "name a folder with train/, or give --layout unpaired",
        ),
        (
            ("train",),
            "unpaired",
            "'{0}' holds side-by-side pairs (train/); --layout unpaired needs trainA/ and trainB/",
            "name a folder with trainA/ and trainB/, or give --layout paired",
        ),
        (("other",), "unpaired", "'{0}' has no trainA/ and no trainB/", PLAIN),
        (("other",), "paired", "'{0}' has no train/", PLAIN),
    ],
)
def test_a_root_without_the_layout_that_is_asked_for_says_what_it_has(
    tmp_path: Path, there: tuple[str, ...], layout: Layout | None, message: str, hint: str
) -> None:
    for name in there:
        touched(tmp_path / name, "1.png")
    with pytest.raises(InputError) as caught:
        find(tmp_path, layout=layout)
    assert (caught.value.message, caught.value.hint) == (message.format(tmp_path), hint.format(tmp_path))


def test_pairs_beside_one_side_of_two_are_pairs(tmp_path: Path) -> None:
    touched(tmp_path / "train", "1.png")
    touched(tmp_path / "trainB", "1.png")
    assert find(tmp_path).layout == "paired"


@pytest.mark.parametrize("empty", ["train", "test"])
def test_a_folder_without_pictures_is_named(tmp_path: Path, empty: str) -> None:
    write_pictures(tmp_path, [f"{name}/1.png" for name in ("train", "test") if name != empty])
    (tmp_path / empty).mkdir()
    with pytest.raises(PictureError, match=f"no pictures in '{tmp_path / empty}'"):
        find(tmp_path)

"""Which pictures are there: the folders that a user names, as lists of files for training and for testing."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mggc_edge.errors import InputError, PictureError, counted
from mggc_edge.pictures import find_pictures

Layout = Literal["paired", "unpaired"]
LAYOUT_FLAGS: Mapping[Layout, str] = {"paired": "--layout paired", "unpaired": "--layout unpaired"}
_HOLDS: Mapping[Layout, str] = {"paired": "side-by-side pairs (train/)", "unpaired": "two sides (trainA/ and trainB/)"}
_NEEDS: Mapping[Layout, str] = {"paired": "train/", "unpaired": "trainA/ and trainB/"}
Direction = Literal["AtoB", "BtoA"]


@dataclass(frozen=True)
class Files:
    """Pictures by their files; `half` says which part of a file, see `read_picture`."""

    paths: tuple[Path, ...]
    half: str = "whole"

    def chosen(self, numbers: Sequence[int]) -> Files:
        """Return some of them, by number."""
        return Files(tuple(self.paths[number] for number in numbers), self.half)


@dataclass(frozen=True)
class Folders:
    """What a user has: inputs, and perhaps outputs, for training and for testing.

    Attributes:
        layout: "paired": input n belongs to output n. "unpaired": two lists without a relation.
        source, target: pictures that go in, and such as should come out; target None: there are none.
        test_source, test_target: those of the test folder; None where there is none.
    """

    layout: Layout
    source: Files
    target: Files | None
    test_source: Files | None = None
    test_target: Files | None = None


def find_folders(
    *,
    data: Path | None,
    layout: Layout | None,
    source: Path | None,
    target: Path | None,
    direction: Direction,
    flags: Mapping[Layout, str] = LAYOUT_FLAGS,
) -> Folders:
    """Return the files below the folders that a user named.

    Args:
        data: a folder with `train/` and `test/` or `val/` of side-by-side pairs, or `trainA/ trainB/ testA/ testB/`.
        layout: which of the two; None: as its folders say. With `source` and `target`, "paired" pairs equal names.
        source, target: plain folders instead of `data`.
        direction: "AtoB": the left half, or trainA, goes in.
        flags: what the user asks for either layout with.

    Raises:
        InputError: the flags contradict each other, there is nothing where they point, or it lies otherwise.
        PictureError: a folder has no pictures, or pairs are not complete.
    """
    if data is not None:
        if source is not None or target is not None:
            raise InputError("--data and --source or --target name the same pictures twice", "give one of the two")
        return _in_root(data, _layout_of(data, layout, flags), direction)
    if source is None:
        raise InputError("--target without --source says what comes out, but not what goes in", "add --source DIR")
    goes_in = Files(tuple(find_pictures(source)))
    if target is None:
        if layout == "paired":
            raise InputError("--layout paired needs both sides", "add --target DIR, or use --data ROOT")
        return Folders("unpaired", goes_in, None)
    comes_out = Files(tuple(find_pictures(target)))
    if layout == "paired":
        return _matched(goes_in, comes_out, source, target)
    return Folders("unpaired", goes_in, comes_out)


def _layout_of(root: Path, asked: Layout | None, flags: Mapping[Layout, str]) -> Layout:
    """Return the layout of a folder, the one that is asked for if it has both; InputError if it has not that one."""
    if not root.is_dir():
        raise InputError(f"there is no folder '{root}'")
    sides = [name for name in ("trainA", "trainB") if (root / name).is_dir()]
    has: dict[Layout, bool] = {"paired": (root / "train").is_dir(), "unpaired": len(sides) == 2}
    layout = asked or ("unpaired" if sides and (has["unpaired"] or not has["paired"]) else "paired")
    if has[layout]:
        return layout
    other: Layout = "unpaired" if layout == "paired" else "paired"
    if has[other]:
        raise InputError(
            f"'{root}' holds {_HOLDS[other]}; {flags[layout]} needs {_NEEDS[layout]}",
            hint=f"name a folder with {_NEEDS[layout]}, or give {flags[other]}",
        )
    if layout == "unpaired" and sides:
        missing = "trainB" if sides == ["trainA"] else "trainA"
        raise InputError(
            f"'{root}' has {sides[0]}/ but no {missing}/",
            hint=f"pictures of the other side belong into '{root / missing}'",
        )
    plain = ", or plain folders with --source and --target" if flags == LAYOUT_FLAGS else ""
    raise InputError(
        f"'{root}' has neither trainA/ and trainB/ nor train/"
        if asked is None
        else f"'{root}' has no {_NEEDS[layout].replace(' and ', ' and no ')}",
        hint=f"give the folder above them{plain}",
    )


def _in_root(root: Path, layout: Layout, direction: Direction) -> Folders:
    if layout == "paired":
        halves = ("left", "right") if direction == "AtoB" else ("right", "left")
        train = tuple(find_pictures(root / "train"))
        tests = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
        test = () if tests is None else tuple(find_pictures(tests))
        return Folders(
            "paired",
            Files(train, halves[0]),
            Files(train, halves[1]),
            Files(test, halves[0]) if test else None,
            Files(test, halves[1]) if test else None,
        )
    first, second = ("A", "B") if direction == "AtoB" else ("B", "A")
    test_source, test_target = (
        Files(tuple(find_pictures(root / f"test{side}"))) if (root / f"test{side}").is_dir() else None
        for side in (first, second)
    )
    train_target = root / f"train{second}"
    return Folders(
        "unpaired",
        Files(tuple(find_pictures(root / f"train{first}"))),
        Files(tuple(find_pictures(train_target))),
        test_source,
        test_target,
    )


def _matched(source: Files, target: Files, source_root: Path, target_root: Path) -> Folders:
    """Pair the pictures of two folders that have the same name, whatever its ending."""
    sides = [_by_name(source, source_root), _by_name(target, target_root)]
    alone = sorted(set(sides[0]) ^ set(sides[1]))
    if alone:
        raise PictureError(
            f"{len(alone)} of the pictures in '{source_root}' and '{target_root}' have no partner of the same name, "
            f"such as '{alone[0]}'",
            hint="a pair has the same name in both folders",
        )
    pairs = (Files(tuple(side[name] for name in sides[0])) for side in sides)
    return Folders("paired", *pairs)


def _by_name(files: Files, root: Path) -> dict[Path, Path]:
    """Return files by their paths below `root` without the ending; `root` may be the one picture itself."""
    named: dict[Path, Path] = {}
    for path in files.paths:
        name = path.relative_to(root.parent if root.is_file() else root).with_suffix("")
        if name in named:
            raise PictureError(
                f"'{named[name]}' and '{path}' have the same name, so their partner cannot be told",
                hint="a pair has the same name in both folders, whatever its ending",
            )
        named[name] = path
    return named


@dataclass(frozen=True)
class Split:
    """Numbers of pictures: to train on, to choose the best checkpoint by, and to report on."""

    train: tuple[int, ...]
    held_out: tuple[int, ...]
    test: tuple[int, ...]


def split(count: int, *, fraction: float, most: int, test: bool, seed: int) -> Split:
    """Divide `count` pictures by chance: `fraction` of them, at most `most`, are held out, and `fraction` for a test.

    Args:
        fraction: up to 0.4.
        test: whether test pictures are to be taken out of these as well, because there is no test folder.

    Raises:
        PictureError: there are too few pictures to divide.
    """
    reported, chosen = _parts(count, fraction, most, test=test)
    if count < reported + chosen + 1:
        least = next(n for n in itertools.count(count) if n > sum(_parts(n, fraction, most, test=test)))
        parts = "training, held-out and test" if test else "training and held-out"
        raise PictureError(
            f"{counted(count, 'picture')} cannot be divided into {parts} pictures",
            hint=f"give at least {least}",
        )
    order = np.random.default_rng((seed, count)).permutation(count).tolist()
    held_out, tested, train = order[:chosen], order[chosen : chosen + reported], order[chosen + reported :]
    return Split(tuple(sorted(train)), tuple(sorted(held_out)), tuple(sorted(tested)))


def _parts(count: int, fraction: float, most: int, *, test: bool) -> tuple[int, int]:
    """Return how many of `count` pictures are reported on, and how many are held out."""
    return max(1, round(count * fraction)) if test else 0, max(1, min(most, round(count * fraction)))


def split_sha256(*lists: Sequence[str]) -> str:
    """Return a hash of which pictures are used for what, by their names."""
    digest = hashlib.sha256()
    for names in lists:
        digest.update("\n".join(names).encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()

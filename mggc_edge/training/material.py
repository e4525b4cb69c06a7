"""What a job trains and tests on: the pictures a user named, or built-in ones, divided once and for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mggc_edge.decoding import picture_size
from mggc_edge.errors import PictureError
from mggc_edge.pictures import PictureFormat, Size
from mggc_edge.training.bank import FolderPictures, PictureSet, ProceduralPictures, Selection, readable
from mggc_edge.training.folders import Files, Folders, split, split_sha256

Objective = Literal["paired", "unpaired", "distill"]
Track = Callable[[Iterable[int], int], Iterable[int]]


@dataclass(frozen=True)
class Material:
    """Pictures by what they are for. Sources and their truths are in step.

    Attributes:
        objective: "paired": there are truths. "unpaired": there are targets. "distill": the original is all there is.
        source, target: to train on, at the network's size; target None where there is none.
        source_views, target_views: the same at the size from which crops are cut.
        held_out, held_out_truth: to choose the best checkpoint by.
        test, test_truth: to report on. test_target: real pictures to compare distributions with; where they are not
            test pictures, `remarks` says so.
        all_target: every real picture of the target to compare distributions with as the FID's protocol has it: without
            pairs those to train on and the test ones, with pairs the test ones.
        where: "test": from a test folder. "held out": kept out of everything else. "built-in".
        split_sha256: hash of which picture is used for what.
    """

    objective: Objective
    source: PictureSet
    target: PictureSet | None
    source_views: PictureSet
    target_views: PictureSet | None
    held_out: PictureSet
    held_out_truth: PictureSet | None
    test: PictureSet
    test_truth: PictureSet | None
    test_target: PictureSet | None
    where: Literal["test", "held out", "built-in"]
    split_sha256: str
    remarks: tuple[str, ...] = ()
    all_target: tuple[PictureSet, ...] = ()


@dataclass(frozen=True)
class Reading:
    """How pictures are read.

    Attributes:
        size: of the network; view_size: from which crops of that size are cut.
        input_format, output_format: of the generator.
        held_out, most_held_out: which fraction is held out, and how many at most.
        cache_bytes: decoded pictures kept in memory, for each of the sets.
    """

    size: Size
    view_size: Size
    input_format: PictureFormat
    output_format: PictureFormat
    seed: int
    held_out: float = 0.1
    most_held_out: int = 40
    max_unreadable: float = 0.05
    cache_bytes: int = 2**30


def built_in(reading: Reading, count: int) -> Material:
    """Return built-in pictures as material: nothing but inputs, for distillation."""
    parts = split(count, fraction=reading.held_out, most=reading.most_held_out, test=True, seed=reading.seed)
    whole = ProceduralPictures(count, reading.size, reading.input_format, seed=reading.seed)
    train, held_out, test = (Selection(whole, numbers) for numbers in (parts.train, parts.held_out, parts.test))
    return Material(
        objective="distill",
        source=train,
        target=None,
        source_views=train,
        target_views=None,
        held_out=held_out,
        held_out_truth=None,
        test=test,
        test_truth=None,
        test_target=None,
        where="built-in",
        split_sha256=split_sha256(train.names, held_out.names, test.names),
    )


def from_folders(
    folders: Folders,
    reading: Reading,
    *,
    on_unreadable: Callable[[Path, PictureError], None] = lambda _path, _error: None,
    track: Track = lambda numbers, _: numbers,
) -> Material:
    """Read every picture of `folders` once, and divide them.

    Raises:
        PictureError: too many pictures are unreadable, there are too few to divide, or the sides of a pair are of
            different shapes.
    """
    reader = _Reader(reading, on_unreadable, track)
    paired = folders.layout == "paired"
    remarks = []
    if paired:
        assert folders.target is not None
        source, target = reader.pairs(folders.source, folders.target)
    else:
        source, target = reader.single(folders.source, reading.input_format), None
        if folders.target is not None:
            target = reader.single(folders.target, reading.output_format)
    has_test = folders.test_source is not None
    parts = split(
        len(source.plain), fraction=reading.held_out, most=reading.most_held_out, test=not has_test, seed=reading.seed
    )
    test: PictureSet
    test_truth: PictureSet | None = None
    test_target: PictureSet | None = None
    if folders.test_source is None:
        test = Selection(source.plain, parts.test)
        if paired and target is not None:
            test_truth = test_target = Selection(target.plain, parts.test)
    elif paired:
        assert folders.test_target is not None
        tests = reader.pairs(folders.test_source, folders.test_target)
        test, test_truth = (side.plain for side in tests)
        test_target = test_truth
    else:
        test = reader.single(folders.test_source, reading.input_format).plain
    if not paired and target is not None:
        if folders.test_target is not None:
            test_target = reader.single(folders.test_target, reading.output_format).plain
        else:
            test_target = target.plain
            remarks.append(
                "there are no test pictures of the target; distributions are compared with the training ones"
            )
    all_target = [] if test_target is None else [test_target]
    if not paired and target is not None and folders.test_target is not None:
        all_target.insert(0, target.plain)
    chosen = parts.train if paired else range(len(target.plain)) if target is not None else ()
    return Material(
        objective="paired" if paired else "distill" if target is None else "unpaired",
        source=Selection(source.plain, parts.train),
        target=None if target is None else Selection(target.plain, chosen),
        source_views=Selection(source.views, parts.train),
        target_views=None if target is None else Selection(target.views, chosen),
        held_out=Selection(source.plain, parts.held_out),
        held_out_truth=Selection(target.plain, parts.held_out) if paired and target is not None else None,
        test=test,
        test_truth=test_truth,
        test_target=test_target,
        where="test" if has_test else "held out",
        split_sha256=split_sha256(
            [source.plain.names[n] for n in parts.train],
            [source.plain.names[n] for n in parts.held_out],
            test.names,
            # What belongs to a source has been named with it.
            *([] if paired or target is None or test_target is None else [target.plain.names, test_target.names]),
        ),
        remarks=tuple(remarks),
        all_target=tuple(all_target),
    )


@dataclass(frozen=True)
class _Side:
    """One list of pictures, at the network's size and at the size that crops are cut from."""

    plain: PictureSet
    views: PictureSet


class _Reader:
    def __init__(self, reading: Reading, on_unreadable: Callable[[Path, PictureError], None], track: Track) -> None:
        self._reading, self._on_unreadable, self._track = reading, on_unreadable, track

    def single(self, files: Files, format: PictureFormat) -> _Side:  # noqa: A002
        plain, views = self._read(files.paths, [(files.half, format)])
        return _Side(plain, views)

    def pairs(self, first: Files, second: Files) -> tuple[_Side, _Side]:
        if first.paths == second.paths:  # two halves of the same files
            both = [(first.half, self._reading.input_format), (second.half, self._reading.output_format)]
            plain_a, views_a, plain_b, views_b = self._read(first.paths, both)
            return _Side(plain_a, views_a), _Side(plain_b, views_b)
        sides = self._read_matched(first, second)
        return _Side(*sides[:2]), _Side(*sides[2:])

    def _read(self, paths: Sequence[Path], kinds: Sequence[tuple[str, PictureFormat]]) -> Sequence[PictureSet]:
        def make(chosen: Sequence[Path]) -> list[PictureSet]:
            return [made for half, format_ in kinds for made in self._at_both_sizes(chosen, half, format_)]

        return self._readable(paths, make)

    def _read_matched(self, first: Files, second: Files) -> Sequence[PictureSet]:
        reading = self._reading
        _check_shapes(first.paths, second.paths)

        def make(_: Sequence[Path]) -> list[PictureSet]:
            return [
                *self._at_both_sizes(first.paths, first.half, reading.input_format),
                *self._at_both_sizes(second.paths, second.half, reading.output_format),
            ]

        return self._readable(first.paths, make)

    def _at_both_sizes(self, paths: Sequence[Path], half: str, format: PictureFormat) -> list[PictureSet]:  # noqa: A002
        reading = self._reading
        plain = FolderPictures(paths, reading.size, format, half=half, cache_bytes=reading.cache_bytes)
        if reading.view_size == reading.size:
            return [plain, plain]
        views = FolderPictures(paths, reading.view_size, format, half=half, cache_bytes=reading.cache_bytes)
        return [plain, views]

    def _readable(
        self, paths: Sequence[Path], make: Callable[[Sequence[Path]], Sequence[PictureSet]]
    ) -> Sequence[PictureSet]:
        return readable(
            paths,
            make,
            max_unreadable=self._reading.max_unreadable,
            on_unreadable=self._on_unreadable,
            track=self._track,
        )


def _check_shapes(first: Sequence[Path], second: Sequence[Path]) -> None:
    """Raise PictureError where the sides of a pair are of different shapes: both are brought to one, the network's."""
    odd = []
    for a, b in zip(first, second, strict=True):
        try:
            sizes = picture_size(a), picture_size(b)
        except PictureError:  # unreadable: named and counted by who reads it
            continue
        (height, width), (other_height, other_width) = sizes
        # Of one shape, up to a pixel of the smaller one: h1 / w1 = h2 / w2.
        if abs(height * other_width - other_height * width) > max(*sizes[0], *sizes[1]):
            odd.append((a, b, sizes))
    if odd:
        a, b, (size, other) = odd[0]
        raise PictureError(
            f"the sides of {len(odd)} of {len(first)} pairs have different shapes: '{a}' is {size[0]}x{size[1]} "
            f"(height x width) and '{b}' is {other[0]}x{other[1]}",
            hint="a pair shows the same scene in the same frame; cut both sides to one shape",
        )

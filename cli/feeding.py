"""The pictures that a command works on: from a folder, or built in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mggc_edge.cli.output import Output

if TYPE_CHECKING:
    from mggc_edge.errors import PictureError
    from mggc_edge.pictures import PictureFormat, PictureStream, Size
    from mggc_edge.tensors import FloatArray


def folder_pictures(
    out: Output, paths: Sequence[Path], size: Size, format_: PictureFormat, half: str, max_unreadable: float
) -> PictureStream:
    """Return the pictures at `paths` as a stream for `read_pictures`.

    An unreadable picture is named once and skipped; the share that may be unreadable is the caller's.
    """
    from mggc_edge.pictures import PictureStream

    def skipped(_path: Path, error: PictureError) -> None:
        out.remark(f"skipped: {error.message}")

    if half == "whole":
        _hint_at_pairs(out, paths[0])
    return PictureStream(paths, size, format_, half=half, on_unreadable=skipped, max_unreadable=max_unreadable)


def read_pictures(out: Output, stream: PictureStream, *, what: str) -> Iterator[tuple[Path, FloatArray]]:
    """Yield (path, array [1, C, H, W]) for every readable picture of a stream, with progress."""
    yield from out.track(stream, total=len(stream.paths), what=what)
    if stream.unreadable:
        out.remark(f"{stream.unreadable} of {len(stream.paths)} pictures could not be read")


def built_in_pictures(count: int, size: Size, format_: PictureFormat, seed: int) -> Iterator[FloatArray]:
    """Yield procedural pictures as arrays [1, C, H, W]."""
    from mggc_edge.pictures import to_array
    from mggc_edge.procedural import procedural_pictures

    for picture in procedural_pictures(count, size, seed=seed, color=format_.mode):
        yield to_array(picture, size, format_)


def _hint_at_pairs(out: Output, path: Path) -> None:
    from mggc_edge.decoding import picture_size
    from mggc_edge.errors import PictureError

    try:
        height, width = picture_size(path)
    except PictureError:
        return  # whoever reads it will say what is wrong
    if width == 2 * height:
        out.remark("note: the pictures are twice as wide as high; if they are pairs side by side, use --layout paired")

"""Sets of pictures as a stage of training sees them: numbered, of one size, as levels in memory or read when needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mggc_edge.errors import PictureError
from mggc_edge.pictures import PictureFormat, Size, read_picture, to_pixels
from mggc_edge.procedural import procedural_pictures

Pixels = npt.NDArray[np.uint8]  # levels, [C, H, W]
T = TypeVar("T")


class Bank(Protocol):
    """Numbered pictures as tensors."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Return the pictures of these numbers, float32 [B, C, H, W] in the range of their format."""


class PictureSet(ABC):
    """Numbered pictures of one size, as levels.

    A subclass says how one is made; what fits into `cache_bytes` is made once and kept.
    """

    def __init__(self, names: Sequence[str], size: Size, format: PictureFormat, cache_bytes: int) -> None:  # noqa: A002
        self.names, self.size, self.format = tuple(names), size, format
        self._cache: dict[int, Pixels] = {}
        self._cacheable = cache_bytes // max(1, format.channels * size[0] * size[1])

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, index: int) -> Pixels:
        """Return one picture, uint8 [C, H, W] in the colour order of the format."""
        if (found := self._cache.get(index)) is not None:
            return found
        made = self._make(index)
        if len(self._cache) < self._cacheable:
            self._cache[index] = made
        return made

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Return pictures as a network takes them, float32 [B, C, H, W]."""
        return to_tensor([self.pixels(index) for index in indices], self.format)

    @abstractmethod
    def _make(self, index: int) -> Pixels:
        """Return one picture, uint8 [C, H, W]."""


class FolderPictures(PictureSet):
    """Pictures out of files, or out of one half of files that hold pairs. `half` as in `read_picture`."""

    def __init__(
        self,
        paths: Sequence[Path],
        size: Size,
        format: PictureFormat,  # noqa: A002
        *,
        half: str = "whole",
        cache_bytes: int = 0,
    ) -> None:
        super().__init__([path.name for path in paths], size, format, cache_bytes)
        self.paths, self.half = tuple(paths), half

    def _make(self, index: int) -> Pixels:
        return to_pixels(read_picture(self.paths[index], self.format.color, self.half), self.size, self.format)


class ProceduralPictures(PictureSet):
    """Built-in pictures, for those who have none; see `mggc_edge.procedural`."""

    def __init__(self, count: int, size: Size, format: PictureFormat, *, seed: int) -> None:  # noqa: A002
        super().__init__([f"built-in {index}" for index in range(count)], size, format, 0)
        pictures = procedural_pictures(count, size, seed=seed, color=format.mode)
        self._pixels = [to_pixels(picture, size, format) for picture in pictures]

    def _make(self, index: int) -> Pixels:
        return self._pixels[index]


class GivenPictures(PictureSet):
    """Pictures that are there as levels, uint8 [n, C, H, W], such as what a network made of others."""

    def __init__(self, pixels: Pixels, format: PictureFormat, names: Sequence[str] = ()) -> None:  # noqa: A002
        _, _, height, width = pixels.shape
        super().__init__(names or [str(index) for index in range(len(pixels))], (height, width), format, 0)
        self.all_pixels = pixels

    def _make(self, index: int) -> Pixels:
        picture: Pixels = self.all_pixels[index]
        return picture


class Selection(PictureSet):
    """Some of the pictures of another set, by their numbers there."""

    def __init__(self, whole: PictureSet, numbers: Sequence[int]) -> None:
        super().__init__([whole.names[number] for number in numbers], whole.size, whole.format, 0)
        self._whole, self.numbers = whole, tuple(numbers)

    def _make(self, index: int) -> Pixels:
        return self._whole.pixels(self.numbers[index])


def readable(
    paths: Sequence[Path],
    make: Callable[[Sequence[Path]], Sequence[PictureSet]],
    *,
    max_unreadable: float,
    on_unreadable: Callable[[Path, PictureError], None],
    track: Callable[[Iterable[int], int], Iterable[int]] = lambda numbers, _: numbers,
) -> Sequence[PictureSet]:
    """Read every picture once, which fills the caches, and return sets of those that can be read.

    Args:
        paths: the files.
        make: from files to the sets that are read out of them (one, or the two sides of pairs), in step.
        max_unreadable: the fraction of the files that may be unreadable.
        on_unreadable: is told of each that is.
        track: shows progress over the numbers of the files.

    Raises:
        PictureError: more than that is unreadable, or all of it.
    """
    sets = make(paths)
    good: list[int] = []
    first: PictureError | None = None
    for index in track(range(len(paths)), len(paths)):
        try:
            for pictures in sets:
                pictures.pixels(index)
        except PictureError as error:
            first = first or error
            on_unreadable(paths[index], error)
        else:
            good.append(index)
    bad = len(paths) - len(good)
    if first is not None and (not good or bad > max_unreadable * len(paths)):
        message = f"{bad} of {len(paths)} pictures are unreadable; the first: {first.message}"
        raise PictureError(message, f"at most {max_unreadable:.0%} may be") from first
    return sets if not bad else [Selection(pictures, good) for pictures in sets]


def to_tensor(pixels: Sequence[Pixels], format: PictureFormat) -> Tensor:  # noqa: A002
    """Return levels as a network takes them, float32 [B, C, H, W] in the range of `format`."""
    levels = torch.from_numpy(np.stack(pixels)).float()
    return levels.mul_((format.high - format.low) / 255).add_(format.low)


def to_levels(values: Tensor, format: PictureFormat) -> Pixels:  # noqa: A002
    """Return what a network gave, float [B, C, H, W], as levels: the nearest, clipped to the range."""
    scaled = (values.detach().float() - format.low) * (255 / (format.high - format.low))
    levels: Pixels = scaled.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return levels


def views(sets: Sequence[PictureSet], index: int, size: Size, rng: np.random.Generator, *, flip: bool) -> list[Pixels]:
    """Return the same random crop of `size`, mirrored or not, of picture `index` of every set."""
    height, width = sets[0].size
    top, left = int(rng.integers(0, height - size[0] + 1)), int(rng.integers(0, width - size[1] + 1))
    mirrored = flip and bool(rng.integers(0, 2))
    crops = [pictures.pixels(index)[:, top : top + size[0], left : left + size[1]] for pictures in sets]
    return [crop[:, :, ::-1] for crop in crops] if mirrored else crops


class Ahead(Generic[T]):
    """Makes the next step's batch in a thread while this step computes. `make` must depend on the step alone."""

    def __init__(self, make: Callable[[int], T], steps: int) -> None:
        self._make, self._steps = make, steps
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pictures")
        self._next: tuple[int, Future[T]] | None = None

    def get(self, step: int) -> T:
        """Return the batch of `step`, and start on the one after it."""
        ready = self._next
        batch = ready[1].result() if ready is not None and ready[0] == step else self._make(step)
        self._next = (step + 1, self._pool.submit(self._make, step + 1)) if step + 1 < self._steps else None
        return batch

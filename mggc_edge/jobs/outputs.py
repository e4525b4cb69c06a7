"""What the original makes of its inputs: computed once, kept on disk in pieces, and read from there."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mggc_edge.artifacts import atomic_write, writing
from mggc_edge.errors import ArtifactError, InputError
from mggc_edge.models.network import Network
from mggc_edge.pictures import PictureFormat
from mggc_edge.tensors import Array
from mggc_edge.training.bank import PictureSet, Pixels, to_levels
from mggc_edge.training.precision import Precision, autocast

PIECE = 32  # pictures: what a stop may cost
BATCH = 4
OPEN_PIECES = 64


class OutputPictures(PictureSet):
    """Pictures in numbered files of PIECE each, of which a few at a time are mapped into memory."""

    def __init__(self, folder: Path, names: tuple[str, ...], size: tuple[int, int], format: PictureFormat) -> None:  # noqa: A002
        super().__init__(names, size, format, 0)
        self._folder = folder
        self._piece = functools.lru_cache(maxsize=OPEN_PIECES)(self._open)

    def _make(self, index: int) -> Pixels:
        return np.asarray(self._piece(index // PIECE)[index % PIECE])

    def _open(self, number: int) -> Pixels:
        first = number * PIECE
        path = piece_file(self._folder, first)
        wanted = (min(PIECE, len(self) - first), self.format.channels, *self.size)
        try:
            piece: Pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            raise ArtifactError(f"'{path}' cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ArtifactError(f"'{path}' is damaged: {error}", hint="remove it; it will be made again") from error
        if piece.shape != wanted or piece.dtype != np.uint8:
            raise ArtifactError(f"'{path}' holds other pictures", hint="remove it; it will be made again")
        return piece


def piece_file(folder: Path, first: int) -> Path:
    """Return the file of the pictures from number `first` on."""
    return folder / f"{first:06d}.npy"


def write_array(path: Path, array: Array) -> None:
    """Write an array as a .npy file, whole or not at all.

    Raises:
        OutputError: the disk is full or cannot be written.
    """
    data = io.BytesIO()
    np.save(data, array, allow_pickle=False)  # into a file, numpy would not say why it could not write
    atomic_write(path, data.getvalue())


def original_outputs(
    generator: Network,
    inputs: PictureSet,
    format: PictureFormat,  # noqa: A002
    folder: Path,
    *,
    precision: Precision,
    watch: Callable[[int, int], None] = lambda _done, _all: None,
) -> OutputPictures:
    """Return y' = G(x) of every input, in evaluation mode, as 8-bit levels below `folder`.

    Pieces that are there are not computed again. `watch` is told how many pictures of how many are done.

    Raises:
        InputError: an output is not finite.
        OutputError: the disk is full or cannot be written.
        ArtifactError: a piece is damaged.
    """
    generator.eval()
    device = next(generator.parameters()).device
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    size = generator.table.layers[-1].out_size
    for first in range(0, len(inputs), PIECE):
        numbers = range(first, min(first + PIECE, len(inputs)))
        path = piece_file(folder, first)
        if not path.is_file():
            levels = []
            for start in range(0, len(numbers), BATCH):
                x = inputs.batch(numbers[start : start + BATCH]).to(device)
                with torch.inference_mode(), autocast(precision, device):
                    y = generator(x)
                if not torch.isfinite(y).all():
                    raise InputError(
                        f"the original's output for '{inputs.names[numbers[start]]}' or one after it is no picture: "
                        "it has NaN or infinite values",
                        hint="its weights are too large; try --set train.precision=fp32",
                    )
                levels.append(to_levels(y, format))
            write_array(path, np.concatenate(levels))
        watch(numbers[-1] + 1, len(inputs))
    outputs = OutputPictures(folder, inputs.names, size, format)
    for first in range(0, len(inputs), PIECE):
        outputs.pixels(first)  # what is damaged is found now
    return outputs

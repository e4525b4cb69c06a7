"""The values of tensors whose headers have been read and checked: views into a map of the checkpoint file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from mggc_edge.errors import CheckpointError
from mggc_edge.models.state_file import TensorHeader
from mggc_edge.tensors import Array, FloatArray

_NUMPY_TYPES = {"float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
FLOATING = frozenset(_NUMPY_TYPES)  # torch's names of the types whose values can be read


def read_values(path: Path, headers: Mapping[str, TensorHeader]) -> Iterator[tuple[str, FloatArray]]:
    """Yield (key, values) for every header, copied from where it says, as float32.

    Args:
        path: the file that the headers were read from.
        headers: of tensors of a type in FLOATING, by any key.

    Raises:
        CheckpointError: the file cannot be read after all.
    """
    data = _mapped(path)
    for key, header in headers.items():
        yield key, _float32(_view(path, data, header), header.dtype)


def check_finite(path: Path, headers: Mapping[str, TensorHeader]) -> None:
    """Look at every value once, through a map of the file: no copy of a tensor is made unless it is of 8 bytes.

    Raises:
        CheckpointError: a value is NaN or infinite, also as float32.
    """
    data = _mapped(path)
    for key, header in headers.items():
        values = _view(path, data, header)
        if header.dtype == "bfloat16":  # all exponent bits set
            finite = not np.any((values & np.uint16(0x7F80)) == 0x7F80)
        else:
            if header.dtype == "float64":
                values = _float32(values, "float64")  # what is too large for a float32 becomes infinite
            with np.errstate(all="ignore"):
                finite = bool(np.isfinite(np.sum(values, dtype=np.float64)))
        if not finite:
            raise CheckpointError(
                f"'{path}': '{key}' has NaN or infinite values",
                hint="the training that wrote it has diverged; take an earlier checkpoint",
            )


def _mapped(path: Path) -> Array:
    try:
        return np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"'{path}' cannot be read: {error}") from error


def _view(path: Path, data: Array, header: TensorHeader) -> Array:
    dtype = np.dtype(_NUMPY_TYPES[header.dtype])
    strides = tuple(step * dtype.itemsize for step in header.stride)
    try:
        return np.ndarray(header.shape, dtype, buffer=data, offset=header.first_byte, strides=strides)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"'{path}' was changed while it was being read") from error


def _float32(values: Array, dtype: str) -> FloatArray:
    with np.errstate(all="ignore"):
        if dtype == "bfloat16":  # the upper half of a float32
            return np.ascontiguousarray((values.astype(np.uint32) << 16).view(np.float32))
        return values.astype(np.float32, order="C")

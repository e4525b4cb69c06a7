"""The values of tensors whose headers have been read and checked: through a map of the file, as float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mggc_edge.errors import CheckpointError
from mggc_edge.models.state_file import TensorHeader
from mggc_edge.tensors import Array, FloatArray

NUMPY_TYPES = {"float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}


def mapped(path: Path) -> Array:
    """Return a map of a file, uint8 [bytes].

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"'{path}' cannot be read: {error}") from error


def stored_values(path: Path, data: Array, header: TensorHeader) -> Array:
    """Return a tensor of floats as it is stored in `data`, the map of the file; bfloat16 as its bits, uint16.

    Raises:
        CheckpointError: the file has become shorter since its headers were read.
    """
    dtype = np.dtype(NUMPY_TYPES[header.dtype])
    strides = tuple(step * dtype.itemsize for step in header.stride)
    try:
        return np.ndarray(header.shape, dtype, buffer=data, offset=header.first_byte, strides=strides)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"'{path}' was changed while it was being read") from error


def as_float32(values: Array, dtype: str) -> FloatArray:
    """Return a contiguous copy of stored values of torch's type `dtype`; too large ones become infinite."""
    with np.errstate(all="ignore"):
        if dtype == "bfloat16":  # the upper half of a float32
            return np.ascontiguousarray((values.astype(np.uint32) << 16).view(np.float32))
        return values.astype(np.float32, order="C")


def is_finite(values: Array, dtype: str) -> bool:
    """Return whether all stored values of torch's type `dtype` are finite as float32; no copy but for float64."""
    if dtype == "bfloat16":  # all exponent bits set
        return not np.any((values & np.uint16(0x7F80)) == 0x7F80)
    if dtype == "float64":
        values = as_float32(values, "float64")  # what is too large for a float32 becomes infinite
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.sum(values, dtype=np.float64)))

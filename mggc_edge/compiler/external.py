"""ONNX files that keep their weights in a second file beside them, as torch's exporter writes by default.

Everything else takes files that are whole by themselves: one file is copied, hashed, sent to a device and measured.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath, PureWindowsPath
from typing import TYPE_CHECKING

from mggc_edge.artifacts import writing
from mggc_edge.compiler.bounds import is_external, messages
from mggc_edge.compiler.facts import MAX_ONNX_BYTES, parse_onnx
from mggc_edge.errors import ArtifactError
from mggc_edge.lazy import require

if TYPE_CHECKING:
    import onnx


@contextlib.contextmanager
def self_contained(path: Path) -> Iterator[Path]:
    """Give a file that holds its own weights: the file itself, or for as long as it is needed a copy that has them.

    Raises:
        ArtifactError: the file is damaged, or what it names is not a file beside it, or holds other sizes than it says,
            or all together have more than 2 GiB.
    """
    model = parse_onnx(path)
    kind = require("onnx", extra="onnx").TensorProto
    outside = [message for message in messages(model) if isinstance(message, kind) and is_external(message)]
    if not outside:
        yield path
        return
    try:
        _take_in(outside, path)
    except ArtifactError as error:
        raise ArtifactError(f"'{path}' is not complete: {error.message}", error.hint) from None
    with tempfile.TemporaryDirectory(prefix="mggc-edge-") as folder:
        whole = Path(folder, path.name)
        with writing(whole):
            whole.write_bytes(model.SerializeToString())
        yield whole


def _take_in(tensors: list[onnx.TensorProto], path: Path) -> None:
    total = path.stat().st_size + sum(map(_size, tensors))
    if total > MAX_ONNX_BYTES:
        raise ArtifactError(f"with its weights it has {total:,} bytes; ONNX files have at most 2 GiB")
    for tensor in tensors:
        said = {entry.key: entry.value for entry in tensor.external_data}
        place, size = _beside(path, said.get("location", "")), _size(tensor)
        try:
            start, length = int(said.get("offset", "0")), int(said.get("length", size))
        except ValueError:
            raise ArtifactError(f"it does not say where in '{place.name}' the values of '{tensor.name}' are") from None
        with place.open("rb") as file:
            file.seek(max(0, start))
            values = file.read(size)
        if start < 0 or length != size or len(values) != size:
            raise ArtifactError(
                f"'{tensor.name}' has {size:,} bytes, and '{place.name}' holds others",
                hint="is that the file that was written with it?",
            )
        tensor.ClearField("external_data")
        tensor.data_location = tensor.DEFAULT
        tensor.raw_data = values


def _beside(path: Path, name: str) -> Path:
    """Return the file of that name beside a file; nothing that is elsewhere, whatever leads there."""
    place = path.parent / name
    plain = name not in ("", ".", "..") and PurePath(name).name == name == PureWindowsPath(name).name
    if not plain or place.resolve().parent != path.parent.resolve():
        raise ArtifactError(f"its weights are in '{name}', which is no file beside it", hint="save it as a single file")
    if not place.is_file():
        raise ArtifactError(
            f"its weights are in '{name}', which is missing", hint=f"put '{name}' into the folder of the file"
        )
    return place


def _size(tensor: onnx.TensorProto) -> int:
    helper = require("onnx.helper", extra="onnx")
    bits = {"INT4", "UINT4", "FLOAT4E2M1", "STRING", "INT2", "UINT2"}  # no whole bytes, or no values of one size
    if tensor.data_type not in tensor.DataType.values() or tensor.DataType.Name(tensor.data_type) in bits:
        raise ArtifactError(f"'{tensor.name}' has values of a type that is not read from other files")
    if min(tensor.dims, default=0) < 0:
        raise ArtifactError(f"'{tensor.name}' has an impossible shape")
    size: int = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return size * int(math.prod(tensor.dims))

"""Read what a checkpoint file says it holds, without believing it and without loading it.

Every tensor comes back as a header: its type, shape and place in the file. Nothing in the file is run, no weight is
read here (`checkpoint.py` looks at every one of them once for NaN, through a map of the file), and a header that
claims more than the file has is refused, so that whoever loads the weights afterwards takes no more memory than the
file is long. Formats: PyTorch's zip archive, its older sequence of pickles, and safetensors.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import count as count_up
from pathlib import Path
from typing import Any, BinaryIO, Literal

from mggc_edge.errors import CheckpointError
from mggc_edge.models.tensor_pickle import (
    ELEMENT_BYTES,
    MAX_DIMENSIONS,
    BoundedReader,
    Storage,
    StoredTensor,
    TensorPickle,
    checked_size,
)

FileFormat = Literal["zip", "legacy", "safetensors"]
Tree = Mapping[str, Any]

MAX_PICKLE_BYTES = 8 * 2**20
MAX_DIRECTORY_BYTES = 2 * 2**20  # of a zip archive or a safetensors file: in memory it takes up to 20 times as much
MAX_ENTRIES = 100_000
MAX_KEY_LENGTH = 500
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

_SAFETENSORS_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


@dataclass(frozen=True)
class TensorHeader:
    """One tensor of a checkpoint: element type (torch's name), shape, strides in elements, first byte in the file."""

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    first_byte: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def size_bytes(self) -> int:
        """Bytes of its elements."""
        return self.elements * ELEMENT_BYTES[self.dtype]


@dataclass(frozen=True)
class StateFile:
    """What a checkpoint file holds: nested dictionaries with a `TensorHeader` for every tensor."""

    path: Path
    format: FileFormat
    size_bytes: int
    tree: Tree


def read_state_file(path: Path, max_bytes: int) -> StateFile:
    """Read the headers of a checkpoint file of at most `max_bytes`.

    Raises:
        CheckpointError: there is no such file, it is no checkpoint, it is damaged, it would run code, or it claims
            tensors that are not in it.
    """
    if path.is_dir():
        raise CheckpointError(f"'{path}' is a folder, not a checkpoint file")
    try:
        size = path.stat().st_size
        if size == 0:
            raise CheckpointError(f"'{path}' is empty")
        if size > max_bytes:
            raise CheckpointError(
                f"'{path}' has {size:,} bytes, more than the limit of {max_bytes:,}",
                hint="raise the setting checkpoint.max_bytes if you trust it",
            )
        with path.open("rb") as file:
            start = file.read(512)
            file.seek(0)
            kind, read = _format(path, start)
            tree = read(file, size)
    except CheckpointError as error:
        named = error.message if str(path) in error.message else f"'{path}': {error.message}"
        raise CheckpointError(named, error.hint) from error
    except FileNotFoundError:
        raise CheckpointError(f"there is no file '{path}'") from None
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged file can fail in any way inside the parsers
        raise CheckpointError(
            f"'{path}' is damaged or is no checkpoint ({type(error).__name__} while reading it)",
            hint="is the file complete? compare its size or checksum with the original's",
        ) from error
    return StateFile(path, kind, size, tree)


def _format(path: Path, start: bytes) -> tuple[FileFormat, Callable[[BinaryIO, int], Tree]]:
    if start.startswith(b"PK\x03\x04"):
        return "zip", _read_zip
    if len(start) > 8 and start[8:9] == b"{":  # before it stands the header's length, of which any byte may be 0x80
        return "safetensors", _read_safetensors
    if start[:1] == b"\x80":
        return "legacy", _read_legacy
    if start[257:262] == b"ustar":
        raise CheckpointError(
            f"'{path}' is a checkpoint in the tar format of PyTorch before 0.2",
            hint="load and save it again with any PyTorch from 0.4 to 1.x",
        )
    what = "an ONNX file" if path.suffix.lower() in (".onnx", ".ort") else "no checkpoint"
    raise CheckpointError(f"'{path}' is {what}", hint="a checkpoint is a .pth, .pt or .safetensors file of weights")


def _read_zip(file: BinaryIO, size: int) -> Tree:
    with zipfile.ZipFile(_LimitedReads(file)) as archive:
        entries = archive.infolist()
    if len({entry.filename for entry in entries}) != len(entries) or len(entries) > MAX_ENTRIES:
        raise CheckpointError("this archive has entries that share a name, or far too many", hint="do not trust it")
    names = {entry.filename: entry for entry in entries}
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError("this is a zip archive, but not one that torch.save wrote")
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in names:
        raise CheckpointError(
            "this is a TorchScript archive, which holds code", hint="save the weights alone: state_dict()"
        )

    def locate(name: str, size_bytes: int) -> int:
        if name not in names:
            lacked = name.removeprefix(prefix)
            raise CheckpointError(
                f"the archive lacks the data of a tensor ({lacked[:100]!r})", hint="is the file complete?"
            )
        entry = names[name]
        if entry.compress_type != zipfile.ZIP_STORED:  # a few compressed bytes can become any number
            raise CheckpointError(
                "this archive is compressed, which torch.save never does", hint="save the weights again"
            )
        file.seek(entry.header_offset)
        local = file.read(30)
        # Local file header: lengths of name and extra field are 16-bit little-endian at 26 and 28.
        start = (
            entry.header_offset + 30 + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
        )
        if local[:4] != b"PK\x03\x04" or entry.file_size < size_bytes or start + entry.file_size > size:
            raise CheckpointError("a tensor is larger than what the file holds of it", hint="is the file complete?")
        return start

    def content(name: str) -> bytes:
        entry = names[name]
        if entry.file_size > MAX_PICKLE_BYTES:
            raise CheckpointError(f"the checkpoint's table of contents has more than {MAX_PICKLE_BYTES:,} bytes")
        file.seek(locate(name, 0))
        data = file.read(entry.file_size)
        if zlib.crc32(data) != entry.CRC:
            raise CheckpointError("the checkpoint's table of contents is damaged", hint="is the file complete?")
        return data

    if f"{prefix}byteorder" in names and content(f"{prefix}byteorder") != b"little":
        raise CheckpointError("this checkpoint was written on a big-endian machine, which is not supported")
    reader = BoundedReader(BytesIO(content(pickles[0])), MAX_PICKLE_BYTES)
    return _tree(reader, lambda key, size_bytes: locate(f"{prefix}data/{key}", size_bytes))


class _LimitedReads:
    """A file of which only so much can be read at once: zipfile takes the whole directory of an archive in one read."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self.seekable, self._file = file.seek, file.tell, file.seekable, file

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(MAX_DIRECTORY_BYTES + 1 if count < 0 else min(count, MAX_DIRECTORY_BYTES + 1))
        if len(data) > MAX_DIRECTORY_BYTES:
            raise CheckpointError(f"the directory of this archive has more than {MAX_DIRECTORY_BYTES:,} bytes")
        return data


def _read_legacy(file: BinaryIO, size: int) -> Tree:
    reader = BoundedReader(file, min(size, MAX_PICKLE_BYTES))
    if TensorPickle(reader).load() != LEGACY_MAGIC or TensorPickle(reader).load() != LEGACY_PROTOCOL:
        raise CheckpointError("this is a Python pickle, but not one that torch.save wrote")
    info = TensorPickle(reader).load()
    if not isinstance(info, dict) or info.get("little_endian") is not True:
        raise CheckpointError("this checkpoint was written on a big-endian machine, which is not supported")
    unpickler = TensorPickle(reader)
    root = unpickler.load()
    keys = TensorPickle(reader).load()
    if not isinstance(keys, list) or set(keys) != set(unpickler.storages) or len(set(keys)) != len(keys):
        raise CheckpointError("the list of storages does not match the tensors", hint="is the file complete?")
    starts, position = {}, file.tell()
    for key in keys:  # each storage: its number of elements, 64 bit little-endian, then the elements
        storage = unpickler.storages[key]
        file.seek(position)
        if int.from_bytes(file.read(8), "little") != storage.elements or position + 8 + storage.size_bytes > size:
            raise CheckpointError("a tensor is larger than what the file holds of it", hint="is the file complete?")
        starts[key] = position + 8
        position += 8 + storage.size_bytes
    return _resolve(root, {storage: starts[key] for key, storage in unpickler.storages.items()}, count_up(1))


def _read_safetensors(file: BinaryIO, size: int) -> Tree:
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise CheckpointError(
            "the header of this safetensors file is longer than the file", hint="is the file complete?"
        )
    if length > MAX_DIRECTORY_BYTES:
        raise CheckpointError(f"the header of this safetensors file has more than {MAX_DIRECTORY_BYTES:,} bytes")
    header = json.loads(file.read(length).decode("utf-8"))
    tree: dict[str, TensorHeader] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape = _SAFETENSORS_TYPES[entry["dtype"]], _sizes(entry["shape"])
        begin, end = map(checked_size, entry["data_offsets"])
        tensor = TensorHeader(dtype, shape, _contiguous(shape), 8 + length + begin)
        if not begin <= end <= size - 8 - length or end - begin != tensor.size_bytes:
            raise CheckpointError(
                f"tensor '{name}' is larger than what the file holds of it", hint="is the file complete?"
            )
        tree[_key(name)] = tensor
    return tree


def _tree(reader: BoundedReader, locate: Callable[[str, int], int]) -> Tree:
    unpickler = TensorPickle(reader)
    root = unpickler.load()
    return _resolve(root, {s: locate(s.key, s.size_bytes) for s in unpickler.storages.values()}, count_up(1))


def _resolve(root: Any, starts: Mapping[Storage, int], seen: Iterator[int], depth: int = 0) -> Tree:
    """Return the nested dictionaries below `root` with headers for tensors; everything else is left out."""
    if not isinstance(root, dict):
        kind = "one tensor" if isinstance(root, StoredTensor) else "something else"
        raise CheckpointError(f"a checkpoint is a dictionary of tensors by name, and this file holds {kind}")
    tree: dict[str, Any] = {}
    for key, value in root.items():
        if next(seen) > MAX_ENTRIES:  # a dictionary may stand in another a thousand times
            raise CheckpointError(f"this checkpoint has more than {MAX_ENTRIES:,} entries")
        if not isinstance(key, str):
            continue
        if isinstance(value, StoredTensor):
            tree[_key(key)] = _header(value, starts)
        elif isinstance(value, dict) and depth < 4:
            tree[_key(key)] = _resolve(value, starts, seen, depth + 1)
    return tree


def _header(tensor: StoredTensor, starts: Mapping[Storage, int]) -> TensorHeader:
    storage = tensor.storage
    if storage.dtype is None:
        raise CheckpointError("this checkpoint has a tensor without an element type")
    start = starts[storage] + tensor.offset * ELEMENT_BYTES[storage.dtype]
    header = TensorHeader(storage.dtype, tensor.shape, tensor.stride, start)
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride, strict=True))
    if header.elements and (tensor.offset + last >= storage.elements or header.elements > storage.elements):
        raise CheckpointError("a tensor is larger than what the file holds of it", hint="do not trust this file")
    return header


def _sizes(shape: Any) -> tuple[int, ...]:
    if len(shape) > MAX_DIMENSIONS:
        raise CheckpointError(f"this checkpoint has a tensor with {len(shape)} dimensions")
    return tuple(map(checked_size, shape))


def _key(name: str) -> str:
    if len(name) > MAX_KEY_LENGTH or not name.isprintable():
        raise CheckpointError(
            "this checkpoint has a tensor name that is too long or not printable", hint="do not trust this file"
        )
    return name


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))

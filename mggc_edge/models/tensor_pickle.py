"""Rebuild the table of contents of a torch.save file from its pickle, and nothing else.

A pickle is a program. This one may only build dictionaries, lists, text and numbers, and describe tensors by where
their data are: opcodes that torch.save does not write are unknown, every name that is not on a short list is refused,
and no more bytes are read, and no more steps done, than the caller allows.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO

from mggc_edge.errors import CheckpointError

# Element size in bytes by torch's name of the type.
ELEMENT_BYTES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
MAX_STEPS = 2**19  # one opcode of one byte can take 70 bytes of memory; a real file has some 60 steps a tensor
MAX_DIMENSIONS = 8
_STORAGE_TYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip


@dataclass(frozen=True)
class _StorageType:
    dtype: str | None


@dataclass(frozen=True)
class Storage:
    """A run of elements in the file, which tensors look into; `dtype` None: untyped, counted in bytes."""

    key: str
    dtype: str | None
    elements: int

    @property
    def size_bytes(self) -> int:
        """Bytes of its elements."""
        return self.elements * ELEMENT_BYTES[self.dtype or "uint8"]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the pickle describes it: a view of a storage, offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class BoundedReader:
    """A binary file of which at most `limit` bytes may be read; a read beyond is an error before memory is taken."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._left = limit
        self._steps = MAX_STEPS

    def spend(self, steps: int) -> None:
        """Count what a pickle makes its reader do: reads, and elements that are copied."""
        self._steps -= steps
        if self._steps < 0:
            raise CheckpointError("the checkpoint's table of contents is too long", hint="save the weights alone")

    def read(self, count: int) -> bytes:
        """Return exactly `count` bytes; EOFError when there are not as many."""
        self.spend(1)
        if not 0 <= count <= self._left:
            raise EOFError("a pickle reaches beyond its end")
        self._left -= count
        data = self._file.read(count)
        if len(data) != count:
            raise EOFError("a pickle is cut off")
        return data

    def readline(self) -> bytes:
        """Return the next line, at most 4096 bytes of it."""
        line = self._file.readline(min(self._left, 4096))
        self._left -= len(line)
        return line


class TensorPickle(pickle._Unpickler):  # noqa: SLF001  (the Python form: its opcodes can be limited)
    """Rebuilds dictionaries, lists and tensor headers from a pickle, and nothing else.

    Only opcodes that torch.save writes are known, and the few names it uses map to descriptions. Tuples become lists,
    which are not hashable: nested tuples as dictionary keys could otherwise take forever.
    """

    def __init__(self, reader: BoundedReader) -> None:
        super().__init__(reader)
        self.spend = reader.spend
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name that torch.save uses; CheckpointError for every other."""
        if (module, name) == ("collections", "OrderedDict"):
            return self._ordered_dict
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return _rebuild_parameter
        if module in ("torch", "torch.storage", "torch.cuda") and name in _STORAGE_TYPES:
            return _StorageType(_STORAGE_TYPES[name])
        if (module, name) == ("torch.storage", "UntypedStorage"):
            return _StorageType(None)
        if module == "torch" and name in ("Size", "device"):
            return _as_list
        if module == "torch" and name in ELEMENT_BYTES:
            return name
        raise CheckpointError(
            f"refused: loading this file would run or build '{module}.{name}', and a checkpoint may only hold tensors",
            hint="save the weights alone: torch.save(net.state_dict(), path)",
        )

    def persistent_load(self, pid: Any) -> Storage:
        """Return the storage that a persistent id ("storage", type, key, location, elements) names."""
        tag, kind, key, _location, elements = pid[:5]
        if tag != "storage" or not isinstance(kind, _StorageType) or not isinstance(key, str):
            raise CheckpointError("this checkpoint refers to something that is no tensor")
        if len(pid) > 5 and pid[5] is not None:
            raise CheckpointError("this checkpoint uses views of storages, which only PyTorch before 0.4 wrote")
        storage = Storage(key, kind.dtype, checked_size(elements))
        if self.storages.setdefault(key, storage) != storage:
            raise CheckpointError("this checkpoint describes the same tensor data in two ways")
        return storage

    def _ordered_dict(self, pairs: Any = ()) -> dict[Any, Any]:
        self.spend(len(pairs))
        return _filled(OrderedDict(), pairs)


def _load_empty_tuple(unpickler: Any) -> None:
    unpickler.append([])


def _load_tuple(unpickler: Any) -> None:
    items = unpickler.pop_mark()  # puts the outer stack back, so it must come first
    unpickler.append(items)


def _load_short_tuple(count: int) -> Callable[[Any], None]:
    def load(unpickler: Any) -> None:
        unpickler.stack[-count:] = [unpickler.stack[-count:]]

    return load


def _load_set_item(unpickler: Any) -> None:
    value, key = unpickler.stack.pop(), unpickler.stack.pop()
    _filled(unpickler.stack[-1], [(key, value)])


def _load_set_items(unpickler: Any) -> None:
    items = unpickler.pop_mark()
    _filled(unpickler.stack[-1], zip(items[::2], items[1::2], strict=True))


def _filled(holder: Any, pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Put `pairs` into a dictionary. Whole numbers as keys must be small: large ones can be made to collide."""
    for key, value in pairs:
        if not isinstance(holder, dict) or not (
            isinstance(key, (str, float)) or (isinstance(key, int) and abs(key) < 2**32)
        ):
            raise CheckpointError("this checkpoint has a dictionary that makes no sense")
        holder[key] = value
    return holder  # type: ignore[no-any-return]


def _load_reduce(unpickler: Any) -> None:
    arguments = unpickler.stack.pop()
    unpickler.spend(len(arguments))  # they are copied
    unpickler.stack[-1] = unpickler.stack[-1](*arguments)


def _load_build(unpickler: Any) -> None:
    # Attributes of a state dict (its _metadata) are not needed, and nothing else that is known here may have any set.
    unpickler.stack.pop()
    if not isinstance(unpickler.stack[-1], OrderedDict):
        raise CheckpointError("this checkpoint describes something other than dictionaries of tensors")


_OPCODES = (
    pickle.PROTO, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE,
    pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT,
    pickle.BINUNICODE, pickle.SHORT_BINSTRING, pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS,
    pickle.EMPTY_DICT, pickle.GLOBAL, pickle.BINPERSID,
    pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET,
)  # fmt: skip


class _Opcodes(dict[int, Callable[[Any], None]]):
    def __missing__(self, opcode: int) -> Callable[[Any], None]:
        raise CheckpointError(
            "refused: this is a Python pickle that torch.save did not write, and it is not run",
            hint="save the weights alone: torch.save(net.state_dict(), path)",
        )


TensorPickle.dispatch = _Opcodes(
    {
        **{opcode[0]: pickle._Unpickler.dispatch[opcode[0]] for opcode in _OPCODES},  # noqa: SLF001
        pickle.EMPTY_TUPLE[0]: _load_empty_tuple,
        pickle.TUPLE[0]: _load_tuple,
        pickle.TUPLE1[0]: _load_short_tuple(1),
        pickle.TUPLE2[0]: _load_short_tuple(2),
        pickle.TUPLE3[0]: _load_short_tuple(3),
        pickle.SETITEM[0]: _load_set_item,
        pickle.SETITEMS[0]: _load_set_items,
        pickle.REDUCE[0]: _load_reduce,
        pickle.BUILD[0]: _load_build,
    }
)


def _as_list(*values: Any) -> list[Any]:
    return list(values)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> StoredTensor:
    # rest: requires_grad, backward hooks, and a dictionary if the elements are to be read negated or conjugated
    if not isinstance(storage, Storage) or len(shape) != len(stride) or any(rest[2:]):
        raise CheckpointError("this checkpoint has a tensor that makes no sense")
    if len(shape) > MAX_DIMENSIONS:
        raise CheckpointError(f"this checkpoint has a tensor with {len(shape)} dimensions")
    return StoredTensor(
        storage, checked_size(offset), tuple(map(checked_size, shape)), tuple(map(checked_size, stride))
    )


def _rebuild_parameter(data: Any, *_rest: Any) -> Any:
    return data


def checked_size(value: Any) -> int:
    """Return `value` if it is a possible size, offset or stride; CheckpointError otherwise."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise CheckpointError("this checkpoint has a tensor with an impossible size")
    return value

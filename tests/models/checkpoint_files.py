"""Checkpoint files for the tests: written by torch and safetensors, or byte by byte where those would refuse."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from mggc_edge.errors import CheckpointError
from mggc_edge.models.checkpoint import read_checkpoint
from mggc_edge.models.network import Network
from mggc_edge.models.weights import load_network

Format = Literal["zip", "legacy", "safetensors"]
FORMATS: tuple[Format, ...] = ("zip", "legacy", "safetensors")
State = dict[str, Tensor]


def state_of(network: torch.nn.Module) -> State:
    """A copy of a network's state dict."""
    return {key: value.clone() for key, value in network.state_dict().items()}


def saved(path: Path, content: object, form: Format = "zip") -> Path:
    """Write `content` as torch or safetensors do, and return the path."""
    if form == "safetensors":
        from safetensors.torch import save_file

        assert isinstance(content, Mapping)
        save_file(dict(content), path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    return path


def assert_same_weights(network: Network, state: Mapping[str, Tensor]) -> None:
    """Every tensor that the network's table lists is in `state`, bit for bit."""
    own = network.state_dict()
    for key in network.table.tensors:
        assert own[key].dtype == torch.float32
        assert torch.equal(own[key], state[key]), key


def assert_loads(path: Path, network: Network, **options: Any) -> Network:
    """The file gives this network back: its spec and every weight; return what was loaded."""
    loaded = load_network(path, **options)
    assert loaded.spec == network.spec
    assert_same_weights(loaded, network.state_dict())
    assert not loaded.training
    return loaded


def refusal(path: Path, **options: Any) -> CheckpointError:
    """The error with which the file is refused, by both of the functions that read it."""
    with pytest.raises(CheckpointError) as read:
        read_checkpoint(path, **options)
    with pytest.raises(CheckpointError) as loaded:
        load_network(path, **options)
    if not path.is_dir():
        assert str(read.value) == str(loaded.value)
    return loaded.value


# --- written byte by byte ---


@dataclass(frozen=True)
class FakeStorage:
    """What a checkpoint says of a run of elements."""

    elements: Any
    key: str = "0"
    kind: str = "FloatStorage"


@dataclass(frozen=True)
class FakeTensor:
    """What a checkpoint says of a tensor."""

    shape: tuple[Any, ...]
    stride: tuple[Any, ...]
    storage: Any
    offset: Any = 0


class _Pickler(pickle.Pickler):
    def __init__(self, file: BytesIO) -> None:
        super().__init__(file, protocol=2)
        self.keys: list[str] = []

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, FakeStorage):
            return None
        if obj.key not in self.keys:
            self.keys.append(obj.key)
        return ("storage", getattr(torch, obj.kind), obj.key, "cpu", obj.elements)

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, FakeTensor):
            rebuild = torch._utils._rebuild_tensor_v2
            return rebuild, (obj.storage, obj.offset, obj.shape, obj.stride, False, OrderedDict())
        return NotImplemented


def pickled(content: object) -> tuple[bytes, list[str]]:
    """The pickle that torch.save would write for fake tensors, and the keys of their storages."""
    file = BytesIO()
    pickler = _Pickler(file)
    pickler.dump(content)
    return file.getvalue(), pickler.keys


def zipped(path: Path, entries: Mapping[str, bytes], *, compressed: bool = False) -> Path:
    """Write a zip archive with these entries."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def zip_of(path: Path, content: object, data: bytes = b"", **extra: bytes) -> Path:
    """Write a checkpoint of the zip format whose every storage is `data`."""
    table, keys = content if isinstance(content, tuple) else pickled(content)
    entries = {"archive/data.pkl": table, **{f"archive/{name}": value for name, value in extra.items()}}
    return zipped(path, {**entries, **{f"archive/data/{key}": data for key in keys}})


def legacy_of(path: Path, content: object, elements: int, data: bytes, keys: object = None) -> Path:
    """Write a checkpoint of the older format whose every storage is `elements` elements of `data`."""
    table, found = pickled(content)
    info = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, info)]
    parts += [table, pickle.dumps(found if keys is None else keys, protocol=2)]
    path.write_bytes(b"".join(parts) + b"".join(struct.pack("<q", elements) + data for _ in found))
    return path


def safetensors_of(path: Path, header: bytes, data: bytes = b"") -> Path:
    """Write a safetensors file with this header."""
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path

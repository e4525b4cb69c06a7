"""Weights of a ResNet-50 out of a file that torchvision's users or SwAV wrote. The file is not trusted.

Known layouts, with any number of `module.` before every name, bare or below the key `state_dict`:

    torchvision  the trunk, and fc.weight [classes, 2048], fc.bias, which are left out
    SwAV         the trunk, and projection_head.{0,1,3}.*, prototypes.*: the head is kept, prototypes are left out

`num_batches_tracked` may be missing: PyTorch before 0.4.1 wrote none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mggc_edge.errors import CheckpointError
from mggc_edge.models.state_file import TensorHeader, read_state_file
from mggc_edge.models.tensor_data import NUMPY_TYPES, as_float32, is_finite, mapped, stored_values
from mggc_edge.pruning.mggc.resnet50 import ResNet50

HEAD, COUNTER = "projection_head.", "num_batches_tracked"
_LEFT_OUT = re.compile(r"fc\.(weight|bias)|prototypes\.(prototypes\d+\.)?weight")
_SHOWN = 3  # names in a message
_HINT = "give a ResNet-50 of torchvision, or one that SwAV trained (its projection head has the size 2048)"


@dataclass(frozen=True)
class ResNet50File:
    """A file whose headers are those of a ResNet-50. `head`: of SwAV's projection head, empty where there is none."""

    path: Path
    trunk: Mapping[str, TensorHeader]
    head: Mapping[str, TensorHeader]


def read_resnet50(path: Path, *, max_bytes: int) -> ResNet50File:
    """Read the headers of a file, and hold them against the layouts of torchvision and SwAV.

    Raises:
        CheckpointError: the file cannot be read, has more than `max_bytes`, or holds something else.
    """
    tree = read_state_file(path, max_bytes).tree
    inner = tree.get("state_dict", tree)
    headers: dict[str, TensorHeader] = {}
    for name, header in (inner if isinstance(inner, Mapping) else tree).items():
        if isinstance(header, TensorHeader):
            bare = re.sub(r"^(?:module\.)+", "", name)
            if bare in headers:
                raise CheckpointError(f"'{path}' has the tensor '{bare}' twice, with and without 'module.'")
            headers[bare] = header
    with torch.device("meta"):
        network = ResNet50()
        wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        head = {f"{HEAD}{name}": tuple(value.shape) for name, value in network.projection().state_dict().items()}
    has_head = any(name.startswith(HEAD) for name in headers)
    _check(path, headers, {**wanted, **(head if has_head else {})})
    return ResNet50File(
        path,
        {name: headers[name] for name in wanted if name in headers},
        {name.removeprefix(HEAD): headers[name] for name in head if name in headers},
    )


def _check(path: Path, headers: Mapping[str, TensorHeader], wanted: Mapping[str, tuple[int, ...]]) -> None:
    missing = [name for name in wanted if name not in headers and not name.endswith(COUNTER)]
    more = [name for name in headers if name not in wanted and not _LEFT_OUT.fullmatch(name)]
    if missing or more:
        parts = [f"{word} {_some(names)}" for word, names in (("is missing", missing), ("has", more)) if names]
        raise CheckpointError(f"'{path}' is no ResNet-50: it {' and '.join(parts)}", hint=_HINT)
    for name, shape in wanted.items():
        header = headers.get(name)
        if header is None:
            continue
        if header.shape != shape:
            raise CheckpointError(
                f"'{path}' is no ResNet-50: '{name}' has the shape {list(header.shape)}, not {list(shape)}", hint=_HINT
            )
        if not name.endswith(COUNTER) and header.dtype not in NUMPY_TYPES:
            raise CheckpointError(f"'{path}': '{name}' has element type {header.dtype}, but weights are floats")


def _some(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def load_resnet50(file: ResNet50File, network: ResNet50) -> nn.Module | None:
    """Give `network` the weights of a file; return the projection head that it brings, None where it has none.

    Raises:
        CheckpointError: a weight is NaN or infinite, a variance below 0, or the file was changed since it was read.
    """
    _load(file.path, file.trunk, network)
    if not file.head:
        return None
    head = network.projection()
    _load(file.path, file.head, head)
    return head


def _load(path: Path, headers: Mapping[str, TensorHeader], module: nn.Module) -> None:
    data = mapped(path)
    state = module.state_dict()
    with torch.no_grad():
        for name, header in headers.items():
            if name.endswith(COUNTER):  # of no use: the average of the statistics does not depend on it
                continue
            values = stored_values(path, data, header)
            if not is_finite(values, header.dtype) or (name.endswith("running_var") and values.min() < 0):
                raise CheckpointError(
                    f"'{path}': '{name}' has values that no network has: NaN, infinite, or a variance below 0",
                    hint="take an earlier checkpoint",
                )
            state[name].copy_(torch.from_numpy(as_float32(values, header.dtype)))

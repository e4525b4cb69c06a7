"""Weights of a ResNet-50 out of a file that torchvision's users or SwAV wrote. The file is not trusted.

Known layouts, with any number of `module.` before every name, bare or below the key `state_dict`:

    torchvision  the trunk, and fc.weight [classes, 2048], fc.bias, which are left out
    SwAV         the trunk, and projection_head.{0,1,3}.*, prototypes.*: the head is kept, prototypes are left out

`num_batches_tracked` may be missing, and is left out: PyTorch before 0.4.1 wrote none.
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
from mggc_edge.models.tensor_layout import COUNTER, check_layout
from mggc_edge.models.tensor_values import check_finite, read_values
from mggc_edge.pruning.mggc.resnet50 import ResNet50

HEAD = "projection_head."
_LEFT_OUT = r"fc\.(weight|bias)|prototypes\.(prototypes\d+\.)?weight"
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
        trunk, head = _shapes(network), _shapes(network.projection(), HEAD)
    if not any(name.startswith(HEAD) for name in headers):
        head = {}
    headers = check_layout(path, headers, {**trunk, **head}, otherwise="no ResNet-50", left_out=_LEFT_OUT, hint=_HINT)
    return ResNet50File(
        path,
        {name: headers[name] for name in trunk},
        {name.removeprefix(HEAD): headers[name] for name in head},
    )


def _shapes(module: nn.Module, prefix: str = "") -> dict[str, tuple[int, ...]]:
    state = module.state_dict(prefix=prefix)
    return {name: tuple(value.shape) for name, value in state.items() if not name.endswith(COUNTER)}


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
    check_finite(path, headers)
    state = module.state_dict()
    with torch.no_grad():
        for name, values in read_values(path, headers):
            if name.endswith("running_var") and values.min() < 0:
                raise CheckpointError(f"'{path}': '{name}' has a variance below 0", "take an earlier checkpoint")
            state[name].copy_(torch.from_numpy(values))

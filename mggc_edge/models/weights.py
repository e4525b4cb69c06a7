"""Weights into and out of networks: load a checkpoint, save spec.json + weights.safetensors, hash what was loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mggc_edge.artifacts import SPEC_FILE, WEIGHTS_FILE, atomic_path
from mggc_edge.errors import CheckpointError
from mggc_edge.lazy import require
from mggc_edge.models.checkpoint import MAX_BYTES, Checkpoint, Direction, read_checkpoint, read_network_folder
from mggc_edge.models.families import layer_table
from mggc_edge.models.family import NormStats
from mggc_edge.models.layers import Size
from mggc_edge.models.network import Network


def load_network(
    path: str | Path,
    *,
    direction: Direction = "AtoB",
    norm_stats: NormStats = "instance",
    image_size: Size | None = None,
    max_bytes: int = MAX_BYTES,
) -> Network:
    """Load the network of a checkpoint file, or of a folder with spec.json and weights.safetensors, in float32.

    The network is in evaluation mode, which is the reference for every comparison. Arguments as in `read_checkpoint`.

    Raises:
        CheckpointError: see `read_checkpoint`.
        SpecError: the network cannot run at `image_size`.
    """
    path = Path(path)
    if path.is_dir():
        checkpoint = read_network_folder(path, max_bytes=max_bytes)
    else:
        checkpoint = read_checkpoint(path, direction=direction, norm_stats=norm_stats, max_bytes=max_bytes)
    return load_weights(checkpoint, image_size)


def load_weights(checkpoint: Checkpoint, image_size: Size | None = None) -> Network:
    """Build the network of a checkpoint that has been read, and load its weights as float32.

    Raises:
        CheckpointError: the weights cannot be read after all.
        SpecError: the network cannot run at `image_size`.
    """
    with torch.device("meta"):  # weights come from the file: none are drawn
        network = Network(checkpoint.spec, layer_table(checkpoint.spec, image_size))
    tree = _load_tree(checkpoint)
    state: dict[str, Tensor] = {}
    for key, entry in checkpoint.tensors.items():
        value: Any = tree
        for part in entry.path:
            value = value[part]
        # A copy, so that the network does not hang on the mapped file.
        state[key] = value.detach().to(torch.float32, copy=True).contiguous()
    state.update({key: torch.zeros((), dtype=torch.long) for key in network.state_dict() if key not in state})
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()


def save_network(network: Network, folder: Path) -> None:
    """Write spec.json and weights.safetensors into `folder`, each to a temporary file that is then renamed."""
    safetensors = require("safetensors.torch", extra="torch")
    folder.mkdir(parents=True, exist_ok=True)
    state = network.state_dict()
    tensors = {key: state[key].detach().contiguous() for key in network.table.tensors}
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        temporary.write_bytes(safetensors.save(tensors))
    with atomic_path(folder / SPEC_FILE) as temporary:
        temporary.write_text(network.spec.dumps(), encoding="utf-8")


def weights_sha256(network: Network) -> str:
    """Return a hash of a network's spec and weights that does not depend on the file they came from."""
    digest = hashlib.sha256(json.dumps(network.spec.to_json(), sort_keys=True).encode())
    state = network.state_dict()
    for key in sorted(network.table.tensors):
        digest.update(key.encode())
        digest.update(state[key].detach().to(torch.float32).cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _load_tree(checkpoint: Checkpoint) -> Mapping[str, Any]:
    try:
        if checkpoint.format == "safetensors":
            tensors: dict[str, Any] = require("safetensors.torch", extra="torch").load_file(str(checkpoint.path))
            return tensors
        tree: dict[str, Any] = torch.load(
            checkpoint.path, map_location="cpu", weights_only=True, mmap=checkpoint.format == "zip"
        )
        return tree
    except MemoryError:
        raise
    except Exception as error:  # the headers were in order; whatever is wrong is in the file
        raise CheckpointError(
            f"'{checkpoint.path}' is damaged ({type(error).__name__} while loading its weights)",
            hint="is the file complete? compare its size or checksum with the original's",
        ) from error

"""Weights into and out of networks: load a checkpoint, save spec.json + weights.safetensors, hash what was loaded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from mggc_edge.artifacts import SPEC_FILE, WEIGHTS_FILE, atomic_write, sha256_of, writing
from mggc_edge.errors import CheckpointError, SpecError
from mggc_edge.lazy import require
from mggc_edge.models.checkpoint import (
    MAX_BYTES,
    Checkpoint,
    Direction,
    read_checkpoint,
    read_network_folder,
    read_weights,
)
from mggc_edge.models.fake_quant import input_grid
from mggc_edge.models.families import layer_table
from mggc_edge.models.family import NormStats
from mggc_edge.models.layers import INPUT_GRID, Size
from mggc_edge.models.network import Network
from mggc_edge.models.spec import LATER_FIELDS


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
        CheckpointError: the weights cannot be read after all, or a grid is none.
        SpecError: the network cannot run at `image_size`.
    """
    # Straight from the places that the headers name: no other reader of the format can see another file in it.
    tensors = {key: torch.from_numpy(values) for key, values in read_weights(checkpoint)}
    table = layer_table(checkpoint.spec, image_size)
    for layer in table.layers:
        if layer.quantized_input:
            try:
                input_grid(*(tensors[f"{layer.name}.{name}"] for name in INPUT_GRID))
            except SpecError as error:
                raise CheckpointError(f"'{checkpoint.path}' is damaged: layer {layer.name}: {error}") from error
    return Network.from_tensors(checkpoint.spec, table, tensors).eval()


def save_network(network: Network, folder: str | Path) -> None:
    """Write spec.json and weights.safetensors into `folder`, each to a temporary file that is then renamed."""
    safetensors = require("safetensors.torch", extra="torch")
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    state = network.state_dict()
    tensors = {key: state[key].detach().contiguous() for key in network.table.tensors}
    atomic_write(folder / WEIGHTS_FILE, safetensors.save(tensors))
    atomic_write(folder / SPEC_FILE, network.spec.dumps().encode())


def weights_file_sha256(path: str | Path) -> str:
    """Return the hash of a checkpoint file, or of the weights in the folder of a saved network."""
    path = Path(path)
    return sha256_of(path / WEIGHTS_FILE if path.is_dir() else path)


def weights_sha256(network: Network) -> str:
    """Return a hash of a network's spec and weights that does not depend on the file they came from."""
    spec = {**network.spec.to_json(), "dropout": None}  # which no weight knows of
    for name, usual in LATER_FIELDS.items():  # hashes that were taken before there were such fields still hold
        if spec[name] == usual:
            del spec[name]
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode())
    state = network.state_dict()
    for key in sorted(network.table.tensors):
        digest.update(key.encode())
        digest.update(state[key].detach().to(torch.float32).cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

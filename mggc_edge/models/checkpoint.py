"""Find out which network a checkpoint holds, from the names and shapes of its tensors alone. No torch in here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from mggc_edge.artifacts import SPEC_FILE, WEIGHTS_FILE
from mggc_edge.errors import CheckpointError, SpecError
from mggc_edge.models.families import family_of, infer_spec, layer_table
from mggc_edge.models.family import NormStats, Role, Shapes
from mggc_edge.models.layers import LayerTable
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.state_file import FileFormat, StateFile, TensorHeader, read_state_file
from mggc_edge.models.tensor_layout import some
from mggc_edge.models.tensor_values import FLOATING, check_finite, read_values
from mggc_edge.tensors import FloatArray

Direction = Literal["AtoB", "BtoA"]
MAX_BYTES = 4 * 2**30
MAX_SPEC_BYTES = 2**20

_PREFIXED = re.compile(r"((?:\w+\.)*?)(model\.(?:\d+|model)\..+|(?:conv|deconv|in)\d+_\d+\.\w+|conv\d+\.constant)$")
_PROFILER_KEYS = ("total_ops", "total_params")
_DIRECTIONS: Mapping[Direction, re.Pattern[str]] = {
    "AtoB": re.compile(r"(G_?A|A2B|AtoB|AB)\.?$", re.IGNORECASE),
    "BtoA": re.compile(r"(G_?B|B2A|BtoA|BA)\.?$", re.IGNORECASE),
}


@dataclass(frozen=True)
class Entry:
    """A tensor of the chosen network: the keys that lead to it from the root of the file, and its header."""

    path: tuple[str, ...]
    header: TensorHeader


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file whose network is known and complete.

    Attributes:
        name: where in the file the network was, such as "netG_A"; empty for a bare state dict.
        tensors: every tensor that the network needs, by the key that the network gives it.
        ignored: keys that were there and mean nothing to this network (left-over statistics, profiler buffers).
        others: names of the other networks in the same file.
        filled: tensors that the file leaves out because they are constant, by key.
    """

    path: Path
    format: FileFormat
    size_bytes: int
    spec: NetworkSpec
    name: str
    tensors: Mapping[str, Entry]
    ignored: tuple[str, ...]
    others: tuple[str, ...]
    filled: Mapping[str, float] = field(default_factory=dict)

    @property
    def role(self) -> Role:
        """Whether it is a generator or a discriminator."""
        return family_of(self.spec).role


@dataclass(frozen=True)
class _Candidate:
    name: str
    entries: Mapping[str, Entry]
    ignored: tuple[str, ...]
    outcome: NetworkSpec | CheckpointError


def read_checkpoint(
    path: Path,
    *,
    direction: Direction = "AtoB",
    norm_stats: NormStats = "instance",
    spec: NetworkSpec | None = None,
    max_bytes: int = MAX_BYTES,
) -> Checkpoint:
    """Read which network a file holds: its spec, and where every one of its tensors is.

    Every weight is looked at once, for NaN and infinite values, through a map of the file; none is kept in memory.

    Args:
        path: a .pth, .pt or .safetensors file.
        direction: which generator to take where the file holds both of a CycleGAN.
        norm_stats: "running" takes running statistics in a file of instance norms at their word.
        spec: what the network is, where that is known; otherwise it is inferred.
        max_bytes: a larger file is refused.

    Raises:
        CheckpointError: the file is unreadable, unsafe, holds no known network, misses tensors, has unexpected ones, or
            has one with NaN or infinite values.
    """
    file = read_state_file(path, max_bytes)
    if spec is None:
        candidates = [_candidate(name, entries, norm_stats) for name, entries in _groups(file)]
        chosen = _choose(candidates, direction, path)
    else:
        entries = {key: Entry((key,), value) for key, value in file.tree.items() if isinstance(value, TensorHeader)}
        candidates = [chosen := _Candidate("", entries, (), spec)]
    checkpoint = _complete(file, chosen, tuple(c.name for c in candidates if c is not chosen and _is_network(c)))
    check_finite(checkpoint.path, _headers(checkpoint))
    return checkpoint


def read_network_folder(folder: Path, *, max_bytes: int = MAX_BYTES) -> Checkpoint:
    """Read spec.json and the headers of weights.safetensors in `folder`; the two must describe the same network.

    Raises:
        CheckpointError: one of them is missing, damaged, or does not fit the other.
    """
    try:
        if (folder / SPEC_FILE).stat().st_size > MAX_SPEC_BYTES:
            raise CheckpointError(f"'{folder / SPEC_FILE}' is too large for a network description")
        spec = NetworkSpec.from_json(json.loads((folder / SPEC_FILE).read_text(encoding="utf-8")))
    except OSError:
        raise CheckpointError(f"'{folder}' is a folder without a {SPEC_FILE}, so no saved network") from None
    except (ValueError, RecursionError, SpecError) as error:
        raise CheckpointError(f"'{folder / SPEC_FILE}' is damaged: {error}") from error
    return read_checkpoint(folder / WEIGHTS_FILE, spec=spec, max_bytes=max_bytes)


def _is_network(candidate: _Candidate) -> bool:
    return isinstance(candidate.outcome, NetworkSpec)


def _groups(file: StateFile) -> Iterator[tuple[str, dict[str, Entry]]]:
    """Yield (name, tensors by key) for everything in the file that may be a network of its own.

    A dictionary may hold several, told apart by the prefixes of their keys ("netG_A.model.1.weight").
    """

    def walk(tree: Mapping[str, object], path: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Entry]]]:
        groups: dict[str, dict[str, Entry]] = {}
        for key, value in tree.items():
            if isinstance(value, TensorHeader):
                bare = re.sub(r"^(?:module\.)+|(?<=\.)(?:module\.)+", "", key)
                match = _PREFIXED.match(bare)
                prefix, inner = (match[1], match[2]) if match else ("", bare)
                group = groups.setdefault(prefix, {})
                if inner in group:
                    raise CheckpointError(f"'{file.path}' has the tensor '{inner}' twice, with and without 'module.'")
                group[inner] = Entry((*path, key), value)
            elif isinstance(value, Mapping):
                yield from walk(value, (*path, key))
        for prefix, group in groups.items():
            yield ".".join((*path, prefix.removesuffix("."))).strip("."), group

    yield from walk(file.tree, ())


def _candidate(name: str, entries: Mapping[str, Entry], norm_stats: NormStats) -> _Candidate:
    kept = {key: entry for key, entry in entries.items() if not key.endswith(_PROFILER_KEYS)}
    ignored = tuple(key for key in entries if key not in kept)
    holder = "model."
    attempts = [kept]
    if all(key.startswith(holder + holder) for key in kept):  # a network held by an attribute called `model`
        attempts.append({key.removeprefix(holder): entry for key, entry in kept.items()})
    outcome: NetworkSpec | CheckpointError | None = None
    for attempt in attempts:
        shapes: Shapes = {key: entry.header.shape for key, entry in attempt.items()}
        try:
            return _Candidate(name, attempt, ignored, infer_spec(shapes, norm_stats))
        except CheckpointError as error:
            outcome = outcome or error
    assert outcome is not None
    return _Candidate(name, kept, ignored, outcome)


def _choose(candidates: list[_Candidate], direction: Direction, path: Path) -> _Candidate:
    if not candidates:
        raise CheckpointError(f"'{path}' holds no tensors by name")
    networks = [candidate for candidate in candidates if _is_network(candidate)]
    if not networks:
        outcome = max(candidates, key=lambda candidate: len(candidate.entries)).outcome
        assert isinstance(outcome, CheckpointError)
        raise CheckpointError(f"'{path}': {outcome.message}", outcome.hint)
    generators = [
        c for c in networks if isinstance(c.outcome, NetworkSpec) and family_of(c.outcome).role == "generator"
    ]
    choice = generators or networks
    if len(choice) > 1:
        choice = [candidate for candidate in choice if _DIRECTIONS[direction].search(candidate.name)]
    if len(choice) != 1:
        names = some([candidate.name for candidate in generators or networks])
        raise CheckpointError(
            f"'{path}' holds several networks ({names}), and their names do not say which one is {direction}",
            hint="save the one you mean in a file of its own",
        )
    return choice[0]


def _complete(file: StateFile, candidate: _Candidate, others: tuple[str, ...]) -> Checkpoint:
    """Hold every tensor against the layer table: nothing may be missing, unexpected or of another shape."""
    spec = candidate.outcome
    assert isinstance(spec, NetworkSpec)
    where = f"'{file.path}'" + (f" ('{candidate.name}')" if candidate.name else "")
    try:
        table = layer_table(spec)
    except SpecError as error:
        raise CheckpointError(f"{where} describes no network: {error.message}", error.hint) from error
    norms = {layer.norm for layer in table.layers if layer.norm_kind in ("instance", "instance_affine")}
    what = family_of(spec).title(spec)
    tensors, ignored, unexpected = {}, list(candidate.ignored), []
    for key, entry in candidate.entries.items():
        owner, _, last = key.rpartition(".")
        if key in table.tensors:
            tensors[key] = entry
        elif last == "num_batches_tracked" or (owner in norms and last in ("running_mean", "running_var")):
            ignored.append(key)
        else:
            unexpected.append(key)
    filled = _unit_scales(table, tensors)
    missing = [key for key in table.tensors if key not in tensors and key not in filled]
    if missing or unexpected:
        parts = [
            f"{word} {some(keys)}" for word, keys in (("is missing", missing), ("has unexpected", unexpected)) if keys
        ]
        raise CheckpointError(
            f"{where} looks like {what}, but {' and '.join(parts)}",
            hint="is it a fork of the network, or a part of one?",
        )
    for key, entry in tensors.items():
        if entry.header.shape != table.tensors[key].shape:
            raise CheckpointError(
                f"{where} looks like {what}, but '{key}' has shape {list(entry.header.shape)} where the layers around "
                f"it need {list(table.tensors[key].shape)}"
            )
        if entry.header.dtype not in FLOATING:
            raise CheckpointError(f"{where}: '{key}' has element type {entry.header.dtype}, but weights are floats")
    if sum(entry.header.size_bytes for entry in tensors.values()) > file.size_bytes:
        raise CheckpointError(f"{where} claims more tensor data than the file has", hint="do not trust this file")
    return Checkpoint(
        file.path, file.format, file.size_bytes, spec, candidate.name, tensors, tuple(ignored), others, filled
    )


def _unit_scales(table: LayerTable, tensors: Mapping[str, Entry]) -> dict[str, float]:
    """Return gamma = 1 and beta = 0 for norms without parameters, where a known kind of network leaves out just those.

    All norms, with running statistics: plain instance norms whose statistics are taken at their word, as batch norms.
    Those that write the trunk, in a network of affine instance norms: GAN Slimming (ECCV 2020), which never prunes it.
    """
    batch = [layer for layer in table.layers if layer.norm_kind == "batch"]
    trunk = [layer for layer in table.layers if layer.norm_kind == "instance_affine" and layer.output == "trunk"]
    values: dict[str, float] = {}
    for layer in batch or trunk:
        scale, shift = layer.norm_parameters
        values |= {f"{layer.norm}.{scale}": 1.0, f"{layer.norm}.{shift}": 0.0}
    return {} if any(key in tensors for key in values) else values


def read_weights(checkpoint: Checkpoint) -> Iterator[tuple[str, FloatArray]]:
    """Yield (key, values) for every tensor of the network, copied from where its header says, as float32.

    Raises:
        CheckpointError: the file cannot be read after all.
    """
    table = layer_table(checkpoint.spec)
    for key, value in checkpoint.filled.items():
        yield key, np.full(table.tensors[key].shape, value, np.float32)
    yield from read_values(checkpoint.path, _headers(checkpoint))


def _headers(checkpoint: Checkpoint) -> dict[str, TensorHeader]:
    return {key: entry.header for key, entry in checkpoint.tensors.items()}

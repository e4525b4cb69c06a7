"""Open anything that runs: a checkpoint, a saved network, a run folder, or a file for an engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mggc_edge.artifacts import MANIFEST_FILE, METADATA_PREFIX, SPEC_FILE, read_manifest
from mggc_edge.backends.base import BaseRunner, Runner
from mggc_edge.backends.registry import OPENERS, open_artifact
from mggc_edge.errors import ArtifactError, InputError
from mggc_edge.pictures import PictureFormat, Size

if TYPE_CHECKING:
    from mggc_edge.models.checkpoint import Direction
    from mggc_edge.models.convert import BatchNormMode
    from mggc_edge.models.family import NormStats

Kind = Literal["checkpoint", "network", "spec", "plan", "artifact", "run"]
MAX_JSON_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Geometry:
    """What a runner takes and gives as pictures: size (None: any), format of input and output, batch-norm mode."""

    image_size: Size | None
    input_format: PictureFormat
    output_format: PictureFormat
    bn: str


@dataclass(frozen=True)
class Source:
    """A path whose kind is known."""

    path: Path
    kind: Kind


def what_is(path: Path) -> Source:
    """Return what a path is, without reading more than a few bytes of it.

    Raises:
        InputError: there is nothing at the path, or a folder that is neither a run nor a saved network.
    """
    if path.is_dir():
        if (path / MANIFEST_FILE).is_file():
            return Source(path, "run")
        if (path / SPEC_FILE).is_file():
            return Source(path, "network")
        raise InputError(
            f"'{path}' is a folder without {MANIFEST_FILE} or {SPEC_FILE}",
            hint="give a checkpoint file, a run folder, or a folder with a saved network",
        )
    if not path.exists():
        raise InputError(f"there is no file '{path}'")
    if path.suffix.lower() in OPENERS:
        return Source(path, "artifact")
    if path.suffix.lower() == ".json":
        return Source(path, _json_kind(path))
    return Source(path, "checkpoint")


def _json_kind(path: Path) -> Kind:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputError(f"'{path}' is too large for a spec or a plan")
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is no JSON document: {error}") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    for kind in ("spec", "plan"):
        if schema == f"mggc-edge/{kind}/1":
            return "spec" if kind == "spec" else "plan"
    raise InputError(f"'{path}' is neither a network description nor a pruning plan: its schema is {schema!r}")


def run_artifact(folder: Path) -> Path:
    """Return the generator's ONNX file of a run folder.

    Raises:
        ArtifactError: the manifest names none, or the file is not there.
    """
    names = [entry.get("path") for entry in read_manifest(folder)["files"] if isinstance(entry, dict)]
    for name in names:
        if isinstance(name, str) and name.endswith("/generator.fp32.onnx"):
            path = (folder / name).resolve()
            if not path.is_relative_to(folder.resolve()):
                raise ArtifactError(f"the manifest of '{folder}' names a file outside the folder")
            if not path.is_file():
                raise ArtifactError(f"'{path}' is named in the manifest, but it is not there")
            return path
    raise ArtifactError(f"the run '{folder}' has no exported generator")


def open_runner(
    path: str | Path,
    *,
    image_size: Size | None = None,
    bn: BatchNormMode = "eval",
    direction: Direction = "AtoB",
    norm_stats: NormStats = "instance",
    max_bytes: int | None = None,
) -> BaseRunner:
    """Return a runner, not yet entered, for a checkpoint, a saved network, a run folder, or an .onnx or .ort file.

    Args:
        path: what to open. Of a run folder it is the compressed generator's ONNX file.
        image_size: (height, width) for checkpoints, which have none of their own; None: the family's usual one.
        bn, direction, norm_stats, max_bytes: for checkpoints, see `per_picture_norm` and `load_network`.

    Raises:
        InputError: there is nothing to run at `path`, or it is damaged.
        MissingDependencyError: the library that it needs is not installed.
    """
    source = what_is(Path(path))
    if source.kind == "run":
        return open_artifact(run_artifact(source.path))
    if source.kind == "artifact":
        return open_artifact(source.path)
    if source.kind in ("spec", "plan"):
        raise InputError(f"'{path}' is a {source.kind} without weights, and cannot be run")
    return _open_checkpoint(source.path, image_size, bn, direction, norm_stats, max_bytes)


def _open_checkpoint(
    path: Path,
    image_size: Size | None,
    bn: BatchNormMode,
    direction: Direction,
    norm_stats: NormStats,
    max_bytes: int | None,
) -> BaseRunner:
    from mggc_edge.compiler.to_onnx import describe, reference_network, torch_runner
    from mggc_edge.lazy import require
    from mggc_edge.models.checkpoint import MAX_BYTES
    from mggc_edge.models.families import family_of

    require("torch", extra="torch")
    from mggc_edge.models.weights import load_network

    network = load_network(
        path, direction=direction, norm_stats=norm_stats, image_size=image_size, max_bytes=max_bytes or MAX_BYTES
    )
    role = family_of(network.spec).role
    if role != "generator":
        raise InputError(f"'{path}' is a {role}, which turns no picture into another", hint="give a generator")
    metadata = describe(network, network.table.image_size, bn)
    return torch_runner(reference_network(network, bn), network.table.image_size, name=path.name, metadata=metadata)


def geometry(runner: Runner) -> Geometry:
    """Return what an entered runner takes and gives as pictures, from its metadata or else from its shapes.

    Raises:
        ArtifactError: it has not one picture in and one out, [N, C, H, W] with 1, 3 or 4 channels.
    """
    shapes = [tensor.shape for tensor in (*runner.inputs, *runner.outputs)]
    if len(runner.inputs) != 1 or len(runner.outputs) != 1 or any(len(shape) != 4 for shape in shapes):
        raise ArtifactError(f"'{runner.name}' does not turn one picture [N, C, H, W] into another")
    given = {
        key.removeprefix(METADATA_PREFIX): value
        for key, value in runner.metadata.items()
        if key.startswith(METADATA_PREFIX)
    }
    height, width = shapes[0][2:]
    return Geometry(
        image_size=(height, width) if height is not None and width is not None else None,
        input_format=_format(runner, given, "input_format", shapes[0][1]),
        output_format=_format(runner, given, "output_format", shapes[1][1]),
        bn=given.get("bn", "eval"),
    )


def _format(runner: Runner, given: Mapping[str, str], key: str, channels: int | None) -> PictureFormat:
    if key in given:
        try:
            return PictureFormat.from_json(json.loads(given[key]))
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"the metadata of '{runner.name}' are damaged: {error}") from error
    if channels not in (1, 3, 4):
        raise ArtifactError(f"'{runner.name}' has pictures of {channels} channels; 1, 3 and 4 are possible")
    return PictureFormat.for_channels(channels)

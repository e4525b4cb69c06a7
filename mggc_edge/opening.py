"""Open anything that runs: a checkpoint, a saved network, a run folder, or a file for an engine."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mggc_edge.artifacts import (
    BYTES_IO,
    FLOAT_IO,
    MANIFEST_FILE,
    METADATA_PREFIX,
    SPEC_FILE,
)
from mggc_edge.backends.base import BaseRunner, Runner
from mggc_edge.backends.levels import LevelRunner
from mggc_edge.backends.registry import ENDINGS, open_artifact
from mggc_edge.errors import ArtifactError, InputError, MissingDependencyError
from mggc_edge.models.spec import SCHEMA as SPEC_SCHEMA
from mggc_edge.pictures import PictureFormat, Size
from mggc_edge.pruning.plan import SCHEMA as PLAN_SCHEMA
from mggc_edge.run_folder import run_artifact, trained_hint
from mggc_edge.tensors import TensorSpec

if TYPE_CHECKING:
    from mggc_edge.models.checkpoint import Direction
    from mggc_edge.models.convert import BatchNormMode
    from mggc_edge.models.family import NormStats

Kind = Literal["checkpoint", "network", "spec", "plan", "artifact", "run"]
MAX_JSON_BYTES = 64 * 2**20
PYTORCH = "pytorch"  # what runs checkpoints


@dataclass(frozen=True)
class Geometry:
    """What a runner takes and gives as pictures, and how its checkpoint was read.

    Attributes:
        image_size: (height, width); None: any.
        input_format, output_format: channels, colour order and range.
        bn: how batch norm was taken, "eval" or "batch".
        direction, norm_stats: how the checkpoint was read, None where that is not known.
        precision: as the runner says it.
        io: "float", or "uint8" where it takes bytes; or levels, see `LevelRunner`.
    """

    image_size: Size | None
    input_format: PictureFormat
    output_format: PictureFormat
    bn: str
    direction: str | None = None
    norm_stats: str | None = None
    precision: str = "fp32"
    io: str = FLOAT_IO


def what_is(path: Path) -> Kind:
    """Return what a path is, by its name; only a JSON document is read to find out.

    Raises:
        InputError: there is nothing at the path, or a folder that is neither a run nor a saved network.
    """
    try:
        path.stat()
    except FileNotFoundError:
        raise InputError(f"there is no file '{path}'") from None
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' cannot be read: {error}") from error
    if path.is_dir():
        if (path / MANIFEST_FILE).is_file():
            return "run"
        if (path / SPEC_FILE).is_file():
            return "network"
        raise InputError(
            f"'{path}' is a folder without {MANIFEST_FILE} or {SPEC_FILE}",
            hint=trained_hint(path) or "give a checkpoint file, a run folder, or a folder with a saved network",
        )
    if not path.is_file():  # a pipe would be waited for, a device read without end
        raise InputError(f"'{path}' is neither a file nor a folder")
    if path.suffix.lower() in ENDINGS:
        return "artifact"
    if path.suffix.lower() == ".json":
        return _json_kind(path)
    return "checkpoint"


def _json_kind(path: Path) -> Kind:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputError(f"'{path}' is too large for a spec or a plan")
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is no JSON document: {error}") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema == SPEC_SCHEMA:
        return "spec"
    if schema == PLAN_SCHEMA:
        return "plan"
    raise InputError(f"'{path}' is neither a network description nor a pruning plan: its schema is {schema!r}")


def open_runner(
    path: str | Path,
    *,
    image_size: Size | None = None,
    bn: BatchNormMode = "eval",
    direction: Direction = "AtoB",
    norm_stats: NormStats = "instance",
    max_bytes: int | None = None,
    runtime: str | None = None,
    precision: str = "fp32",
) -> BaseRunner:
    """Return a runner, not yet entered, for a checkpoint, a saved network, a run folder, or an .onnx or .ort file.

    Args:
        path: what to open. Of a run folder it is the compressed generator's file, see `run_artifact`.
        image_size: (height, width) for checkpoints, which have none of their own; None: the family's usual one. An
            .onnx file that leaves it open is checked for whether it can halve such pictures.
        bn, direction, norm_stats, max_bytes: for checkpoints, see `per_picture_norm` and `load_network`.
        runtime: the engine: a key of `mggc_edge.backends.registry.RUNTIMES`, or "pytorch" for checkpoints; None: by
            what it is.
        precision: "bf16" lets OpenVINO compute in bfloat16.

    Raises:
        InputError: there is nothing to run at `path`, or it is damaged, or the engine does not run it.
        MissingDependencyError: the library that it needs is not installed.
    """
    path = Path(path)
    kind = what_is(path)
    if kind in ("run", "artifact"):
        if kind == "run":
            path = run_artifact(path, runtime)
        return _open_artifact(path, image_size, runtime, precision)
    if kind in ("spec", "plan"):
        raise InputError(f"'{path}' is a {kind} without weights, and cannot be run")
    if runtime not in (None, PYTORCH) or precision != "fp32":
        asked = precision if runtime in (None, PYTORCH) else runtime
        raise InputError(
            f"'{path}' is a {kind}, which {PYTORCH} runs in fp32; '{asked}' is for artifacts",
            hint="mggc-edge export makes an .onnx file of it",
        )
    return _open_checkpoint(path, image_size, bn, direction, norm_stats, max_bytes)


def _open_artifact(path: Path, image_size: Size | None, runtime: str | None, precision: str) -> BaseRunner:
    if path.suffix.lower() == ".onnx":
        from mggc_edge.compiler.facts import check_onnx
        from mggc_edge.compiler.sizes import check_picture_size

        with contextlib.suppress(MissingDependencyError):  # a board without onnx has only ONNX Runtime's own checks
            check_onnx(path)
            if image_size is not None:
                check_picture_size(path, image_size)
    return open_artifact(path, runtime, precision=precision)


def _open_checkpoint(
    path: Path,
    image_size: Size | None,
    bn: BatchNormMode,
    direction: Direction,
    norm_stats: NormStats,
    max_bytes: int | None,
) -> BaseRunner:
    from mggc_edge.lazy import require
    from mggc_edge.models.checkpoint import MAX_BYTES

    require("torch", extra="torch")
    from mggc_edge.compiler.torch_graph import check_generator, describe, reference_network, torch_runner
    from mggc_edge.models.weights import load_network

    network = load_network(
        path, direction=direction, norm_stats=norm_stats, image_size=image_size, max_bytes=max_bytes or MAX_BYTES
    )
    check_generator(network.spec)
    metadata = describe(network, network.table.image_size, bn)
    return torch_runner(reference_network(network, bn), network.table.image_size, name=path.name, metadata=metadata)


@contextlib.contextmanager
def open_pair(
    reference: Path,
    candidate: Path,
    *,
    image_size: Size | None = None,
    bn: BatchNormMode | None = None,
    direction: Direction | None = None,
    norm_stats: NormStats | None = None,
    max_bytes: int | None = None,
    runtimes: tuple[str | None, str | None] = (None, None),
    precisions: tuple[str, str] = ("fp32", "fp32"),
) -> Iterator[tuple[Runner, Runner, Geometry]]:
    """Open two things so that both see the same pictures; yield the two runners and what they take.

    A checkpoint has no picture size of its own, and can be read in several ways (batch-norm mode, direction, norm
    statistics): what the arguments leave open is taken from the other side, if that is an exported file. `runtimes` and
    `precisions` are those of the two sides, see `open_runner`.

    Where one of them takes bytes, both are shown as runners of levels, see `LevelRunner`.

    Raises:
        InputError: one of them cannot be opened, or they cannot take the same pictures.
    """
    paths = (reference, candidate)
    with contextlib.ExitStack() as stack:
        runners: dict[int, Runner] = {}
        size, mode, way, stats = image_size, bn, direction, norm_stats
        # Files with a fixed size first, checkpoints after them.
        for index in sorted((0, 1), key=lambda index: what_is(paths[index]) not in ("artifact", "run")):
            runner = open_runner(
                paths[index],
                image_size=size,
                bn=mode or "eval",
                direction=way or "AtoB",
                norm_stats=stats or "instance",
                max_bytes=max_bytes,
                runtime=runtimes[index],
                precision=precisions[index],
            )
            runners[index] = stack.enter_context(runner)
            found = geometry(runners[index])
            size, mode = size or found.image_size, mode or ("batch" if found.bn == "batch" else "eval")
            way = way or ("BtoA" if found.direction == "BtoA" else "AtoB")
            stats = stats or ("running" if found.norm_stats == "running" else "instance")
        if any(geometry(runner).io == BYTES_IO for runner in runners.values()):
            runners = {index: stack.enter_context(_as_levels(runner)) for index, runner in runners.items()}
        shared = geometry(runners[0])
        other = geometry(runners[1])
        if (shared.input_format, shared.output_format) != (other.input_format, other.output_format):
            raise ArtifactError(
                f"'{reference}' and '{candidate}' do not take and give the same kind of picture: "
                f"{_formats(shared)} and {_formats(other)}"
            )
        for path, side in ((reference, shared), (candidate, other)):
            if side.image_size not in (None, size):
                raise ArtifactError(f"'{path}' takes pictures of {_size(side.image_size)}, not of {_size(size)}")
        if size is None:
            raise ArtifactError("neither of the two says what picture size it takes", hint="give an image size")
        yield runners[0], runners[1], replace(shared, image_size=size)


def _size(size: Size | None) -> str:
    return "any size" if size is None else f"{size[0]}x{size[1]}"


def _formats(geometry: Geometry) -> str:
    return " to ".join(map(_format_name, (geometry.input_format, geometry.output_format)))


def _format_name(form: PictureFormat) -> str:
    return form.color if (form.low, form.high) == (-1, 1) else f"{form.color} from {form.low:g} to {form.high:g}"


def in_floats(runner: Runner) -> Runner:
    """Return an entered runner as one that takes [N, C, H, W] floats: itself, or where it takes bytes, as levels."""
    return _as_levels(runner).__enter__() if geometry(runner).io == BYTES_IO else runner


def _as_levels(runner: Runner) -> LevelRunner:
    found = geometry(runner)
    return LevelRunner(runner, found.input_format, found.output_format)


def geometry(runner: Runner) -> Geometry:
    """Return what an entered runner takes and gives as pictures, from its metadata or else from its shapes.

    Raises:
        ArtifactError: it has not one picture in and one out, [N, C, H, W] with 1, 3 or 4 channels, or such a picture of
            bytes, [N, H, W, C].
    """
    shapes = [tensor.shape for tensor in (*runner.inputs, *runner.outputs)]
    if len(runner.inputs) != 1 or len(runner.outputs) != 1 or any(len(shape) != 4 for shape in shapes):
        raise ArtifactError(f"'{runner.name}' does not turn one picture [N, C, H, W] into another")
    given = {
        key.removeprefix(METADATA_PREFIX): value
        for key, value in runner.metadata.items()
        if key.startswith(METADATA_PREFIX)
    }
    picture, result = runner.inputs[0], runner.outputs[0]
    if "uint8" in (picture.dtype, result.dtype):
        if not (picture.channels_last and result.channels_last):
            raise ArtifactError(f"'{runner.name}' takes or gives bytes, but not as pictures [N, H, W, C] in and out")
        given = {key: value for key, value in given.items() if key not in ("input_format", "output_format")}
    formats = [
        _format(runner, given, key, tensor) for key, tensor in (("input_format", picture), ("output_format", result))
    ]
    return Geometry(
        image_size=picture.picture_size,
        input_format=formats[0],
        output_format=formats[1],
        bn=given.get("bn", "eval"),
        direction=given.get("direction"),
        norm_stats=given.get("norm_stats"),
        precision=given.get("precision", "fp32"),
        io=BYTES_IO if picture.channels_last or given.get("io") == BYTES_IO else FLOAT_IO,
    )


def _format(runner: Runner, given: Mapping[str, str], key: str, tensor: TensorSpec) -> PictureFormat:
    if key in given:
        try:
            return PictureFormat.from_json(json.loads(given[key]))
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"the metadata of '{runner.name}' is damaged: {error}") from error
    channels = tensor.channels
    if channels not in (1, 3, 4):
        raise ArtifactError(f"'{runner.name}' has pictures of {channels} channels; 1, 3 and 4 are possible")
    usual = PictureFormat.for_channels(channels)
    return usual.in_bytes if tensor.channels_last else usual

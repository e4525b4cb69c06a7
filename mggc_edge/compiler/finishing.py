"""What every exported ONNX file goes through, be it made of a network or of another file."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mggc_edge.artifacts import METADATA_PREFIX, OnnxArtifact, sha256_of
from mggc_edge.compiler.grid_parity import GridParity
from mggc_edge.compiler.passes.contract import PassReport
from mggc_edge.errors import ArtifactError, MissingDependencyError
from mggc_edge.lazy import require
from mggc_edge.pictures import PictureFormat
from mggc_edge.quality.parity import ParityReport
from mggc_edge.tensors import Array, TensorSpec

if TYPE_CHECKING:
    import onnx

    from mggc_edge.compiler.precision.variants import Variant
    from mggc_edge.compiler.tune import Tuned

# What the exporter says that is no news to whoever exports with this package.
_CHATTER = ("torch.onnx", "onnxscript", "onnx_ir")


@dataclass(frozen=True)
class Exported:
    """What an export gives: the artifact, the proof that it equals what it was made from, and remarks on the way.

    Attributes:
        passes: what became of the sites of every graph pass.
        tuned: how the passes were chosen, where that was measured.
        macs_executed: multiplications of the rewritten graph, None where they do not follow from it.
        camera: of a graph of bytes, how its pictures compare with those of the graph of floats, in levels.
        grids: of a quantized network, how its levels compare, layer by layer.
        variants: the same in other precisions, with what became of each.
        weights_bytes: of the tensors in the file, as they lie in memory once it is read; of a network's file alone.
        float_bytes, float_weights_bytes: size of the file, and of its tensors, if it were all in float32; likewise.
    """

    artifact: OnnxArtifact
    parity: ParityReport
    remarks: tuple[str, ...] = field(default=())
    passes: tuple[PassReport, ...] = ()
    tuned: Tuned | None = None
    macs_executed: int | None = None
    grids: GridParity | None = None
    camera: ParityReport | None = None
    variants: tuple[Variant, ...] = ()
    weights_bytes: int = 0
    float_bytes: int = 0
    float_weights_bytes: int = 0


def simplified(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str | None]:
    """Return the model after onnxsim, or as it was with a remark where onnxsim fails: it is never required."""
    try:
        onnxsim = require("onnxsim", extra="onnx")
    except MissingDependencyError as error:
        return model, f"onnxsim is not installed and was left out: {error.hint}"
    try:
        with quiet():
            simple, sound = onnxsim.simplify(model)
    except Exception as error:  # noqa: BLE001  onnxsim raises many kinds, and the model is fine without it
        return model, f"onnxsim failed and was left out: {str(error)[:200]}"
    return (simple, None) if sound else (model, "onnxsim changed the outputs and was left out")


def strip(model: onnx.ModelProto) -> None:
    """Take out what no engine reads: source lines of the exporting machine, shapes of inner tensors, documentation."""
    del model.graph.value_info[:]
    model.graph.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for part in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    del model.graph.metadata_props[:]


def rewriting(target: str, passes: Sequence[str], macs: tuple[int | None, int | None]) -> dict[str, str]:
    """Return the metadata of a graph that passes went over: what for, which applied, and its MACs before (true, paper).

    A rewritten graph executes other multiplications than the network has: the count of the network stays with the file.
    """
    metadata = {"target": target, "passes": ",".join(passes)}
    metadata |= {name: str(count) for name, count in zip(("macs_true", "macs_paper"), macs, strict=True) if count}
    return {METADATA_PREFIX + key: value for key, value in metadata.items()}


def rewritten_settings(target: str, io: str, passes: Sequence[PassReport], tuned: Tuned | None) -> dict[str, Any]:
    """Return what the manifest says of how a graph was rewritten."""
    return {
        "target": target,
        "io": io,
        "passes": [report.to_json() for report in passes],
        "tuning": None if tuned is None else tuned.to_json(),
    }


def written_artifact(
    path: Path,
    *,
    tensors: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
    precision: str,
    parent_sha256: str | None,
    settings: Mapping[str, Any],
) -> OnnxArtifact:
    """Return a file that has just been written, with hash and size as it lies there; `tensors`: inputs and outputs."""
    return OnnxArtifact(
        path=path,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        inputs=tensors[0],
        outputs=tensors[1],
        precision=precision,
        parent_sha256=parent_sha256,
        settings=settings,
    )


def said_format(metadata: Mapping[str, str], key: str) -> PictureFormat | None:
    """Return the format of pictures that a file says under "input_format" or "output_format"; None where it says none.

    Raises:
        ArtifactError: the metadata is damaged.
    """
    text = metadata.get(METADATA_PREFIX + key)
    if text is None:
        return None
    try:
        return PictureFormat.from_json(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"the metadata of the exported file is damaged: {error}") from error


def reach_of(outputs: Iterable[Array], form: PictureFormat | None) -> float:
    """Return how far outputs reach, from the lowest to the highest: as seen, at least 2, or less where a file says so.

    Args:
        outputs: of a network; values that are not finite reach nowhere.
        form: of the pictures that the file says it gives; None: it says nothing.
    """
    seen = max(float(np.abs(output).max(initial=1.0, where=np.isfinite(output))) for output in outputs)
    return 2 * seen if form is None else min(2 * seen, form.high - form.low)


def random_pictures(
    count: int,
    batches: tuple[int, ...],
    shape: tuple[int, int, int],
    seed: int,
    values: tuple[float, float] = (-1.0, 1.0),
) -> Iterator[Array]:
    """Yield `count` arrays in the range `values` for each batch size.

    They are noise at four scales, so that norms see real variances.
    """
    generator = np.random.default_rng(seed)
    channels, height, width = shape
    for batch in batches:
        for _ in range(count):
            picture = np.zeros((batch, channels, height, width), np.float32)
            for scale in (1, 4, 16, 64):
                grid = generator.uniform(*values, (batch, channels, -(-height // scale), -(-width // scale)))
                picture += (
                    grid.repeat(scale, axis=2).repeat(scale, axis=3)[:, :, :height, :width].astype(np.float32) / 4
                )
            yield picture


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's remarks on missing torchvision, deprecations of its own and the like from the user."""
    loggers = [logging.getLogger(name) for name in _CHATTER]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

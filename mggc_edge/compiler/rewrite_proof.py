"""Proof that a rewritten ONNX file gives what the file gave that it was made from; what fails names that file."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mggc_edge.backends.base import Runner
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.compiler.facts import OnnxFacts
from mggc_edge.compiler.finishing import random_pictures
from mggc_edge.errors import ArtifactError
from mggc_edge.models.layers import Size
from mggc_edge.pictures import PictureFormat
from mggc_edge.quality.parity import ParityReport, check_parity, only_output
from mggc_edge.settings import Settings
from mggc_edge.tensors import Array, TensorSpec


def not_pictures(source: Path) -> ArtifactError:
    """Return the error of a file that is no network from picture to picture."""
    return ArtifactError(
        f"'{source}' does not turn one picture [N, C, H, W] into one picture [N, C, H, W]",
        hint="no others are rewritten",
    )


def compared(
    source: Path,
    path: Path,
    before: OnnxFacts,
    size: Size,
    settings: Settings,
    seed: int,
    form: PictureFormat | None,
) -> tuple[ParityReport, tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]]:
    """Return how a new file compares with the one that was given, and its inputs and outputs.

    Args:
        source, path: the file that was given, and the new one.
        before: of the file that was given.
        size: of the pictures that it takes.
        settings: `export.parity_pictures`, and `export.atol`, which is for outputs from -1 to 1.
        seed: of the random pictures.
        form: the values of black and white; None: from -1 to 1.

    Raises:
        ArtifactError: one of them cannot be run, or the one that was given gives no picture, or none of finite values.
    """
    shape = before.inputs[0].shape
    batch, channels = shape[0] or 1, shape[1]
    assert channels is not None
    values = (-1.0, 1.0) if form is None else (form.low, form.high)

    def pictures() -> Iterator[Array]:
        return random_pictures(settings["export.parity_pictures"], (batch,), (channels, *size), seed, values)

    with opened(source) as old:
        reach = _reach(old, next(pictures()), source)
        with opened(path, rewritten_from=source) as new:
            report = check_parity(old, new, pictures(), atol=settings["export.atol"] * reach, data_range=2 * reach)
            tensors = new.inputs, new.outputs
        if not math.isfinite(report.max_abs):
            for picture in pictures():
                _reach(old, picture, source)
    return report, tensors


@contextlib.contextmanager
def opened(path: Path, *, rewritten_from: Path | None = None) -> Iterator[Runner]:
    """Open a file in ONNX Runtime; what fails names the file that was given, since the new one has no place yet."""
    try:
        with OnnxRuntimeRunner(path) as runner:
            yield runner
    except ArtifactError as error:
        if error.hint is not None:  # said by an inner one
            raise
        if rewritten_from is None:
            hint = "is it complete, and does the tool that wrote it run it?"
            hint = "write it with ONNX's own operators" if "it has no operator" in error.message else hint
            raise ArtifactError(error.message, hint=hint) from error
        raise ArtifactError(
            f"'{rewritten_from}' cannot be run once it is rewritten: {error.message.replace(str(path), path.name)}",
            hint="leave the passes out: --set export.passes=none, or name fewer of them",
        ) from error


def _reach(runner: Runner, picture: Array, source: Path) -> float:
    """Return the largest absolute output of the file that was given, at least 1.

    Raises:
        ArtifactError: it gives no picture, or values that are not finite.
    """
    output = only_output(runner, picture)
    if output.ndim != 4 or not output.size:
        raise not_pictures(source)
    if not np.isfinite(output).all():
        raise ArtifactError(
            f"'{source}' itself gives values that are not finite, so that no other file can be proven equal to it",
            hint="look for overflowing weights, or for roots and logarithms of negative values, in the file",
        )
    return max(1.0, float(np.abs(output).max()))

"""Any ONNX file, rewritten by the passes of a target into a new folder and proven equal to the file it was."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mggc_edge.artifacts import (
    BYTES_IO,
    EXPORT_FOLDER,
    FLOAT_IO,
    GENERATOR_FILE,
    METADATA_PREFIX,
    ORIGINAL_FILE,
    OnnxArtifact,
    file_entry,
    new_folder,
    sha256_of,
    write_manifest,
    writing,
)
from mggc_edge.backends.base import Runner
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.compiler.bounds import check_runnable
from mggc_edge.compiler.camera import formats_of, make_camera_ready
from mggc_edge.compiler.facts import OnnxFacts, check_onnx, constants_of, count_macs, onnx_facts, read_onnx
from mggc_edge.compiler.finishing import Exported, random_pictures, rewriting, simplified, strip
from mggc_edge.compiler.passes.contract import apply_passes
from mggc_edge.compiler.precision.variants import moved, near_variants, variant_entries, with_variants
from mggc_edge.compiler.precision.wanted import Precisions, Tell
from mggc_edge.compiler.runtimes import Checks, Further, for_runtimes
from mggc_edge.compiler.sizes import check_size, fix_size
from mggc_edge.compiler.targets import TARGETS, choose_passes
from mggc_edge.compiler.tune import TuneSettings, passes_for
from mggc_edge.errors import ArtifactError, MggcEdgeError
from mggc_edge.lazy import require
from mggc_edge.models.layers import Size
from mggc_edge.quality.parity import ParityReport, check_parity, only_output
from mggc_edge.settings import Settings
from mggc_edge.tensors import Array

if TYPE_CHECKING:
    import onnx

QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger"})


@dataclass(frozen=True)
class Rewritten:
    """What `rewrite_folder` made: the new file, and facts about it and the one it was made from.

    Attributes:
        before, after: of the file that was given, its MACs at the fixed size, and of the new one.
        source_bytes: size of the file that was given.
        further: what further runtimes run.
    """

    folder: Path
    source: Path
    generator: Exported
    before: OnnxFacts
    after: OnnxFacts
    source_bytes: int
    image_size: Size
    further: Further = field(default_factory=Further)


def rewrite_folder(
    source: Path,
    folder: Path,
    *,
    target: str,
    settings: Settings,
    image_size: Size | None = None,
    command: str,
    effective: Mapping[str, Any],
    seed: int = 0,
    io: str = FLOAT_IO,
    runtimes: Sequence[str] = (),
    precisions: Precisions | None = None,
    tune: bool = False,
    tell: Tell = lambda _: None,
) -> Rewritten:
    """Rewrite an ONNX file for a target into a new folder.

    The folder holds `export/<target>/generator.fp32.onnx`, beside it `original.fp32.onnx`, a copy of the file as it
    was, and `manifest.json`. It appears under its name when the two have been shown to agree in ONNX Runtime.

    Args:
        source: a float32 file with one picture [N, C, H, W] in and one out, of any producer.
        folder: must not exist, or be empty.
        target: see `mggc_edge.compiler.targets`.
        settings: `export.passes`, `export.simplify`, `export.atol`, `export.parity_pictures` and `quantize.min_psnr`
            are read; with `tune` `export.tune_*`, with bytes also `export.picture_range` and `export.picture_color`.
        image_size: (height, width) that a file which leaves them open is fixed to.
        command, effective: what goes into the manifest.
        seed: of the random pictures that parity is checked on. Where outputs reach beyond 1, so does the tolerance.
        io: "float", or "uint8" for bytes in and out, see `mggc_edge.compiler.camera`.
        runtimes: that files are made for, or proven in, beside ONNX Runtime; see `mggc_edge.compiler.runtimes`.
        precisions: what is made of the new file.
        tune: measure which of the target's passes pay, where the target is this machine.
        tell: is called with a line at the start of what takes long.

    Raises:
        ArtifactError: the file is damaged, is none of these, has another picture size or cannot halve the one that was
            asked for, has an opset that the target does not read, or cannot be run; or it gives values that are not
            finite, so that nothing can be proven.
        CheckFailedError: the new file does not equal the old one.
        OutputError: the folder has other content or cannot be written.
    """
    passes = choose_passes(settings["export.passes"], target)
    tuning = TuneSettings.from_settings(settings) if tune else None
    check_onnx(source)
    before = onnx_facts(source)
    TARGETS[target].check_opset(before.opset)
    model = read_onnx(source)
    size = _checked(source, model, before, image_size)
    if any(None in tensor.shape[2:] for tensor in before.inputs):
        check_size(source, model, size)
        fix_size(model, size)
        copy = type(model)()
        copy.CopyFrom(model)
        check_runnable(copy)  # which takes the shapes out of what it looks at
        del copy
    remarks: tuple[str, ...] = ()
    if settings["export.simplify"]:
        model, remark = simplified(model)
        remarks = (remark,) if remark else ()
    sized = count_macs(model)  # where a size was open before
    try:
        passes, tuned = passes_for(model, settings["export.passes"], target, tuning, seed=seed)
        model, reports = apply_passes(model, passes)
    except MggcEdgeError:
        raise
    except Exception as error:  # onnx-ir raises many kinds for graphs that contradict themselves
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise ArtifactError(
            f"'{source}' cannot be rewritten: {reason}",
            hint="leave the passes out: --set export.passes=none",
        ) from error
    remarks += tuned.remarks if tuned is not None else ()
    strip(model)
    sha256 = sha256_of(source)
    counts = (before.macs_true, before.macs_paper) if before.macs_true is not None else sized
    applied = [name for name in before.metadata.get("passes", "").split(",") if name]
    applied += [report.name for report in reports if report.applied and report.name not in applied]
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    metadata |= {**rewriting(target, applied, counts), f"{METADATA_PREFIX}parent_sha256": sha256}
    require("onnx.helper", extra="onnx").set_model_props(model, metadata)
    with new_folder(folder) as stage:
        place = stage / EXPORT_FOLDER / target
        path, original = place / GENERATOR_FILE, place / ORIGINAL_FILE
        with writing(path):
            place.mkdir(parents=True)
            path.write_bytes(model.SerializeToString())
            shutil.copyfile(source, original)
        parity, artifact = _proven(source, path, before, size, settings, seed)
        artifact = replace(
            artifact,
            parent_sha256=sha256,
            settings={"target": target, "io": io, "passes": [report.to_json() for report in reports]},
        )
        hint = "leave the passes out: --set export.passes=none, or name fewer of them" if passes else None
        parity.check(f"the rewritten '{path.name}' does not equal '{source}'", hint)
        camera = None
        if io == BYTES_IO:
            tensors = artifact.inputs[0], artifact.outputs[0]
            values, color = settings["export.picture_range"], settings["export.picture_color"]
            formats = formats_of(source, tensors, before.metadata, values, color)
            count, batches = settings["export.parity_pictures"], (before.inputs[0].shape[0] or 1,)
            camera, inputs, outputs = make_camera_ready(
                path, model, formats, size, pictures=count, batches=batches, seed=seed
            )
            artifact = replace(
                artifact, inputs=inputs, outputs=outputs, sha256=sha256_of(path), size_bytes=path.stat().st_size
            )
        after = onnx_facts(path)
        exported = Exported(artifact, parity, remarks, reports, tuned, after.macs_executed, camera=camera)
        exported = with_variants(exported, precisions, target=target, seed=seed, tell=tell)
        min_psnr = settings["quantize.min_psnr"] if precisions is None else precisions.min_psnr
        checks = Checks(settings["export.parity_pictures"], settings["export.atol"], min_psnr)
        done = [artifact, *near_variants(exported)]
        if not any(None in tensor.shape[2:] for tensor in before.inputs):  # of one size, as the new one
            done.append(replace(artifact, path=original, sha256=sha256, parent_sha256=None))
        further = for_runtimes(done, runtimes, target=target, checks=checks, seed=seed)
        exported = replace(exported, remarks=(*exported.remarks, *further.remarks))
        write_manifest(
            stage,
            command=command,
            files=[
                artifact.to_json(stage),
                *variant_entries(exported, stage),
                file_entry(original, stage),
                *further.entries(stage, target),
            ],
            settings={**effective, "image_size": list(size), "target": target, "io": io, "seed": seed},
            source_sha256=sha256,
            timings_s={},
            **further.facts(stage, target),
        )
    return Rewritten(
        folder,
        source,
        moved(exported, stage, folder),
        before=replace(before, macs_true=counts[0], macs_paper=counts[1]),
        after=after,
        source_bytes=source.stat().st_size,
        image_size=size,
        further=further.moved(stage, folder),
    )


def _checked(source: Path, model: onnx.ModelProto, facts: OnnxFacts, wanted: Size | None) -> Size:
    """Return the picture size that a file takes, or is to take."""
    if len(facts.inputs) != 1 or len(facts.outputs) != 1 or len(facts.inputs[0].shape) != 4:
        raise _not_pictures(source)
    computed = {name for node in model.graph.node for name in node.output}
    if len(facts.outputs[0].shape) != 4 or facts.outputs[0].name not in computed:
        raise _not_pictures(source)
    half = require("onnx", extra="onnx").TensorProto.FLOAT16
    kind = "int8" if QUANTIZED & set(facts.operators) else None
    kind = "fp16" if any(tensor.data_type == half for tensor in constants_of(model).values()) else kind
    types = dict.fromkeys((facts.inputs[0].dtype, facts.outputs[0].dtype))  # from, to; one where they are the same
    if kind is not None or list(types) != ["float32"]:
        raise ArtifactError(
            f"'{source}' is no float32 network: {kind or ' to '.join(types)}",
            hint="rewrite the float32 file that it was made from",
        )
    _, channels, height, width = facts.inputs[0].shape
    if channels is None:
        raise ArtifactError(f"'{source}' leaves open how many channels its pictures have")
    for side, fixed in zip(wanted or (), (height, width), strict=False):
        if fixed not in (None, side):
            raise ArtifactError(f"'{source}' takes pictures of {height}x{width} only", hint="leave the image size out")
    if wanted is None and (height is None or width is None):
        raise ArtifactError(f"'{source}' takes pictures of any size", hint="give one with --image-size")
    return wanted or (height or 0, width or 0)


def _not_pictures(source: Path) -> ArtifactError:
    return ArtifactError(
        f"'{source}' does not turn one picture [N, C, H, W] into one picture [N, C, H, W]",
        hint="no others are rewritten",
    )


def _proven(
    source: Path, path: Path, before: OnnxFacts, size: Size, settings: Settings, seed: int
) -> tuple[ParityReport, OnnxArtifact]:
    shape = before.inputs[0].shape
    batch, channels = shape[0] or 1, shape[1]
    assert channels is not None
    values = (before.spec.low, before.spec.high) if before.spec is not None else (-1.0, 1.0)

    def pictures() -> Iterator[Array]:
        return random_pictures(settings["export.parity_pictures"], (batch,), (channels, *size), seed, values)

    with _runner(source) as old:
        reach = _reach(old, next(pictures()), source)
        with _runner(path, rewritten_from=source) as new:
            report = check_parity(old, new, pictures(), atol=settings["export.atol"] * reach, data_range=2 * reach)
            inputs, outputs = new.inputs, new.outputs
        if not math.isfinite(report.max_abs):
            for picture in pictures():
                _reach(old, picture, source)
    artifact = OnnxArtifact(
        path=path,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        inputs=inputs,
        outputs=outputs,
        precision="fp32",
        parent_sha256=None,
    )
    return report, artifact


@contextlib.contextmanager
def _runner(path: Path, *, rewritten_from: Path | None = None) -> Iterator[Runner]:
    """Open a file in ONNX Runtime; what fails names the file that was given, since the new one has no place yet."""
    try:
        with OnnxRuntimeRunner(path) as runner:
            yield runner
    except ArtifactError as error:
        if error.hint is not None:  # said by an inner one
            raise
        if rewritten_from is None:
            hint = "is it complete, and does the tool that wrote it run it?"
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
        raise _not_pictures(source)
    if not np.isfinite(output).all():
        raise ArtifactError(
            f"'{source}' itself gives values that are not finite, so that no other file can be proven equal to it",
            hint="look for overflowing weights, or for roots and logarithms of negative values, in the file",
        )
    return max(1.0, float(np.abs(output).max()))

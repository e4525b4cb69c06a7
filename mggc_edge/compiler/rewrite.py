"""Any ONNX file, rewritten by the passes of a target into a new folder and proven equal to the file it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mggc_edge.artifacts import (
    BYTES_IO,
    EXPORT_FOLDER,
    FLOAT_IO,
    GENERATOR_FILE,
    METADATA_PREFIX,
    ORIGINAL_FILE,
    file_entry,
    new_folder,
    sha256_of,
    write_manifest,
    writing,
)
from mggc_edge.backends.onnxruntime import ONNX_RUNTIME
from mggc_edge.compiler.artifact_set import ArtifactSet, Source, Wanted, make_artifacts, runtime_facts
from mggc_edge.compiler.bounds import check_runnable
from mggc_edge.compiler.camera import Camera, formats_of
from mggc_edge.compiler.external import self_contained
from mggc_edge.compiler.facts import OnnxFacts, check_onnx, constants_of, count_macs, onnx_facts, read_onnx
from mggc_edge.compiler.finishing import (
    Exported,
    rewriting,
    rewritten_settings,
    simplified,
    strip,
    written_artifact,
)
from mggc_edge.compiler.opset import in_opset
from mggc_edge.compiler.passes.contract import MIN_OPSET, GraphPass, PassReport, apply_passes
from mggc_edge.compiler.precision.wanted import Precisions, Tell
from mggc_edge.compiler.rewrite_proof import compared, not_pictures, opened
from mggc_edge.compiler.runtimes import Checks
from mggc_edge.compiler.sizes import check_size, fix_size
from mggc_edge.compiler.targets import TARGETS, choose_passes
from mggc_edge.compiler.tune import Tuned, TuneSettings, can_tune, passes_for
from mggc_edge.errors import ArtifactError, MggcEdgeError
from mggc_edge.lazy import require
from mggc_edge.models.layers import Size
from mggc_edge.pictures import USUAL_COLORS, PictureFormat
from mggc_edge.settings import Settings

if TYPE_CHECKING:
    import onnx

FORMATS = ("input_format", "output_format")  # keys of the metadata
QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger"})


@dataclass(frozen=True)
class Rewritten:
    """What `rewrite_folder` made: the new file, and facts about it and the one it was made from.

    Attributes:
        before, after: of the file that was given, its MACs at the fixed size, and of the new one.
        source_bytes: size of the file that was given.
    """

    folder: Path
    source: Path
    sets: tuple[ArtifactSet, ...]
    before: OnnxFacts
    after: OnnxFacts
    source_bytes: int
    image_size: Size

    @property
    def generator(self) -> Exported:
        """The new file."""
        return self.sets[0].generator

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be said, once."""
        return tuple(dict.fromkeys(remark for one in self.sets for remark in one.remarks))


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
    opset: int | None = None,
    runtimes: Sequence[str] = (ONNX_RUNTIME,),
    precisions: Precisions | None = None,
    tune: bool = False,
    tell: Tell = lambda _: None,
) -> Rewritten:
    """Rewrite an ONNX file for a target into a new folder.

    The folder holds `export/<target>/generator.fp32.onnx`, beside it `original.fp32.onnx`, a copy of the file as it
    was, and `manifest.json`. It appears under its name when the two have been shown to agree in ONNX Runtime.

    Args:
        source: a float32 file with one picture [N, C, H, W] in and one out, of any producer; of one that keeps its
            weights in a file beside it a whole one is made first.
        folder: must not exist, or be empty.
        target: see `mggc_edge.compiler.targets`.
        settings: `export.passes`, `export.simplify`, `export.atol`, `export.parity_pictures` and `quantize.min_psnr`
            are read, and with `tune` `export.tune_*`. `export.picture_range` and `export.picture_color` go into the
            metadata of the new file, unless it says its own, and so to whatever feeds it.
        image_size: (height, width) that a file which leaves them open is fixed to.
        command, effective: what goes into the manifest.
        seed: of the random pictures that parity is checked on. Where outputs reach beyond 1, so does the tolerance.
        io: "float", or "uint8" for bytes in and out, see `mggc_edge.compiler.camera`.
        opset: version of the operators of the new file; None: that of the old one, or the nearest that passes, graphs
            of bytes and the target read.
        runtimes: that files are made for, or proven in, beside ONNX Runtime; see `mggc_edge.compiler.runtimes`.
        precisions: what is made of the new file.
        tune: measure which of the target's passes pay, where the target is this machine.
        tell: is called with a line at the start of what takes long.

    Raises:
        ArtifactError: the file is damaged, is none of these, has another picture size or cannot halve the one that was
            asked for, has operators that the target's opsets lack, or cannot be run; or it gives values that are not
            finite, so that nothing can be proven.
        CheckFailedError: the new file does not equal the old one.
        OutputError: the folder has other content or cannot be written.
    """
    passes = choose_passes(settings["export.passes"], target)  # before anything is read
    with self_contained(source) as held:
        return _rewrite(
            source, held, folder, passes, target=target, settings=settings, image_size=image_size, command=command,
            effective=effective, seed=seed, io=io, opset=opset, runtimes=runtimes, precisions=precisions, tune=tune,
            tell=tell,
        )  # fmt: skip


def _rewrite(
    source: Path,
    held: Path,
    folder: Path,
    passes: Sequence[GraphPass],
    *,
    target: str,
    settings: Settings,
    image_size: Size | None,
    command: str,
    effective: Mapping[str, Any],
    seed: int,
    io: str,
    opset: int | None,
    runtimes: Sequence[str],
    precisions: Precisions | None,
    tune: bool,
    tell: Tell,
) -> Rewritten:
    """Rewrite `held`, which has its own weights and is spoken of as `source`."""
    tunes = tune and settings["export.tune"] and can_tune(settings["export.passes"], target)
    tuning = TuneSettings.from_settings(settings) if tunes else None
    check_onnx(held)
    before = onnx_facts(held)
    wanted_opset = _opset(before.opset, target, opset, MIN_OPSET if passes or io == BYTES_IO else 0)
    model = read_onnx(held)
    size = _checked(source, model, before, image_size)
    if any(None in tensor.shape[2:] for tensor in before.inputs):
        check_size(source, model, size)
        fix_size(model, size)
        copy = type(model)()
        copy.CopyFrom(model)
        check_runnable(copy)  # which takes the shapes out of what it looks at
        del copy
    remarks: tuple[str, ...] = ()
    if before.opset != wanted_opset:
        model = in_opset(model, wanted_opset)
        remarks = (f"its operators are those of opset {wanted_opset} now; '{source}' has opset {before.opset}",)
    if settings["export.simplify"]:
        model, remark = simplified(model)
        remarks += (remark,) if remark else ()
    sized = count_macs(model)  # where a size was open before
    sha256 = sha256_of(held)
    counts = (before.macs_true, before.macs_paper) if before.macs_true is not None else sized
    hint = "leave the passes out: --set export.passes=none, or name fewer of them" if passes else None
    formats = _formats(held, before, settings)

    def make(path: Path, engine: str) -> Exported:
        tune_in = None if tuning is None else tuning.within(engine)
        made, reports, tuned = _rewritten(model, source, settings, target, tune_in, seed)
        applied = [name for name in before.metadata.get("passes", "").split(",") if name]
        applied += [report.name for report in reports if report.applied and report.name not in applied]
        metadata = {METADATA_PREFIX + key: json.dumps(form.to_json()) for key, form in formats.items()}
        metadata |= {entry.key: entry.value for entry in made.metadata_props}
        metadata |= {**rewriting(target, applied, counts), f"{METADATA_PREFIX}parent_sha256": sha256}
        require("onnx.helper", extra="onnx").set_model_props(made, metadata)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(made.SerializeToString())
        parity, tensors = compared(held, path, before, size, settings, seed, formats.get("input_format"))
        parity.check(f"the rewritten '{path.name}' does not equal '{source}'", hint)
        said = rewritten_settings(target, io, reports, tuned)
        artifact = written_artifact(path, tensors=tensors, precision="fp32", parent_sha256=sha256, settings=said)
        more = tuned.remarks if tuned is not None else ()
        return Exported(artifact, parity, (*remarks, *more), reports, tuned, count_macs(made)[0])

    with new_folder(folder) as stage:
        place = stage / EXPORT_FOLDER / target
        original = place / ORIGINAL_FILE
        with writing(original):
            place.mkdir(parents=True)
            shutil.copyfile(held, original)
        beside = []
        if not any(None in tensor.shape[2:] for tensor in before.inputs):  # of one size, as the new one
            tensors = before.inputs, before.outputs
            beside.append(
                written_artifact(original, tensors=tensors, precision="fp32", parent_sha256=None, settings={})
            )
        min_psnr = settings["quantize.min_psnr"] if precisions is None else precisions.min_psnr
        sets = make_artifacts(
            place,
            Source(f"rewriting '{source}'", GENERATOR_FILE, make, "choosing passes by measurement" if tunes else ""),
            None,
            Wanted(
                target,
                Checks(settings["export.parity_pictures"], settings["export.atol"], min_psnr),
                tuple(runtimes),
                precisions,
                tunes=tunes,
                camera=_camera(held, before, size, settings, seed) if io == BYTES_IO else None,
                seed=seed,
                tell=tell,
            ),
            beside,
        )
        after = onnx_facts(sets[0].generator.artifact.path)
        files = [entry for one in sets for entry in one.entries(stage)]
        write_manifest(
            stage,
            command=command,
            files=[files[0], file_entry(original, stage), *files[1:]],
            settings={**effective, "image_size": list(size), "target": target, "io": io, "seed": seed},
            source_sha256=sha256,
            timings_s={},
            **runtime_facts(sets, stage),
        )
    return Rewritten(
        folder,
        source,
        tuple(one.moved(stage, folder) for one in sets),
        before=replace(before, macs_true=counts[0], macs_paper=counts[1]),
        after=after,
        source_bytes=held.stat().st_size,
        image_size=size,
    )


def _opset(there: int, target: str, asked: int | None, least: int) -> int:
    """Return the version of the operators that a file of opset `there` is written in.

    Args:
        asked: by the user; None: nothing.
        least: that what is done to the graph can read and write.

    Raises:
        ArtifactError: the target does not read the one that was asked for.
    """
    if asked is not None:
        TARGETS[target].check_opset(asked)
        return asked
    read = TARGETS[target].opsets
    low, high = (least, there) if read is None else (max(read.lowest, MIN_OPSET), read.highest)
    return min(max(there, low), max(high, low))


def _rewritten(
    model: onnx.ModelProto, source: Path, settings: Settings, target: str, tuning: TuneSettings | None, seed: int
) -> tuple[onnx.ModelProto, tuple[PassReport, ...], Tuned | None]:
    """Return a graph after the passes of a target, what became of their sites, and how they were chosen."""
    try:
        passes, tuned = passes_for(model, settings["export.passes"], target, tuning, seed=seed)
        made, reports = apply_passes(model, passes)
    except MggcEdgeError:
        raise
    except Exception as error:  # onnx-ir raises many kinds for graphs that contradict themselves
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise ArtifactError(
            f"'{source}' cannot be rewritten: {reason}",
            hint="leave the passes out: --set export.passes=none",
        ) from error
    strip(made)
    return made, reports, tuned


def _formats(source: Path, before: OnnxFacts, settings: Settings) -> dict[str, PictureFormat]:
    """Return the formats of the pictures that a file takes and gives: as it says them, or else the user."""
    values, color = settings["export.picture_range"], settings["export.picture_color"]
    if not values and not all(key in before.metadata for key in FORMATS):
        return {}
    with opened(source) as runner:  # which infers what the file does not say
        tensors = runner.inputs[0], runner.outputs[0]
    if any(tensor.channels not in USUAL_COLORS for tensor in tensors):
        return {}
    return dict(zip(FORMATS, formats_of(source, tensors, before.metadata, values, color), strict=True))


def _camera(source: Path, before: OnnxFacts, size: Size, settings: Settings, seed: int) -> Camera:
    """Return what puts bytes around the new files; see `formats_of` for what it raises."""
    with opened(source) as runner:  # which infers what the file does not say
        tensors = runner.inputs[0], runner.outputs[0]
    values, color = settings["export.picture_range"], settings["export.picture_color"]
    formats = formats_of(source, tensors, before.metadata, values, color)
    return Camera(formats, size, settings["export.parity_pictures"], (before.inputs[0].shape[0] or 1,), seed)


def _checked(source: Path, model: onnx.ModelProto, facts: OnnxFacts, wanted: Size | None) -> Size:
    """Return the picture size that a file takes, or is to take."""
    if len(facts.inputs) != 1 or len(facts.outputs) != 1 or len(facts.inputs[0].shape) != 4:
        raise not_pictures(source)
    computed = {name for node in model.graph.node for name in node.output}
    if len(facts.outputs[0].shape) != 4 or facts.outputs[0].name not in computed:
        raise not_pictures(source)
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

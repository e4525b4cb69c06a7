"""From a proven fp32 file to fp16 and int8 files beside it, each accepted or rejected with its reason.

They are made from the graph as it is: after the passes of its target, so that a convolution which a pass made is one.
A rejected file stays where it is, for whoever wants to look; the manifest and the JSON say what became of it.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mggc_edge.artifacts import (
    METADATA_PREFIX,
    PORTABLE,
    OnnxArtifact,
    file_entry,
    variant_path,
    write_json,
    writing,
)
from mggc_edge.backends.onnxruntime import ONNX_RUNTIME
from mggc_edge.calibration.ranges import ActivationRanges, Finding, find_by_each, find_ranges
from mggc_edge.calibration.samples import Samples
from mggc_edge.compiler.camera import ends_of
from mggc_edge.compiler.facts import OnnxFacts, onnx_facts, read_onnx
from mggc_edge.compiler.finishing import Exported, written_artifact
from mggc_edge.compiler.precision.form import Int8Form, form_of
from mggc_edge.compiler.precision.fp16 import floats_to_observe, to_fp16
from mggc_edge.compiler.precision.int8 import ASKED, Layer, find_layers, named, quantized, tensors_to_observe
from mggc_edge.compiler.precision.judge import Difference, FloatOutputs, Judgement, Speed, speeds
from mggc_edge.compiler.precision.sensitivity import Sensitivity, find_sensitivity
from mggc_edge.compiler.precision.wanted import Precisions, Tell, findings_of
from mggc_edge.compiler.targets import this_target
from mggc_edge.errors import ArtifactError
from mggc_edge.lazy import require
from mggc_edge.pictures import USUAL_COLORS, PictureFormat, Size
from mggc_edge.settings import Settings

if TYPE_CHECKING:
    import onnx

KEEP_AUTO = "auto"
RANGES = "ranges.json"  # ending of the ranges beside an int8 file
COMPARED = 4  # pictures that ways to find ranges are compared on


@dataclass(frozen=True)
class Variant:
    """A file of another precision.

    Attributes:
        difference: from the float file, on held-out pictures.
        reason: why it is rejected; None where it is not.
        speed: against the float file on this machine.
        in_float: nodes that stayed in float, each with its reason.
        sensitivity: of int8: what the layers cost; None where that was not looked at.
        calibration: the method, and `Samples.to_json`.
        by_engine: what each engine that is to run it makes of the same file, as they round in their own ways.
    """

    artifact: OnnxArtifact
    difference: Difference
    reason: str | None
    speed: Speed
    in_float: tuple[tuple[str, str], ...]
    sensitivity: Sensitivity | None
    calibration: dict[str, Any]
    min_psnr: float
    by_engine: Mapping[str, Judgement] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether it is worth having."""
        return self.reason is None

    @property
    def near(self) -> bool:
        """Whether its pictures are near enough, however fast it is."""
        return self.accepted or self.reason == self.speed.reason

    @property
    def near_anywhere(self) -> bool:
        """Whether its pictures are near enough in any of the engines that are to run it."""
        return self.near or any(one.reason is None for one in self.by_engine.values())

    def judged_by(self, engine: str) -> Variant:
        """Return the same with the pictures of the engine that its graph is for."""
        found = self.by_engine.get(engine)
        return self if found is None else replace(self, difference=found.difference, reason=found.reason)

    def verdict(self) -> dict[str, Any]:
        """Return what the JSON of a command and the manifest say of it, beside what they say of every file."""
        return {
            "accepted": self.accepted,
            "reason": self.speed.said if self.accepted else self.reason,
            **self.difference.to_json(),
            "min_psnr": self.min_psnr,
            "speed": self.speed.to_json(),
            "in_float": [{"name": name, "reason": reason} for name, reason in self.in_float],
            "sensitivity": None if self.sensitivity is None else self.sensitivity.to_json(),
            "calibration": self.calibration,
        }

    def to_json(self, root: Path) -> dict[str, Any]:
        """Return its entry in the manifest of the folder `root`."""
        return {**self.artifact.to_json(root), **self.verdict()}

    def moved(self, before: Path, now: Path) -> Variant:
        """Return the same with the path that its file has once a folder was renamed."""
        path = now / self.artifact.path.relative_to(before)
        return replace(self, artifact=replace(self.artifact, path=path))


def make_variants(
    artifact: OnnxArtifact, wanted: Precisions, *, target: str, tell: Tell, runtimes: Collection[str] = ()
) -> tuple[Variant, ...]:
    """Make files of other precisions beside an fp32 file, and judge their pictures; see `measure_variants` for speed.

    Args:
        artifact: a proven fp32 file of one picture of floats in and one out, of a fixed size.
        target: that it was rewritten for.
        tell: is called with a line at the start of what takes long.
        runtimes: engines that are to run these files: what each makes of them is in `Variant.by_engine`.

    Raises:
        PictureError: the calibration pictures cannot be used.
        ArtifactError: the file is none of these, or cannot be quantized at all.
        OutputError: a file cannot be written.
    """
    if not [name for name in wanted.names if name != "fp32"]:
        return ()
    if artifact.precision != "fp32":
        raise ArtifactError(
            f"'{artifact.path.name}' is in {artifact.precision} already, and other precisions are made from fp32",
            hint="give the network in floats that it was made from, or leave out --precision",
        )
    maker = _Maker(artifact, wanted, target, tell, runtimes)
    return tuple(maker.make(name) for name in dict.fromkeys(wanted.names) if name != "fp32")


def measure_variants(
    fp32: Path, files: Mapping[str, Path], wanted: Precisions, *, target: str, runtime: str, seed: int, tell: Tell
) -> Mapping[str, Speed]:
    """Return how fast files of other precisions are against the fp32 file; empty where that is not to be measured.

    All of them have been run before: where a measuring process fails, their speed is not known, which is said.

    Args:
        fp32, files: what is run, by precision.
        target: that they were made for; only where it is this machine, or `precision.speed` says so, is measured.
        runtime: the engine that runs them.
        seed: of the order of the measurement.
    """
    how: str = wanted.settings["precision.speed"]
    here = how == "always" or (how == "auto" and target != PORTABLE and target == this_target())
    if not files or not here:
        return {}
    tell(f"measuring other precisions against fp32 in {runtime}: fresh processes, in pairs")
    try:
        return speeds(fp32, files, wanted.settings, seed, runtime)
    except ArtifactError as error:
        return dict.fromkeys(files, Speed(said=f"its speed could not be measured: {error.message}"))


def with_speeds(variants: Sequence[Variant], found: Mapping[str, Speed]) -> tuple[Variant, ...]:
    """Return files with what was measured of them, by precision: what is not faster is rejected."""
    return tuple(
        replace(one, speed=speed, reason=one.reason or speed.reason)
        for one in variants
        for speed in [found.get(one.artifact.precision, one.speed)]
    )


def judgements(exported: Exported) -> dict[tuple[str, str], Judgement]:
    """Return what became of the pictures of other precisions, by engine and precision."""
    return {
        (engine, one.artifact.precision): judgement
        for one in exported.variants
        for engine, judgement in one.by_engine.items()
    }


def variant_entries(exported: Exported, root: Path) -> list[dict[str, Any]]:
    """Return the entries of a manifest for what lies beside an fp32 file: other precisions, and ranges."""
    entries = [variant.to_json(root) for variant in exported.variants]
    ranges = ranges_of(exported)
    return entries if ranges is None else [*entries, file_entry(ranges, root, parent=exported.artifact.sha256)]


def ranges_of(exported: Exported) -> Path | None:
    """Return the file of the ranges that an int8 file was made with; None where there is none."""
    if any(variant.artifact.precision == "int8" for variant in exported.variants):
        return variant_path(exported.artifact.path, RANGES)
    return None


def moved(exported: Exported, before: Path, now: Path) -> Exported:
    """Return the same export with the paths that its files have once the folder `before` was renamed."""
    path = now / exported.artifact.path.relative_to(before)
    artifact = replace(exported.artifact, path=path)
    return replace(exported, artifact=artifact, variants=tuple(one.moved(before, now) for one in exported.variants))


class _Maker:
    """Makes variants of one file, on the same calibration pictures."""

    def __init__(
        self, artifact: OnnxArtifact, wanted: Precisions, target: str, tell: Tell, runtimes: Collection[str]
    ) -> None:
        self._parent, self._wanted, self._tell, self._runtimes = artifact, wanted, tell, runtimes
        self._settings = settings = wanted.settings
        self._model = named(read_onnx(artifact.path))
        facts = onnx_facts(artifact.path)
        size, format_ = _pictures_of(artifact.path, facts, settings)
        if "input_format" not in facts.metadata and not settings["export.picture_range"]:
            tell(
                f"note: '{artifact.path.name}' does not say which values black and white have; it is calibrated on "
                "pictures from -1 to 1 (--set export.picture_range=0,255 says others)"
            )
        self._samples: Samples = wanted.choose(size, format_)
        values = _output_range(facts, settings)
        self._floats = FloatOutputs(artifact.path, self._samples.held_out, values)
        self._form: Int8Form = form_of(target, settings["quantize.activations"], settings["quantize.weight_bits"])

    def make(self, precision: str) -> Variant:
        """Make the file of a precision."""
        self._tell(f"making the {precision} file on {self._samples.observed_count} calibration pictures")
        return self._fp16() if precision == "fp16" else self._int8()

    def _fp16(self) -> Variant:
        ranges = find_ranges(self._model, floats_to_observe(self._model), self._samples, Finding("min-max"))
        model, kept = to_fp16(self._model, ranges)
        in_float = tuple((one.name, one.reason) for one in kept)
        return self._judged(model, "fp16", "min-max", in_float, None)

    def _int8(self) -> Variant:
        settings, form = self._settings, self._form
        last_in_float = settings["quantize.last_layer"] == "float"
        asked: str = settings["quantize.keep_float"].strip()
        keep = [] if asked in ("", KEEP_AUTO) else [name.strip() for name in asked.split(",")]
        layers = find_layers(self._model, form, keep_float=keep, last_in_float=last_in_float)
        if all(layer.reason is not None for layer in layers):
            raise ArtifactError(
                f"no convolution of '{self._parent.path.name}' can be quantized: {_why(layers)}",
                hint="leave out int8",
            )
        ranges = self._ranges(layers)
        write_json(variant_path(self._parent.path, RANGES), ranges.to_json())

        def build(chosen: Collection[str]) -> tuple[onnx.ModelProto, tuple[Layer, ...]]:
            only = [layer if layer.name in chosen else replace(layer, reason=layer.reason or ASKED) for layer in layers]
            return quantized(self._model, ranges, form, only)

        names = [layer.name for layer in layers if layer.reason is None]
        model, done = build(names)
        difference = self._floats.difference(model)
        sensitivity = None
        when: str = settings["quantize.sensitivity"]
        passes = difference.at_least(self._wanted.min_psnr)
        if when == "always" or (not passes and (when == "rejected" or asked == KEEP_AUTO)):
            names = [layer.name for layer in done if layer.reason is None]
            self._tell(f"measuring how much each of {len(names)} layers costs in 8 bits")
            sensitivity = find_sensitivity(
                names, lambda chosen: self._floats.difference(build(chosen)[0]), self._wanted.min_psnr
            )
            if asked == KEEP_AUTO and sensitivity.keep_float:
                model, done = build([name for name in names if name not in sensitivity.keep_float])
        in_float = tuple((layer.name, layer.reason) for layer in done if layer.reason is not None)
        return self._judged(model, "int8", ranges.method, in_float, sensitivity)

    def _ranges(self, layers: Sequence[Layer]) -> ActivationRanges:
        """Return the ranges that bring the output nearest to the float one, of those ways that the settings want.

        Ways are compared on pictures that ranges are found on: those that judge the file take no part in the choice.
        """
        names = tensors_to_observe(self._model, layers, self._form)
        found = list(find_by_each(self._model, names, self._samples, findings_of(self._settings)).values())
        if len(found) == 1:
            return found[0]
        floats = FloatOutputs(
            self._parent.path, lambda: islice(self._samples.observed(), COMPARED), self._floats.data_range
        )

        def psnr(ranges: ActivationRanges) -> float:
            value = floats.difference(quantized(self._model, ranges, self._form, layers)[0]).psnr
            return math.inf if value is None else value

        return max(found, key=psnr)

    def _judged(
        self,
        model: onnx.ModelProto,
        precision: str,
        method: str,
        in_float: tuple[tuple[str, str], ...],
        sensitivity: Sensitivity | None,
    ) -> Variant:
        """Write a graph beside the fp32 file, and compare the two."""
        properties = {entry.key: entry.value for entry in model.metadata_props}
        properties |= {
            f"{METADATA_PREFIX}precision": precision,
            f"{METADATA_PREFIX}parent_sha256": self._parent.sha256,
            f"{METADATA_PREFIX}calibration": json.dumps({"method": method, "sha256": self._samples.sha256}),
        }
        require("onnx.helper", extra="onnx").set_model_props(model, properties)
        path = variant_path(self._parent.path, f"{precision}.onnx")
        with writing(path):
            path.write_bytes(model.SerializeToString())
        artifact = written_artifact(
            path,
            tensors=(self._parent.inputs, self._parent.outputs),
            precision=precision,
            parent_sha256=self._parent.sha256,
            settings=self._parent.settings,
        )
        last = precision == "int8" and self._settings["quantize.last_layer"] != "float"

        def judged(runtime: str) -> Judgement:
            difference = self._floats.of(path, runtime)
            return Judgement(difference, difference.reason(self._wanted.min_psnr, last_in_8_bits=last))

        here, by_engine = judged(ONNX_RUNTIME), dict[str, Judgement]()
        for runtime in self._runtimes:
            with contextlib.suppress(ArtifactError):  # said where the file is proven there
                by_engine[runtime] = here if runtime == ONNX_RUNTIME else judged(runtime)
        return Variant(
            artifact,
            here.difference,
            here.reason,
            Speed(),
            in_float,
            sensitivity,
            {"method": method, **self._samples.to_json()},
            self._wanted.min_psnr,
            by_engine,
        )


def _why(layers: Sequence[Layer]) -> str:
    """Return the most frequent reason why layers stay in float."""
    found = [layer.reason for layer in layers if layer.reason is not None]
    return max(found, key=found.count) if found else "it has none"


def _pictures_of(path: Path, facts: OnnxFacts, settings: Settings) -> tuple[Size, PictureFormat]:
    """Return size and format of the pictures that a file takes.

    Where the file says nothing of them, the format is what `export.picture_range` and `export.picture_color` say, or
    else RGB, L or RGBA from -1 to 1.
    """
    pictures, channels, height, width = facts.inputs[0].shape
    if pictures not in (None, 1):
        raise ArtifactError(
            f"'{path.name}' takes {pictures} pictures at once, and other precisions are made from files of one",
            hint="export it for one picture, or leave out --precision",
        )
    if channels is None or height is None or width is None:
        raise ArtifactError(f"'{path.name}' takes pictures of any size", hint="give one with --image-size")
    if (given := facts.metadata.get("input_format")) is not None:
        return (height, width), _format(path, given)
    if channels not in USUAL_COLORS and width in USUAL_COLORS:
        raise ArtifactError(
            f"'{path.name}' takes [N, H, W, C], and other precisions are made from files that take [N, C, H, W]",
            hint="export the network so; --io uint8 then makes a file that takes [N, H, W, C]",
        )
    usual = PictureFormat.for_channels(channels)
    if not settings["export.picture_range"]:
        return (height, width), usual
    low, high = ends_of(settings["export.picture_range"])
    color = settings["export.picture_color"] if usual.color == "RGB" else usual.color
    return (height, width), replace(usual, color=color, low=low, high=high)


def _output_range(facts: OnnxFacts, settings: Settings) -> float | None:
    """Return the difference of the largest and the smallest possible output; None where nobody says it."""
    if (given := facts.metadata.get("output_format")) is not None:
        output = _format(Path("the file"), given)
        return output.high - output.low
    if not settings["export.picture_range"]:
        return None
    low, high = ends_of(settings["export.picture_range"])
    return high - low


def _format(path: Path, text: str) -> PictureFormat:
    try:
        return PictureFormat.from_json(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"the metadata of '{path.name}' is damaged: {error}") from error

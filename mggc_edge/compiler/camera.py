"""Camera-ready graphs: bytes in, bytes out, as a camera gives them and a screen takes them.

    picture uint8 [N, H, W, C]  ->  values float32 [N, C, H, W]  ->  the graph  ->  picture uint8 [N, H, W, C]

in the order RGB, with one channel as grey and four as RGBA. Colour order and range of the network are inside:

    value = (level - k) / d,        k = -low * 255 / (high - low),   d = 255 / (high - low)
    level = round((value - low) * d), ties to even, clipped to 0 .. 255

which are the conversions of `mggc_edge.pictures`. The first is so bit for bit, and where that formula would not be
(this is looked at for all 256 levels) a table takes its place: a network sees exactly what it sees of a picture that
was read in floats. The second is computed in float32, and may round the other way where a value lies on a boundary.

The casts are the first and the last operator, since TensorRT takes bytes nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mggc_edge.artifacts import BYTES_IO, METADATA_PREFIX, OnnxArtifact, sha256_of, writing
from mggc_edge.backends.levels import LevelRunner
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.compiler.facts import read_onnx
from mggc_edge.compiler.finishing import Exported, random_pictures
from mggc_edge.compiler.sizes import picture_input
from mggc_edge.errors import ArtifactError, SettingError
from mggc_edge.lazy import require
from mggc_edge.models.layers import Size
from mggc_edge.pictures import PictureFormat
from mggc_edge.quality.parity import ParityReport, check_parity
from mggc_edge.tensors import Array, TensorSpec

if TYPE_CHECKING:
    import onnx

LEVEL = 1.0  # how far a picture of bytes may be from that of the floats
LEVELS = (0.0, 255.0)


def camera_ready(model: onnx.ModelProto, input_format: PictureFormat, output_format: PictureFormat) -> onnx.ModelProto:
    """Return the graph with bytes around it; its input and output keep their names, and its metadata says `io=uint8`.

    Args:
        model: opset 13 or newer, with one picture float32 [N, C, H, W] in and one out.
        input_format, output_format: of its floats.
    """
    ready = type(model)()
    ready.CopyFrom(model)
    graph, build = ready.graph, _Builder(ready)
    picture = picture_input(ready)
    assert picture is not None
    (result,) = graph.output
    names = picture.name, result.name
    values, given = (build.name(f"{name}_values") for name in names)
    for old, new in zip(names, (values, given), strict=True):
        _rename(graph, old, new)
    before = build.in_floats(names[0], values, input_format)
    after = build.in_bytes(given, names[1], output_format)
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    for value, form in ((picture, input_format), (result, output_format)):
        value.CopyFrom(_bytes_of(value, form.channels))
    said = {
        "io": BYTES_IO,
        "input_format": json.dumps(input_format.in_bytes.to_json()),
        "output_format": json.dumps(output_format.in_bytes.to_json()),
    }
    metadata = {entry.key: entry.value for entry in ready.metadata_props}
    metadata |= {METADATA_PREFIX + key: value for key, value in said.items()}
    require("onnx.helper", extra="onnx").set_model_props(ready, metadata)
    require("onnx", extra="onnx").checker.check_model(ready)
    return ready


@dataclass(frozen=True)
class Camera:
    """How bytes are put around files of floats.

    Attributes:
        formats: of the floats that go in and come out.
        size: (height, width) of the pictures that the two are compared on.
        pictures, batches, seed: how many random ones, of which batch sizes.
    """

    formats: tuple[PictureFormat, PictureFormat]
    size: Size
    pictures: int
    batches: tuple[int, ...] = (1,)
    seed: int = 0

    def around(self, exported: Exported) -> Exported:
        """Put bytes around a file, and around those of other precisions beside it, in their places.

        Raises:
            CheckFailedError: a picture of bytes differs by more than one level from that of the floats.
        """
        artifact, report = self._around(exported.artifact, exported.artifact.parent_sha256)
        variants = [replace(one, artifact=self._around(one.artifact, artifact.sha256)[0]) for one in exported.variants]
        return replace(exported, artifact=artifact, camera=report, variants=tuple(variants))

    def _around(self, artifact: OnnxArtifact, parent: str | None) -> tuple[OnnxArtifact, ParityReport]:
        """Put bytes around a file; `parent`: hash of what it was made from, once that has bytes around it too."""
        path, model = artifact.path, read_onnx(artifact.path)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        metadata[f"{METADATA_PREFIX}parent_sha256"] = parent or ""
        require("onnx.helper", extra="onnx").set_model_props(model, metadata)
        report, inputs, outputs = make_camera_ready(
            path, model, self.formats, self.size, pictures=self.pictures, batches=self.batches, seed=self.seed
        )
        sha256, size_bytes = sha256_of(path), path.stat().st_size
        made = replace(artifact, sha256=sha256, size_bytes=size_bytes, inputs=inputs, outputs=outputs)
        return replace(made, parent_sha256=parent), report


def make_camera_ready(
    path: Path,
    model: onnx.ModelProto,
    formats: tuple[PictureFormat, PictureFormat],
    size: Size,
    *,
    pictures: int,
    batches: Sequence[int] = (1,),
    seed: int = 0,
) -> tuple[ParityReport, tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Put the camera-ready graph of `model` in the place of the file `path` that holds it, once it is proven.

    Args:
        formats: of the floats that go in and come out.
        size: (height, width) of the pictures that the two are compared on.
        pictures, batches, seed: how many random ones of which batch sizes.

    Returns:
        The proof, in levels, and inputs and outputs of the new file.

    Raises:
        CheckFailedError: a picture of the two differs by more than one level.
    """
    new = path.with_name(f"{path.name}.camera")
    feeds = random_pictures(pictures, tuple(batches), (formats[0].channels, *size), seed, LEVELS)
    try:
        with writing(path):
            new.write_bytes(camera_ready(model, *formats).SerializeToString())
        report, inputs, outputs = _compared(path, new, formats, map(np.rint, feeds))
        report.check("the graph of bytes does not give the pictures of the graph of floats, in levels")
        with writing(path):
            path.write_bytes(new.read_bytes())
    finally:
        new.unlink(missing_ok=True)
    return report, inputs, outputs


def _compared(
    floats: Path, camera: Path, formats: tuple[PictureFormat, PictureFormat], feeds: Iterable[Array]
) -> tuple[ParityReport, tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    with (
        OnnxRuntimeRunner(floats) as a,
        OnnxRuntimeRunner(camera) as b,
        LevelRunner(a, *formats) as reference,
        LevelRunner(b, *(form.in_bytes for form in formats)) as candidate,
    ):
        report = check_parity(reference, candidate, feeds, atol=LEVEL, data_range=LEVELS[1] - LEVELS[0])
        return report, b.inputs, b.outputs


def formats_of(
    source: Path, tensors: tuple[TensorSpec, TensorSpec], metadata: Mapping[str, str], values: str, color: str
) -> tuple[PictureFormat, PictureFormat]:
    """Return the formats of the floats that a file takes and gives: what it says of them, or else what the user does.

    Args:
        tensors: its input and its output.
        metadata: what it says of itself, without our prefix.
        values: the values of black and of white, as "-1,1"; "" where the user says nothing.
        color: with them, the order of three channels: "RGB" or "BGR".

    Raises:
        ArtifactError: nobody says the values, or pictures have another number of channels than 1, 3 and 4.
        SettingError: the values are none.
    """
    made = []
    for key, tensor in zip(("input_format", "output_format"), tensors, strict=True):
        if tensor.channels not in (1, 3, 4):
            shown = "any number of" if tensor.channels is None else tensor.channels
            raise ArtifactError(f"'{source}' has pictures of {shown} channels; as bytes 1, 3 and 4 are possible")
        if key in metadata:
            try:
                made.append(PictureFormat.from_json(json.loads(metadata[key])))
            except (ValueError, RecursionError) as error:
                raise ArtifactError(f"the metadata of '{source}' is damaged: {error}") from error
        elif values:
            usual = PictureFormat.for_channels(tensor.channels)
            low, high = ends_of(values)
            made.append(replace(usual, color=color if usual.color == "RGB" else usual.color, low=low, high=high))
        else:
            raise ArtifactError(
                f"'{source}' does not say which values black and white have, so that it cannot be given bytes",
                hint="say them: --set export.picture_range=-1,1, and export.picture_color=BGR where colours are in "
                "that order",
            )
    return made[0], made[1]


def ends_of(values: str) -> tuple[float, float]:
    """Return the values of black and of white that the setting `export.picture_range` says; SettingError for none."""
    try:
        low, high = map(float, values.split(","))
    except ValueError:
        raise SettingError(
            f"setting export.picture_range must be two numbers, not '{values}'",
            hint="the values of black and of white, as -1,1",
        ) from None
    return low, high


class _Builder:
    """Makes nodes and constants with names that are not taken in a model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._helper = require("onnx.helper", extra="onnx")
        self._types = require("onnx", extra="onnx").TensorProto
        self._taken = set(_names(model.graph))

    def name(self, wanted: str) -> str:
        """Return a name that nothing has, `wanted` where that is free."""
        found, number = wanted, 1
        while found in self._taken:
            found, number = f"{wanted}_{number}", number + 1
        self._taken.add(found)
        return found

    def in_floats(self, source: str, target: str, form: PictureFormat) -> list[onnx.NodeProto]:
        """Return the nodes from bytes [N, H, W, C] to the values of a network, [N, C, H, W]."""
        formula = exact_formula(form)
        if formula is None:
            levels = self._constant("levels", form.levels())
            steps = [("Cast", [], {"to": self._types.INT32}), ("Gather", [levels], {"axis": 0})]
        else:
            shift, scale = (self._constant(name, np.float32(n)) for name, n in zip(("k", "d"), formula, strict=True))
            steps = [("Cast", [], {"to": self._types.FLOAT}), ("Sub", [shift], {}), ("Div", [scale], {})]
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
        return self._chain(source, target, [*steps, *self._swap(form, axis=1)])

    def in_bytes(self, source: str, target: str, form: PictureFormat) -> list[onnx.NodeProto]:
        """Return the nodes from the values of a network, [N, C, H, W], to bytes [N, H, W, C]."""
        low = self._constant("low", np.float32(form.low))
        scale = self._constant("scale", np.float32(255 / (form.high - form.low)))
        ends = [self._constant(name, np.float32(level)) for name, level in zip(("black", "white"), LEVELS, strict=True)]
        return self._chain(
            source,
            target,
            [
                *self._swap(form, axis=1),
                ("Transpose", [], {"perm": [0, 2, 3, 1]}),
                ("Sub", [low], {}),
                ("Mul", [scale], {}),
                ("Round", [], {}),
                ("Clip", ends, {}),
                ("Cast", [], {"to": self._types.UINT8}),
            ],
        )

    def _swap(self, form: PictureFormat, axis: int) -> list[tuple[str, list[str], dict[str, object]]]:
        if form.color != "BGR":
            return []
        return [("Gather", [self._constant("bgr", np.array([2, 1, 0], np.int64))], {"axis": axis})]

    def _constant(self, name: str, value: np.generic | Array) -> str:
        name = self.name(f"camera_{name}")
        make = require("onnx.numpy_helper", extra="onnx").from_array
        self._model.graph.initializer.append(make(np.asarray(value), name))
        return name

    def _chain(
        self, source: str, target: str, steps: Sequence[tuple[str, list[str], dict[str, object]]]
    ) -> list[onnx.NodeProto]:
        nodes = []
        for number, (operator, more, attributes) in enumerate(steps):
            result = target if number == len(steps) - 1 else self.name(f"{target}_{operator}")
            # A table is gathered from, and a picture has colours gathered: what is gathered from comes first.
            inputs = [*more, source] if operator == "Gather" and attributes["axis"] == 0 else [source, *more]
            name = self.name(f"{result}_node")
            nodes.append(self._helper.make_node(operator, inputs, [result], name=name, **attributes))
            source = result
        return nodes


def exact_formula(form: PictureFormat) -> tuple[float, float] | None:
    """Return k and d of the formula above where it gives the values of all levels, bit for bit."""
    scale = 255 / (form.high - form.low)
    shift, factor = np.float32(-form.low * scale), np.float32(scale)
    values = (np.arange(256, dtype=np.float32) - shift) / factor
    return (float(shift), float(factor)) if np.array_equal(values, form.levels()) else None


def _bytes_of(value: onnx.ValueInfoProto, channels: int) -> onnx.ValueInfoProto:
    """Return the description of a picture [N, C, H, W] as that of bytes [N, H, W, C]."""
    new = type(value)()
    new.name = value.name
    tensor, dims = new.type.tensor_type, value.type.tensor_type.shape.dim
    tensor.elem_type = require("onnx", extra="onnx").TensorProto.UINT8
    for axis in (0, 2, 3):
        dim = tensor.shape.dim.add()
        if axis < len(dims):
            dim.CopyFrom(dims[axis])
    tensor.shape.dim.add().dim_value = channels
    return new


def _names(graph: onnx.GraphProto) -> Iterable[str]:
    for value in (*graph.input, *graph.output, *graph.initializer):
        yield value.name
    for node in graph.node:
        yield from (node.name, *node.input, *node.output)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _names(attribute.g)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a tensor wherever nodes read or write it, in subgraphs too, which see the names around them."""
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, old, new)
                for value in attribute.g.output:
                    value.name = new if value.name == old else value.name

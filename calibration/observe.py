"""Inner tensors of an ONNX graph, as ONNX Runtime computes them: of a copy of the graph whose outputs they are.

Values are handed on picture by picture and kept by nobody here. Tensors that would take more than MAX_BYTES at once are
observed in several goes, so that memory stays bounded whatever the graph: a 256x256 ResNet-9 alone has gigabytes.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.calibration.samples import Stream
from mggc_edge.errors import ArtifactError
from mggc_edge.lazy import require
from mggc_edge.tensors import Array

if TYPE_CHECKING:
    import onnx

MAX_BYTES = 2**28  # of all tensors that are observed at once
FLOAT_BYTES = 4


def observe(
    model: onnx.ModelProto,
    names: Sequence[str],
    pictures: Stream,
    see: Callable[[str, Array], None],
    *,
    max_bytes: int = MAX_BYTES,
) -> int:
    """Run a graph on pictures and show every value of its inner tensors to `see`.

    Args:
        model: with one picture in; its weights are in it.
        names: of float32 tensors that nodes of the graph compute, or of its input.
        pictures: are gone through once for every group of tensors that fits into `max_bytes`.
        see: gets the name and the array, for every tensor and picture; in the order of the pictures for each tensor.

    Returns:
        How many pictures there were.

    Raises:
        ArtifactError: a tensor is not there, or the graph cannot be run.
    """
    computed = {name for node in model.graph.node for name in node.output}
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise ArtifactError(f"a graph with {len(inputs)} inputs cannot be observed on pictures")
    for name in names:
        if name not in computed and name != inputs[0]:
            raise ArtifactError(f"the graph has no tensor '{name}'", hint="were the ranges found on another graph?")
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        for group in _groups(names, _sizes(model), max_bytes):
            path = Path(folder, "observed.onnx")
            path.write_bytes(_with_outputs(model, [name for name in group if name != inputs[0]]).SerializeToString())
            with OnnxRuntimeRunner(path) as runner:
                count = 0
                for picture in pictures():
                    values = {inputs[0]: picture, **runner.infer({runner.inputs[0].name: picture})}
                    for name in group:
                        see(name, values[name])
                    count += 1
    return count


def _groups(names: Sequence[str], sizes: Mapping[str, int], max_bytes: int) -> Iterator[list[str]]:
    """Yield the names in groups whose tensors fit into `max_bytes` together; one that is larger comes alone.

    A tensor whose size does not follow counts as the largest that does.
    """
    usual = max(sizes.values(), default=max_bytes)
    group: list[str] = []
    filled = 0
    for name in dict.fromkeys(names):
        size = sizes.get(name, usual)
        if group and filled + size > max_bytes:
            yield group
            group, filled = [], 0
        group.append(name)
        filled += size
    if group:
        yield group


def _sizes(model: onnx.ModelProto) -> dict[str, int]:
    """Return the bytes of every tensor whose shape follows, for one picture."""
    graph = require("onnx.shape_inference", extra="onnx").infer_shapes(model).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    # The number of pictures may be open; it is 1 here.
    bytes_of = {
        name: FLOAT_BYTES * math.prod([max(1, *shape[:1]), *shape[1:]]) for name, shape in shapes.items() if shape
    }
    return {name: size for name, size in bytes_of.items() if size > 0}


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a copy of a graph that gives these float32 tensors as well."""
    onnx_module = require("onnx", extra="onnx")
    helper = require("onnx.helper", extra="onnx")
    copy: onnx.ModelProto = onnx_module.ModelProto()
    copy.CopyFrom(model)
    there = {value.name for value in copy.graph.output}
    for name in names:
        if name not in there:
            copy.graph.output.append(helper.make_tensor_value_info(name, onnx_module.TensorProto.FLOAT, None))
    return copy

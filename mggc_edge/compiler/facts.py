"""Facts about an ONNX file that carry no noise: operators, parameters, multiplications, inputs and outputs."""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mggc_edge.artifacts import METADATA_PREFIX
from mggc_edge.compiler.bounds import check_contents, check_fields, check_runnable
from mggc_edge.errors import ArtifactError, MissingDependencyError, SpecError
from mggc_edge.lazy import require
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.tensors import TensorSpec

if TYPE_CHECKING:
    import onnx

ROUNDERS = ("QuantizeLinear", "DequantizeLinear")
CROPPING = ("transposed_convolution", "transposed_convolution_any")  # passes that leave out what is cropped
MAX_ONNX_BYTES = 2 * 2**30
_Counted = tuple["onnx.NodeProto", int, int, int]  # a convolution's MACs: true, paper, and uncropped, see `_uncropped`


@dataclass(frozen=True)
class OnnxFacts:
    """What an ONNX file is.

    Attributes:
        inputs, outputs: names, types and shapes; None stands for a size that is left open.
        operators: how often each operator occurs.
        parameters: elements of the weights in the file, floating-point or 8-bit, without scales and zero points, and
            without scalars.
        precision: "int8" where it has 8-bit weights, "fp16" where it has weights in float16, else "fp32".
        macs_true, macs_paper: multiply-accumulate operations of its convolutions for one picture, in the conventions
            of `mggc_edge.models.cost`; None where the file leaves open, or contradicts, what they depend on. Of a graph
            that passes rewrote, those of the graph before, as its metadata has them.
        macs_executed: what the convolutions in the file multiply, rewritten or not, as `macs_true` is counted.
        opset: version of the ONNX operators.
        metadata: what this package wrote into it, without the prefix; empty for files from elsewhere.
        spec: the network it was exported from, where the metadata says so.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: Mapping[str, int]
    parameters: int
    precision: str
    macs_true: int | None
    macs_paper: int | None
    macs_executed: int | None
    opset: int
    metadata: Mapping[str, str]
    spec: NetworkSpec | None


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file that carries its own weights.

    Raises:
        ArtifactError: it is missing, damaged, too large, keeps its weights in other files, or stands for more than it
            has a right to (see `mggc_edge.compiler.bounds`).
    """
    with _reading(path):
        model = _parsed(path, external=False)
        if not model.graph.node or not model.graph.input:
            raise ArtifactError("it has no graph")
        require("onnx", extra="onnx").checker.check_model(model)
    return model


def parse_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file whose weights may be in other files, which are not looked at; nor is the graph checked.

    Raises:
        ArtifactError: as `read_onnx`, but for those.
    """
    with _reading(path):
        return _parsed(path, external=True)


def _parsed(path: Path, *, external: bool) -> onnx.ModelProto:
    if path.exists() and not path.is_file():
        raise ArtifactError("it is not a regular file")
    size = path.stat().st_size
    if size > MAX_ONNX_BYTES:
        raise ArtifactError(f"it has {size:,} bytes; ONNX files with their weights have at most 2 GiB")
    data = path.read_bytes()
    check_fields(data)
    model: onnx.ModelProto = require("onnx", extra="onnx").load_model_from_string(data)
    del data
    check_contents(model, external=external)
    return model


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say in one sentence what is wrong with a file."""
    require("onnx", extra="onnx")
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(f"'{path}' is not a valid ONNX file: {error.message}", error.hint) from None
    except OSError as error:
        raise ArtifactError(f"'{path}' cannot be read: {error.strerror or error}") from error
    except Exception as error:  # protobuf and the checker raise many kinds for damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        hint = "is the file complete?"
        if reason.startswith("No Op registered"):
            hint = "an operator that is not ONNX's own stands in a domain of its own; or the file says too old an opset"
        raise ArtifactError(f"'{path}' is not a valid ONNX file: {reason}", hint=hint) from error


def check_onnx(path: Path) -> None:
    """Check that an ONNX file is sound, and that running it takes bounded time and memory.

    Raises:
        ArtifactError: see `read_onnx` and `check_runnable`.
    """
    model = read_onnx(path)
    try:
        check_runnable(model)
    except ArtifactError as error:
        raise ArtifactError(f"'{path}' is not run: {error.message}", error.hint) from None
    except MissingDependencyError:
        raise
    except Exception as error:  # the C++ inference raises many kinds
        raise ArtifactError(f"the shapes in '{path}' contradict each other: {str(error)[:160]}") from error


def onnx_facts(path: Path) -> OnnxFacts:
    """Read an ONNX file and return the facts about it.

    Raises:
        ArtifactError: see `read_onnx`.
    """
    model = read_onnx(path)
    onnx_module = require("onnx", extra="onnx")
    metadata = {
        entry.key.removeprefix(METADATA_PREFIX): entry.value
        for entry in model.metadata_props
        if entry.key.startswith(METADATA_PREFIX)
    }
    floats = {getattr(onnx_module.TensorProto, name) for name in ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16")}
    tensors = constants_of(model)
    weights = {name: tuple(tensor.dims) for name, tensor in tensors.items()}
    stored = _stored(model, tensors)
    half = any(tensor.data_type == onnx_module.TensorProto.FLOAT16 for tensor in tensors.values())
    grids = {name for node in model.graph.node if node.op_type in ROUNDERS for name in node.input[1:]}
    convolutions = _convolutions(model, _weights(model))
    counted = _sums(convolutions)
    macs_true, macs_paper = _before_passes(metadata, counted, convolutions or ())
    return OnnxFacts(
        inputs=tuple(_tensor_spec(value) for value in model.graph.input if value.name not in weights),
        outputs=tuple(_tensor_spec(value) for value in model.graph.output),
        operators=dict(Counter(node.op_type for node in model.graph.node).most_common()),
        parameters=sum(
            math.prod(tensor.dims)
            for name, tensor in tensors.items()
            if name in stored or (tensor.data_type in floats and name not in grids and tensor.dims)
        ),
        precision="int8" if stored else "fp16" if half else "fp32",
        macs_true=macs_true,
        macs_paper=macs_paper,
        macs_executed=counted[0],
        opset=opset_of(model),
        metadata=metadata,
        spec=_spec(metadata),
    )


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that a model is written in; 0 where it says none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def count_macs(model: onnx.ModelProto) -> tuple[int | None, int | None]:
    """Return the multiply-accumulate operations of a graph's convolutions as they are executed, (true, paper)."""
    return _sums(_convolutions(model, _weights(model)))


def _stored(model: onnx.ModelProto, tensors: Mapping[str, onnx.TensorProto]) -> Mapping[str, str]:
    """Return the constants that are stored as integers: by name, what stands for them once they are floats."""
    return {
        node.input[0]: node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors
    }


def _before_passes(
    metadata: Mapping[str, str], counted: tuple[int | None, int | None], convolutions: Sequence[_Counted]
) -> tuple[int | None, int | None]:
    """Return the MACs that a file had before passes rewrote it.

    What the metadata says is a claim. One above what is executed is not believed: no pass saves multiplications but
    those for transposed convolutions, which leave out what is cropped; after them, one above what may have been there.
    """
    try:
        claimed = int(metadata["macs_true"]), int(metadata["macs_paper"])
    except (KeyError, ValueError):
        return counted
    passes = metadata.get("passes", "").split(",")
    most = sum(uncropped if set(CROPPING) & set(passes) else true for _, true, _, uncropped in convolutions)
    return claimed if any(passes) and 0 < claimed[0] <= most and claimed[1] > 0 else counted


def constants_of(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Return every tensor in the graph by name: initializers, and what Constant nodes hold."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensors.update((node.output[0], entry.t) for entry in node.attribute if entry.name == "value")
    return tensors


def _spec(metadata: Mapping[str, str]) -> NetworkSpec | None:
    try:
        return NetworkSpec.from_json(json.loads(metadata["spec"]))
    except (KeyError, ValueError, SpecError, RecursionError):
        return None  # from elsewhere, or from a version that described networks otherwise


def _tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    helper = require("onnx.helper", extra="onnx")
    try:
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
    except (KeyError, ValueError, TypeError):
        raise ArtifactError(f"'{value.name}' has an element type that this version does not know") from None
    return TensorSpec(value.name, dtype, _shape(value))


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim)


def node_macs(model: onnx.ModelProto) -> dict[str, tuple[str, int]] | None:
    """Return what every convolution of a graph multiplies for one picture, as `macs_executed` is counted.

    Returns:
        Name -> (operator, MACs), in the order of the graph; of a node without a name of its own, the name of its first
        output. None where the file leaves open, or contradicts, what they depend on.
    """
    counted = _convolutions(model, _weights(model))
    if counted is None:
        return None
    names = Counter(name for node in model.graph.node for name in (node.name, *node.output))
    return {
        node.name if node.name and names[node.name] == 1 else node.output[0]: (node.op_type, true)
        for node, true, _, _ in counted
    }


def _weights(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all constants, those stored as integers also under the name of what stands for them."""
    tensors = constants_of(model)
    weights = {name: tuple(tensor.dims) for name, tensor in tensors.items()}
    return weights | {output: weights[name] for name, output in _stored(model, tensors).items()}


def _sums(convolutions: Sequence[_Counted] | None) -> tuple[int | None, int | None]:
    """Return the multiply-accumulate operations of all convolutions for one picture, (true, paper)."""
    if convolutions is None:
        return None, None
    return sum(true for _, true, _, _ in convolutions), sum(paper for _, _, paper, _ in convolutions)


def _convolutions(model: onnx.ModelProto, weights: Mapping[str, tuple[int, ...]]) -> list[_Counted] | None:
    """Return every convolution with what it multiplies for one picture; None: not known."""
    try:
        inferred = require("onnx.shape_inference", extra="onnx").infer_shapes(model, strict_mode=True)
    except Exception:  # noqa: BLE001  the C++ inference raises many kinds; what contradicts itself is not counted
        return None
    graph = inferred.graph
    shapes = {value.name: _shape(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    found = []
    for node in graph.node:
        standard = node.domain in ("", "ai.onnx")
        if any(entry.HasField("g") for entry in node.attribute) or (not standard and "Conv" in node.op_type):
            return None  # convolutions that run as often as a condition says, or of an engine's own kind
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        weight = weights.get(node.input[1], ()) if len(node.input) > 1 else ()
        source, target = shapes.get(node.input[0], ())[2:], shapes.get(node.output[0], ())[2:]
        sizes = (*weight, *source, *target)
        if not weight or not source or not target or any(size is None for size in sizes):
            return None
        # Conv weight: [out, in/groups, k...]; ConvTranspose: [in, out/groups, k...]. Either way the product of the
        # weight's sizes is the multiplications of one position.
        per_position = math.prod(weight)
        at_input = per_position * math.prod(size or 0 for size in source)
        at_output = per_position * math.prod(size or 0 for size in target)
        if node.op_type == "ConvTranspose":
            found.append((node, at_input, at_output, at_input))
        else:
            found.append((node, at_output, at_output, per_position * _uncropped(node, weight[2:], target)))
    return found


def _uncropped(node: onnx.NodeProto, kernel: Sequence[int], target: Sequence[int | None]) -> int:
    """Return the places of a picture at which the transposed convolution was, at most, that became a Conv.

    With m taps, and paddings of 0 or more, such a Conv gives at least N - (m - 1) values for N places along an axis;
    where it gives blocks of them, its stride and its kernel are larger.
    """
    strides = next((entry.ints for entry in node.attribute if entry.name == "strides"), [1] * len(target))
    axes = zip(target, kernel, strides, strict=False)
    return math.prod((size or 0) + -(-taps // max(stride, 1)) - 1 for size, taps, stride in axes)

"""What an ONNX file may ask for: fields, nodes, other files, operators and tensor sizes, checked before anything runs.

A few bytes of ONNX can stand for any amount of work: messages of no length, functions that call functions, a shape
that says a million by a million, a loop without an end. Engines take all of it at its word, and some settings crash
ONNX Runtime. Whatever is checked here is checked without doing any of that work.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mggc_edge.errors import ArtifactError
from mggc_edge.lazy import require

if TYPE_CHECKING:
    import onnx

MAX_FIELDS = 2**18  # in memory a field of two bytes can take some hundred
MAX_NODES = 2**16  # with every function written out wherever it is called
MAX_TENSOR_BYTES = 2 * 2**30

_POSITIVE = ("dilations", "group", "kernel_shape", "strides")  # ONNX Runtime divides by them unseen
_UNBOUNDED = frozenset({"Loop", "Scan", "SequenceMap"})  # operators: how long they run is known only afterwards

Function = tuple[str, str, str]  # domain, name, overload


def check_fields(data: bytes) -> None:
    """Count the fields of a serialised model, without building one.

    Raises:
        ArtifactError: there are more than MAX_FIELDS, or it is no protobuf.
    """
    model = require("onnx", extra="onnx").ModelProto.DESCRIPTOR
    count, parts = 0, [(0, len(data), model)]
    try:
        while parts:
            at, end, kind = parts.pop()
            while at < end:
                count += 1
                if count > MAX_FIELDS:
                    raise ArtifactError(f"more than {MAX_FIELDS:,} fields make no generator")
                tag, at = _varint(data, at)
                size, at = _varint(data, at) if tag & 7 in (0, 2) else ({1: 8, 5: 4}[tag & 7], at)
                if tag & 7 == 0:  # a number, which has just been read
                    continue
                field = kind.fields_by_number.get(tag >> 3)
                if tag & 7 == 2 and field is not None and field.message_type is not None:
                    parts.append((at, at + size, field.message_type))
                at += size
            if at != end:
                raise ArtifactError("a part reaches beyond its end")
    except (IndexError, KeyError):
        raise ArtifactError("it is cut off, or no protobuf") from None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise IndexError


def check_contents(model: onnx.ModelProto, *, external: bool = False) -> None:
    """Check what a parsed model holds: its own weights, text that is text, and a bounded number of nodes.

    Args:
        external: weights may be in other files, which are not looked at.

    Raises:
        ArtifactError: it reads other files, has sparse weights, names that are no text, or too many nodes.
    """
    onnx_module = require("onnx", extra="onnx")
    for message in messages(model):
        if isinstance(message, onnx_module.TensorProto) and not external and is_external(message):
            raise ArtifactError(
                "it keeps its weights in another file", hint="mggc-edge export makes a single file of it"
            )
        if isinstance(message, onnx_module.SparseTensorProto):
            raise ArtifactError("it has sparse weights, which are not supported")
    functions = {(f.domain, f.name, f.overload): f.node for f in model.functions}
    nodes = _written_out(model.graph.node, functions, {})
    if nodes > MAX_NODES:
        raise ArtifactError(f"it has {nodes:,} nodes with all its functions written out, more than {MAX_NODES:,}")


def check_runnable(model: onnx.ModelProto) -> None:
    """Check that running a model takes bounded time and memory, as far as its shapes follow from its inputs' shapes.

    The shapes that the model states itself are taken out of it.

    Raises:
        ArtifactError: it has operators that run without bound or attributes that crash, or tensors that are too large.
    """
    onnx_module = require("onnx", extra="onnx")
    if model.functions:
        model = require("onnx.inliner", extra="onnx").inline_local_functions(model)
    for message in messages(model):
        if not isinstance(message, onnx_module.NodeProto):
            continue
        if message.op_type in _UNBOUNDED:
            raise ArtifactError(f"it has the operator {message.op_type}, of which nobody knows how long it runs")
        for attribute in message.attribute:
            values = [attribute.i] if attribute.type == attribute.INT else attribute.ints
            if attribute.name in _POSITIVE and min(values, default=1) < 1:
                raise ArtifactError(f"{message.op_type} '{message.name}' has an impossible {attribute.name}")
    for message in list(messages(model)):  # what the file says of its inner shapes may not be so
        if isinstance(message, (onnx_module.GraphProto, onnx_module.FunctionProto)):
            del message.value_info[:]
        if isinstance(message, onnx_module.GraphProto):
            for value in message.output:
                value.type.tensor_type.ClearField("shape")
    inferred = require("onnx.shape_inference", extra="onnx").infer_shapes(model, data_prop=True)
    for message in messages(inferred):
        if isinstance(message, onnx_module.ValueInfoProto):
            _check_size(message)


def _check_size(value: onnx.ValueInfoProto) -> None:
    helper = require("onnx.helper", extra="onnx")
    tensor = value.type.tensor_type
    if tensor.elem_type == require("onnx", extra="onnx").TensorProto.STRING:
        raise ArtifactError(f"'{value.name}' is text, which no generator takes or makes")
    try:
        size = int(helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize)
    except (KeyError, ValueError, TypeError):
        size = 1
    size *= math.prod(max(dim.dim_value, 1) for dim in tensor.shape.dim)
    if size > MAX_TENSOR_BYTES:
        raise ArtifactError(f"'{value.name}' would take {size:,} bytes, more than {MAX_TENSOR_BYTES:,}")


def messages(message: Any) -> Iterator[Any]:
    """Yield a protobuf message and all messages in it; ArtifactError for text that is none."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                yield from messages(part)
        elif field.type == field.TYPE_STRING and any(
            isinstance(text, bytes) for text in (value if field.is_repeated else (value,))
        ):
            raise ArtifactError(f"one of its texts ({field.name}) is not UTF-8")


def is_external(tensor: onnx.TensorProto) -> bool:
    """Return whether a tensor says that its values are in another file."""
    return bool(tensor.data_location == tensor.EXTERNAL or tensor.external_data)


def _written_out(
    nodes: Iterable[onnx.NodeProto],
    functions: Mapping[Function, Iterable[onnx.NodeProto]],
    known: dict[Function, int | None],
) -> int:
    """Return the number of nodes with those of called functions and of subgraphs; `known` None: being counted."""
    count = 0
    for node in nodes:
        count += 1
        name = (node.domain, node.op_type, node.overload)
        if name in functions:
            if name not in known:
                known[name] = None
                known[name] = _written_out(functions[name], functions, known)
            inner = known[name]
            if inner is None:
                raise ArtifactError(f"its function '{node.op_type}' calls itself")
            count += inner
        for attribute in node.attribute:
            graphs = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
            count += sum(_written_out(graph.node, functions, known) for graph in graphs)
    return count

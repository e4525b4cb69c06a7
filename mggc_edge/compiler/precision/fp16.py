"""fp16 by typed casts: weights and activations in float16, what float16 is too narrow for in float32, between casts.

Inputs and outputs of the graph stay float32. Operators in HALF compute in float16; all others, above all instance norm,
whose variance overflows (65504 is 256 squared), stay in float32. A tensor that both kinds read is cast once. A node
also stays in float32 where a constant of its own, or a value that was observed, does not fit: each with its reason.
Engines that take types at their word (TensorRT from 10.12 on) need nothing else; ONNX Runtime's CPU provider puts
casts around what it has no float16 kernel for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mggc_edge.calibration.ranges import ActivationRanges
from mggc_edge.compiler.facts import constants_of
from mggc_edge.compiler.passes.editor import STANDARD
from mggc_edge.compiler.qdq import names_read, subgraphs
from mggc_edge.errors import ArtifactError
from mggc_edge.lazy import require

if TYPE_CHECKING:
    import onnx

LARGEST = 65504.0  # of float16
MOST_CHANGE = 0.01  # of a constant, as a part of its length, that rounding to float16 may make
# What float16 is wide enough for. Reductions, norms, exponentials and integers are not here.
HALF = frozenset({
    "Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Div", "Flatten", "Identity",
    "LeakyRelu", "MaxPool", "Mul", "PRelu", "Pad", "Relu", "Reshape", "Sigmoid", "Slice", "SpaceToDepth", "Split",
    "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze",
})  # fmt: skip
NORMS = frozenset({"InstanceNormalization", "BatchNormalization", "LayerNormalization", "GroupNormalization"})

NORM = "norms square their input, which float16 does not hold"
OTHER = "operators of this kind are kept in float32"
SUBGRAPH = "a subgraph reads what it gives"
TOO_LARGE = f"a constant of it lies beyond {LARGEST:g}, the largest number of float16"
TOO_SMALL = "its weights are too small for float16, which would change them by more than 1 %"
OBSERVED = f"values beyond {LARGEST:g} were observed at it"


@dataclass(frozen=True)
class Kept:
    """A node that stays in float32, and why."""

    name: str
    reason: str


def floats_to_observe(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the names of the float32 tensors that nodes compute: those that must fit into float16."""
    types = _types(model)
    float32 = require("onnx", extra="onnx").TensorProto.FLOAT
    constants = constants_of(model)
    names = (name for node in model.graph.node for name in node.output if name)
    return tuple(name for name in names if types.get(name) == float32 and name not in constants)


def to_fp16(model: onnx.ModelProto, ranges: ActivationRanges | None = None) -> tuple[onnx.ModelProto, tuple[Kept, ...]]:
    """Return a copy of a float32 graph in float16, and the nodes that stayed in float32.

    Args:
        model: a float32 graph with float32 inputs and outputs; its nodes have names of their own, see `named`.
        ranges: of its tensors, see `floats_to_observe`; None: what they hold is not looked at.

    Raises:
        ArtifactError: nothing in it can be computed in float16.
    """
    copy = type(model)()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    kept = _kept(copy, ranges)
    halves = [node for node in copy.graph.node if node.name not in {one.name for one in kept}]
    float32 = require("onnx", extra="onnx").TensorProto.FLOAT
    types = _types(model)
    if not any(types.get(name) == float32 for node in halves for name in node.output):
        raise ArtifactError("nothing in the file can be computed in float16", hint="leave out fp16")
    _Caster(copy, types, {node.name for node in halves}).run()
    require("onnx", extra="onnx").checker.check_model(copy, full_check=True)
    return copy, kept


def _fixed(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Return the constants of a graph but those that can be fed instead, which are float32 inputs of it."""
    fed = {value.name for value in model.graph.input}
    return {name: tensor for name, tensor in constants_of(model).items() if name not in fed}


def _kept(model: onnx.ModelProto, ranges: ActivationRanges | None) -> tuple[Kept, ...]:
    constants, types = _fixed(model), _types(model)
    captured = {name for node in model.graph.node for inner in subgraphs(node) for name in names_read(inner)}
    shadowed = {function.name for function in model.functions if function.domain in STANDARD}
    found = []
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in STANDARD:
            continue
        reason = OTHER if node.op_type in shadowed else _reason(node, constants, types, captured, ranges)
        if reason is not None:
            found.append(Kept(node.name, reason))
    return tuple(found)


def _reason(
    node: onnx.NodeProto,
    constants: Mapping[str, onnx.TensorProto],
    types: Mapping[str, int],
    captured: Collection[str],
    ranges: ActivationRanges | None,
) -> str | None:
    """Return why a node stays in float32; None where it does not."""
    onnx_module, numpy_helper = require("onnx", extra="onnx"), require("onnx.numpy_helper", extra="onnx")
    float32 = onnx_module.TensorProto.FLOAT
    if node.op_type in NORMS and node.domain in STANDARD:
        return NORM
    if node.op_type not in HALF or node.domain not in STANDARD:
        return OTHER
    if any(name in captured for name in node.output):
        return SUBGRAPH
    if any(types.get(name) != float32 for name in node.output):
        return OTHER  # of integers, such as sizes
    for name in node.input:
        if name in constants and constants[name].data_type == float32:
            values = numpy_helper.to_array(constants[name])
            if not (np.abs(values) <= LARGEST).all():
                return TOO_LARGE
            change = np.linalg.norm(values - values.astype(np.float16).astype(np.float32))
            if change > MOST_CHANGE * np.linalg.norm(values):
                return TOO_SMALL
    for name in (*node.input, *node.output) if ranges is not None else ():
        if ranges is not None and name in ranges.ranges and max(map(abs, ranges.of(name))) > LARGEST:
            return OBSERVED
    return None


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element types of all tensors of the top graph.

    Raises:
        ArtifactError: the graph contradicts itself.
    """
    try:
        graph = require("onnx.shape_inference", extra="onnx").infer_shapes(model, check_type=True).graph
    except Exception as error:  # the C++ inference raises many kinds
        raise ArtifactError(f"the types in the file contradict each other: {str(error).strip()[:160]}") from error
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {name: tensor.data_type for name, tensor in constants_of(model).items()}


class _Caster:
    """Rebuilds the nodes of a graph, with casts where a float16 node and a float32 node meet.

    A tensor keeps its name in the type in which it is computed; the other type has a name with a suffix. An output of
    the graph keeps its name in float32.
    """

    def __init__(self, model: onnx.ModelProto, types: Mapping[str, int], halves: Collection[str]) -> None:
        self._graph, self._types, self._halves = model.graph, types, halves
        self._onnx: Any = require("onnx", extra="onnx")
        self._numpy: Any = require("onnx.numpy_helper", extra="onnx")
        self._constants = _fixed(model)
        self._outputs = {value.name for value in model.graph.output}
        self._taken = names_read(model.graph) | {tensor.name for tensor in model.graph.initializer}
        self._taken |= {name for node in model.graph.node for name in (node.name, *node.output)}
        self._names: dict[tuple[str, bool], str] = {}  # (tensor, in float16) -> its name in that type
        self._nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        """Rebuild the graph in place."""
        for node in list(self._graph.node):
            half = node.name in self._halves and node.op_type != "Constant"
            for place, name in enumerate(node.input):
                if name and self._is_float(name):
                    node.input[place] = self._as(name, half=half)
            copy = self._onnx.NodeProto()
            copy.CopyFrom(node)
            self._nodes.append(copy)
            if node.op_type == "Constant":
                continue
            for place, name in enumerate(node.output):
                if half and name in self._outputs:
                    copy.output[place] = self._names[name, True] = self._fresh(f"{name}_float16")
                    self._cast(copy.output[place], name, half=False)
                    self._names[name, False] = name
                elif name:
                    self._names[name, half] = name
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = names_read(self._graph)
        for tensor in [tensor for tensor in self._graph.initializer if tensor.name not in used]:
            self._graph.initializer.remove(tensor)
        for node in [node for node in self._graph.node if node.op_type == "Constant" and node.output[0] not in used]:
            self._graph.node.remove(node)

    def _is_float(self, name: str) -> bool:
        return bool(self._types.get(name) == self._onnx.TensorProto.FLOAT)

    def _as(self, name: str, *, half: bool) -> str:
        """Return the name that a tensor has in a type, with what makes it so put before."""
        if (name, half) in self._names:
            return self._names[name, half]
        if not half and (name in self._constants or (name, True) not in self._names):
            return name  # a constant, or the graph's own input
        made = self._names[name, half] = self._fresh(f"{name}_float16" if half else f"{name}_float32")
        if name in self._constants:
            values = self._numpy.to_array(self._constants[name]).astype(np.float16)
            self._graph.initializer.append(self._numpy.from_array(values, made))
        else:
            self._cast(self._names.get((name, not half), name), made, half=half)
        return made

    def _cast(self, source: str, target: str, *, half: bool) -> None:
        kind, name = self._onnx.TensorProto.FLOAT16 if half else self._onnx.TensorProto.FLOAT, f"{target}_cast"
        self._nodes.append(self._onnx.helper.make_node("Cast", [source], [target], name=self._fresh(name), to=kind))

    def _fresh(self, wanted: str) -> str:
        """Return a name that nothing has, `wanted` where that is free."""
        while wanted in self._taken:
            wanted += "_"
        self._taken.add(wanted)
        return wanted

"""What every graph pass needs of a graph: constants, shapes, who reads a value, and edits that keep names unique."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mggc_edge.lazy import require

if TYPE_CHECKING:
    import onnx_ir as ir

Tensor = NDArray[Any]
Pair = tuple[int, int]
FLOATS = ("float16", "float32", "float64")
STANDARD = ("", "ai.onnx")  # the two names of the domain of ONNX's own operators
SAME = ("SAME_UPPER", "SAME_LOWER")
MOST_WEIGHTS = 2**26  # that a pass makes of one layer's: attributes of a few bytes could ask for any number
BY_SIZE, CONTRADICTS = "its padding follows from its size", "its weights and attributes do not fit together"


class Unfit(Exception):  # noqa: N818  no error: the reason why a pass leaves a site as it is
    """A precondition does not hold at a site; the text says which, without numbers, so that sites can be counted."""


@dataclass(frozen=True)
class Filters:
    """What a two-dimensional Conv or ConvTranspose multiplies by and adds, wherever it does so.

    Attributes:
        weight: Conv [out, in/group, kH, kW]; ConvTranspose [in, out/group, kH, kW].
        bias: [out]; None without one.
    """

    weight: Tensor
    bias: Tensor | None
    group: int


@dataclass(frozen=True)
class Convolution(Filters):
    """What a two-dimensional Conv or ConvTranspose does. Pairs are (height, width).

    Attributes:
        begin, end: padding at top and left, at bottom and right.
        output_padding: of a ConvTranspose.
    """

    kernel: Pair
    strides: Pair
    dilations: Pair
    begin: Pair
    end: Pair
    output_padding: Pair


class Editor:
    """Edits the top graph of a model in place. Nodes of subgraphs and functions are left alone."""

    def __init__(self, model: ir.Model) -> None:
        self._ir: Any = require("onnx_ir", extra="onnx")
        self.graph = model.graph
        # A function of the model that has the name of a standard operator stands for something else.
        self._taken = {function.name for function in model.functions.values() if function.domain in STANDARD}
        self._names: set[str | None] = set()
        for graph in (self.graph, *self.graph.subgraphs()):  # an inner constant would hide an outer one of its name
            self._names |= {value.name for value in (*graph.inputs, *graph.initializers.values())}
        for node in self.graph.all_nodes():
            self._names |= {node.name, *(value.name for value in node.outputs)}

    # --- what there is ---

    def is_a(self, node: ir.Node, *operators: str) -> bool:
        """Return whether a node is one of ONNX's own operators: a function or another domain may have its name too."""
        return node.op_type in operators and node.domain in STANDARD and node.op_type not in self._taken

    def check_count(self, count: int) -> None:
        """Raise Unfit where a layer would have more weights than a pass makes."""
        if count > MOST_WEIGHTS:
            raise Unfit("its weights would become too many")

    def constant(self, value: ir.Value | None) -> Tensor | None:
        """Return the constant that a value is; None where it is computed, or can be fed instead."""
        if value is None or value.is_graph_input():
            return None
        writer = value.producer()
        if writer is not None and not self.is_a(writer, "Constant"):
            return None
        try:
            tensor = self._ir.convenience.get_const_tensor(value)
        except ValueError:  # a Constant that holds a sparse tensor
            return None
        return None if tensor is None else np.asarray(tensor.numpy())

    def input(self, node: ir.Node, index: int) -> ir.Value | None:
        """Return an input of a node; None where it was left out."""
        return node.inputs[index] if index < len(node.inputs) else None

    def shape(self, value: ir.Value | None) -> tuple[int | None, ...] | None:
        """Return the sizes of a value, None for those that are open; None where not even their number is known."""
        if value is None or value.shape is None:
            return None
        return tuple(size if isinstance(size, int) else None for size in value.shape)

    def attribute(self, node: ir.Node, name: str, default: Any) -> Any:
        """Return the value of an attribute; lists as tuples."""
        if name not in node.attributes:
            return default
        value = node.attributes[name].value
        return tuple(value) if isinstance(value, (list, tuple)) else value

    def sole_reader(self, value: ir.Value) -> ir.Node | None:
        """Return the only node that reads a value, once and as its first input; None where there are others."""
        uses = value.uses()
        if len(uses) != 1 or value.is_graph_output():
            return None
        ((node, index),) = uses
        return node if index == 0 and node.graph is self.graph else None

    def filters(self, node: ir.Node) -> Filters:
        """Return the weights of a Conv or ConvTranspose, which are known however it is padded.

        Raises:
            Unfit: they are computed, not two-dimensional or no floats, or do not fit together.
        """
        weight, bias_value = self.constant(self.input(node, 1)), self.input(node, 2)
        bias = self.constant(bias_value)
        if weight is None or (bias_value is not None and bias is None):
            raise Unfit("its weights are not constant")
        if weight.ndim != 4:
            raise Unfit("it is not two-dimensional")
        if weight.dtype.name not in FLOATS:
            raise Unfit("its weights are no floats")
        group, kernel = self.attribute(node, "group", 1), weight.shape[2:]
        outputs = weight.shape[0] if node.op_type == "Conv" else weight.shape[1] * group
        if (
            min(*weight.shape, group) < 1
            or weight.shape[0] % group
            or self.attribute(node, "kernel_shape", kernel) != kernel
            or (bias is not None and bias.shape != (outputs,))
        ):
            raise Unfit(CONTRADICTS)
        return Filters(weight, bias, group)

    def convolution(self, node: ir.Node) -> Convolution:
        """Return what a Conv or ConvTranspose does.

        Raises:
            Unfit: see `filters`; its padding depends on the size of the picture, or its attributes do not fit together.
        """
        filters = self.filters(node)
        kernel = (filters.weight.shape[2], filters.weight.shape[3])
        strides, dilations = self.attribute(node, "strides", (1, 1)), self.attribute(node, "dilations", (1, 1))
        how = self.attribute(node, "auto_pad", "NOTSET")
        if "output_shape" in node.attributes:  # which wins over every way of padding
            raise Unfit(BY_SIZE)
        if how == "NOTSET":
            pads = self.attribute(node, "pads", (0, 0, 0, 0))
        elif how == "VALID":
            pads = (0, 0, 0, 0)
        elif (
            how in SAME and node.op_type == "Conv" and strides == (1, 1) and len(dilations) == 2
        ):  # SAME: as much as the kernel reaches beyond its centre
            both = [step * (size - 1) for size, step in zip(kernel, dilations, strict=True)]
            less, more = [size // 2 for size in both], [size - size // 2 for size in both]
            pads = (*less, *more) if how == "SAME_UPPER" else (*more, *less)
        else:
            raise Unfit(BY_SIZE)
        more = self.attribute(node, "output_padding", (0, 0))
        lengths = len(strides), len(dilations), len(pads), len(more)
        if lengths != (2, 2, 4, 2) or min(*strides, *dilations) < 1:
            raise Unfit(CONTRADICTS)
        return Convolution(
            weight=filters.weight,
            bias=filters.bias,
            group=filters.group,
            kernel=kernel,
            strides=strides,
            dilations=dilations,
            begin=pads[:2],
            end=pads[2:],
            output_padding=more,
        )

    # --- what is changed ---

    def initializer(self, hint: str, array: Tensor) -> ir.Value:
        """Add a constant to the graph."""
        name = self._fresh(hint)
        tensor = self._ir.tensor(np.ascontiguousarray(array), name=name)
        value: ir.Value = self._ir.Value(
            name=name, const_value=tensor, shape=tensor.shape, type=self._ir.TensorType(tensor.dtype)
        )
        self.graph.register_initializer(value)
        return value

    def set_weights(self, node: ir.Node, weight: Tensor, bias: Tensor | None) -> None:
        """Give a convolution other weights, and a bias or none; what it shares with others survives."""
        dtype = weight.dtype
        node.resize_inputs(2 if bias is None else 3)
        old = node.inputs[1]
        hint = (old.name if old is not None else None) or "weight"
        node.replace_input_with(1, self.initializer(hint, weight))
        if bias is not None:
            node.replace_input_with(2, self.initializer(f"{hint}_bias", bias.astype(dtype)))

    def set_geometry(self, node: ir.Node, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int]) -> None:
        """Give a convolution another kernel size, strides and explicit pads (top, left, bottom, right)."""
        for name in ("auto_pad", "output_padding", "output_shape"):
            node.attributes.pop(name, None)
        for name, values in (("kernel_shape", kernel), ("strides", strides), ("pads", pads)):
            node.attributes[name] = self._ir.AttrInt64s(name, [int(value) for value in values])

    def node(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        after: ir.Node,
    ) -> ir.Node:
        """Insert a node with one output; its inputs must be there already."""
        name = self._fresh(f"{after.name or after.op_type}_{operator}")
        output = self._ir.Value(name=self._fresh(f"{name}_out"))
        made: ir.Node = self._ir.node(operator, inputs, attributes or {}, outputs=[output], name=name)
        self.graph.insert_after(after, made)
        return made

    def replace(self, old: ir.Value, new: ir.Value, *, but: Sequence[ir.Node] = ()) -> None:
        """Let all who read `old`, except some nodes, read `new`; of an output of the graph the name goes with it."""
        if old.is_graph_output():
            old.name, new.name = new.name, old.name
            new.shape, new.type = old.shape, old.type
            for index, value in enumerate(self.graph.outputs):
                if value is old:
                    self.graph.outputs[index] = new
        for node, index in tuple(old.uses()):
            if node not in but:
                node.replace_input_with(index, new)

    def remove(self, node: ir.Node) -> None:
        """Take a node out of the graph that nobody reads any more."""
        self.graph.remove(node, safe=True)

    def change_operator(self, node: ir.Node, operator: str) -> None:
        """Make another operator of a node."""
        node.op_type = operator

    def _fresh(self, hint: str) -> str:
        name, number = hint, 0
        while name in self._names:
            number += 1
            name = f"{hint}_{number}"
        self._names.add(name)
        return name

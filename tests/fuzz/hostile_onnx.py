"""ONNX files made to hurt: they reach for other files, claim what they do not hold, or grow without bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
OPSETS = [helper.make_opsetid("", 20)]


def _model(
    nodes: Sequence[NodeProto],
    initializers: Sequence[TensorProto] = (),
    *,
    functions: Sequence[FunctionProto] = (),
    rank: int = 4,
) -> ModelProto:
    """Return a model of `nodes`, which turn `input` [1, 3, 8, 8] into `output`."""
    graph = helper.make_graph(
        list(nodes),
        "hostile",
        [helper.make_tensor_value_info("input", FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("output", FLOAT, [None] * rank)],
        list(initializers),
    )
    opsets = [*OPSETS, helper.make_opsetid("own", 1)] if functions else OPSETS
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=10)


def _numbers(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def _outside(name: str, location: str = "../secret.bin") -> TensorProto:
    tensor = TensorProto(name=name, data_type=FLOAT, dims=[1, 3, 8, 8], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", str(4 * 3 * 64))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def _branch(tensor: TensorProto) -> GraphProto:
    identity = helper.make_node("Identity", [tensor.name], ["branch"])
    return helper.make_graph([identity], "branch", [], [helper.make_tensor_value_info("branch", FLOAT, None)], [tensor])


def _reduced(*nodes: NodeProto) -> list[NodeProto]:
    """Return nodes that make `huge`, and what brings it back to one number that is added to the picture."""
    return [
        *nodes,
        helper.make_node("ReduceMax", ["huge"], ["largest"], keepdims=0),
        helper.make_node("Add", ["input", "largest"], ["output"]),
    ]


def outside_initializer() -> ModelProto:
    return _model([helper.make_node("Add", ["input", "w"], ["output"])], [_outside("w")])


def outside_device() -> ModelProto:
    return _model([helper.make_node("Add", ["input", "w"], ["output"])], [_outside("w", "/dev/zero")])


def outside_constant() -> ModelProto:
    constant = helper.make_node("Constant", [], ["w"], value=_outside("w"))
    return _model([constant, helper.make_node("Add", ["input", "w"], ["output"])])


def outside_subgraph() -> ModelProto:
    condition = numpy_helper.from_array(np.array(True), "yes")
    inside = numpy_helper.from_array(np.zeros((1, 3, 8, 8), np.float32), "v")
    choice = helper.make_node("If", ["yes"], ["w"], then_branch=_branch(_outside("w2")), else_branch=_branch(inside))
    return _model([choice, helper.make_node("Add", ["input", "w"], ["output"])], [condition])


def outside_function() -> ModelProto:
    nodes = [
        helper.make_node("Constant", [], ["w"], value=_outside("w")),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    function = helper.make_function("own", "f", ["x"], ["y"], nodes, OPSETS)
    return _model([helper.make_node("f", ["input"], ["output"], domain="own")], functions=[function])


def outside_sparse() -> ModelProto:
    model = _model([helper.make_node("Add", ["input", "w"], ["output"])])
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(_outside("w"))
    sparse.indices.CopyFrom(_numbers("", 0))
    sparse.dims.extend([1, 3, 8, 8])
    return model


def huge_sparse() -> ModelProto:
    model = _model(_reduced(helper.make_node("Identity", ["s"], ["huge"])))
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "s"))
    sparse.indices.CopyFrom(_numbers("", 0))
    sparse.dims.extend([2**32])
    return model


def claimed_initializer() -> ModelProto:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[2**40], float_data=[1.0])
    return _model(_reduced(helper.make_node("Identity", ["w"], ["huge"])), [tensor])


def claimed_nothing() -> ModelProto:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[2**20, 2**20])
    return _model(_reduced(helper.make_node("Identity", ["w"], ["huge"])), [tensor])


def claimed_overflow() -> ModelProto:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[2**32, 2**32], raw_data=b"")
    return _model(_reduced(helper.make_node("Identity", ["w"], ["huge"])), [tensor])


def negative_sizes() -> ModelProto:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[-1, -4], raw_data=bytes(16))
    return _model(_reduced(helper.make_node("Identity", ["w"], ["huge"])), [tensor])


def huge_constant_of_shape() -> ModelProto:
    return _model(_reduced(helper.make_node("ConstantOfShape", ["n"], ["huge"])), [_numbers("n", 2**18, 2**14)])


def huge_expand() -> ModelProto:
    return _model(_reduced(helper.make_node("Expand", ["input", "n"], ["huge"])), [_numbers("n", 2**24, 3, 8, 8)])


def huge_tile() -> ModelProto:
    return _model(_reduced(helper.make_node("Tile", ["input", "n"], ["huge"])), [_numbers("n", 1, 1, 2**12, 2**12)])


def huge_range() -> ModelProto:
    scalars = [
        numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in zip("abc", (0, 1e10, 1), strict=True)
    ]
    return _model(_reduced(helper.make_node("Range", ["a", "b", "c"], ["huge"])), scalars)


def huge_resize() -> ModelProto:
    scales = numpy_helper.from_array(np.array([1, 1, 2e4, 2e4], np.float32), "s")
    return _model(_reduced(helper.make_node("Resize", ["input", "", "s"], ["huge"], mode="nearest")), [scales])


def huge_pad() -> ModelProto:
    pads = _numbers("p", 0, 0, 2**15, 2**15, 0, 0, 2**15, 2**15)
    return _model(_reduced(helper.make_node("Pad", ["input", "p"], ["huge"])), [pads])


def huge_random() -> ModelProto:
    return _model(_reduced(helper.make_node("RandomNormal", [], ["huge"], shape=[2**16, 2**16])))


def huge_outer_product() -> ModelProto:
    shapes = [_numbers("c", 2**17, 1), _numbers("r", 1, 2**17)]
    nodes = [
        helper.make_node("ConstantOfShape", ["c"], ["column"]),
        helper.make_node("ConstantOfShape", ["r"], ["row"]),
        helper.make_node("MatMul", ["column", "row"], ["huge"]),
    ]
    return _model(_reduced(*nodes), shapes)


def huge_by_doubling() -> ModelProto:
    nodes = [helper.make_node("Identity", ["input"], ["x0"])]
    nodes += [helper.make_node("Concat", [f"x{i}", f"x{i}"], [f"x{i + 1}"], axis=0) for i in range(40)]
    return _model(_reduced(*nodes, helper.make_node("Identity", ["x40"], ["huge"])))


def huge_in_subgraph() -> ModelProto:
    condition = numpy_helper.from_array(np.array(True), "yes")
    branch = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["n"], ["branch"])],
        "branch",
        [],
        [helper.make_tensor_value_info("branch", FLOAT, None)],
        [_numbers("n", 2**18, 2**14)],
    )
    other = GraphProto()
    other.CopyFrom(branch)
    choice = helper.make_node("If", ["yes"], ["huge"], then_branch=branch, else_branch=other)
    return _model(_reduced(choice), [condition])


def huge_in_function() -> ModelProto:
    nodes = [
        helper.make_node("Constant", [], ["n"], value=_numbers("n", 2**18, 2**14)),
        helper.make_node("ConstantOfShape", ["n"], ["huge"]),
        helper.make_node("ReduceMax", ["huge"], ["largest"], keepdims=0),
        helper.make_node("Add", ["x", "largest"], ["y"]),
    ]
    function = helper.make_function("own", "f", ["x"], ["y"], nodes, OPSETS)
    return _model([helper.make_node("f", ["input"], ["output"], domain="own")], functions=[function])


def strings_by_doubling() -> ModelProto:
    text = TensorProto(name="s0", data_type=TensorProto.STRING, dims=[1], string_data=[b"x" * 1000])
    nodes = [helper.make_node("StringConcat", [f"s{i}", f"s{i}"], [f"s{i + 1}"]) for i in range(30)]
    nodes += [helper.make_node("Identity", ["input"], ["output"])]
    return _model(nodes, [text])


def endless_loop() -> ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Neg", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("i", INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", FLOAT, None),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("y", FLOAT, None)],
    )
    return _model(
        [helper.make_node("Loop", ["", "yes", "input"], ["output"], body=body)],
        [numpy_helper.from_array(np.array(True), "yes")],
    )


def functions_by_tens() -> ModelProto:
    """Return a model in which every function calls the one before it ten times: 10^12 nodes."""
    functions = []
    for level in range(12):
        names = [f"v{i}" for i in range(11)]
        operator, domain = ("Neg", "") if level == 0 else (f"f{level - 1}", "own")
        nodes = [helper.make_node(operator, [names[i]], [names[i + 1]], domain=domain) for i in range(10)]
        opsets = [*OPSETS, helper.make_opsetid("own", 1)]
        functions.append(helper.make_function("own", f"f{level}", ["v0"], ["v10"], nodes, opsets))
    return _model([helper.make_node("f11", ["input"], ["output"], domain="own")], functions=functions)


def functions_in_a_circle() -> ModelProto:
    opsets = [*OPSETS, helper.make_opsetid("own", 1)]
    functions = [
        helper.make_function("own", name, ["x"], ["y"], [helper.make_node(other, ["x"], ["y"], domain="own")], opsets)
        for name, other in (("f", "g"), ("g", "f"))
    ]
    return _model([helper.make_node("f", ["input"], ["output"], domain="own")], functions=functions)


def deep_subgraphs(depth: int = 15) -> ModelProto:
    yes = numpy_helper.from_array(np.array(True), "yes")
    graph = _branch(numpy_helper.from_array(np.zeros(1, np.float32), "v"))
    for _ in range(depth):
        node = helper.make_node(
            "If",
            ["yes"],
            ["branch"],
            then_branch=graph,
            else_branch=_branch(numpy_helper.from_array(np.zeros(1, np.float32), "v")),
        )
        graph = helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("branch", FLOAT, None)])
    choice = helper.make_node("If", ["yes"], ["w"], then_branch=graph, else_branch=graph)
    return _model([choice, helper.make_node("Add", ["input", "w"], ["output"])], [yes])


def long_chain(nodes: int = 20_000) -> ModelProto:
    names = ["input", *(f"x{i}" for i in range(nodes - 1)), "output"]
    return _model([helper.make_node("Neg", [names[i]], [names[i + 1]]) for i in range(nodes)])


def foreign_convolution() -> ModelProto:
    """Return a model with a convolution of another domain, which nobody has checked: it reads nothing."""
    model = _model([helper.make_node("Conv", [], ["output"], domain="foreign")])
    model.opset_import.append(helper.make_opsetid("foreign", 1))
    return model


def lying_shapes() -> ModelProto:
    """Return a model that says its huge tensor is small."""
    model = huge_constant_of_shape()
    model.graph.value_info.append(helper.make_tensor_value_info("huge", FLOAT, [1]))
    return model


def no_groups() -> ModelProto:
    """Return a model with a setting by which ONNX Runtime 1.31 divides: the process is gone."""
    weight = numpy_helper.from_array(np.zeros((3, 3, 3, 3), np.float32), "w")
    return _model([helper.make_node("ConvTranspose", ["input", "w"], ["output"], group=0)], [weight])


def pool_over_everything() -> ModelProto:
    size = 2**30
    pool = helper.make_node("MaxPool", ["input"], ["output"], kernel_shape=[size, size], pads=[size // 2] * 4)
    return _model([pool])


def text_that_is_none() -> bytes:
    return bytes(long_chain(2).SerializeToString()).replace(b"hostile", b"\xffostile")


def empty_nodes() -> bytes:
    """Return a file of 2 MB with a million nodes that say nothing."""
    graph = b"\x0a\x00" * 1_000_000
    length = len(graph)
    size = bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14 & 0x7F | 0x80, length >> 21])
    return b"\x08\x0a\x42\x02\x10\x14\x3a" + size + graph


def empty_initializers() -> bytes:
    """Return a file of 2 MB with a million tensors that say nothing."""
    model = huge_pad()
    del model.graph.initializer[:]
    graph = b"\x2a\x00" * 1_000_000
    length = len(graph)
    size = bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14 & 0x7F | 0x80, length >> 21])
    return bytes(model.SerializeToString()) + b"\x3a" + size + graph


MODELS: tuple[Callable[[], ModelProto | bytes], ...] = (
    outside_initializer, outside_device, outside_constant, outside_subgraph, outside_function, outside_sparse,
    huge_sparse, claimed_initializer, claimed_nothing, claimed_overflow, negative_sizes, huge_constant_of_shape,
    huge_expand, huge_tile, huge_range, huge_resize, huge_pad, huge_random, huge_outer_product, huge_by_doubling,
    huge_in_subgraph, huge_in_function, strings_by_doubling, endless_loop, functions_by_tens, functions_in_a_circle,
    deep_subgraphs, long_chain, foreign_convolution, lying_shapes,
    no_groups, pool_over_everything, text_that_is_none, empty_nodes, empty_initializers,
)  # fmt: skip


def write_all(folder: Path) -> dict[str, Path]:
    """Write every hostile file into `folder`, and the file beside it that some of them reach for."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "secret.bin").write_bytes(bytes(4 * 3 * 64))
    files = {}
    for make in MODELS:
        made = make()
        files[make.__name__] = folder / f"{make.__name__}.onnx"
        files[make.__name__].write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return files

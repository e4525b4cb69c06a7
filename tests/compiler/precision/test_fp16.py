"""fp16 by typed casts: what computes in float16, what does not, and that the file is sound."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mggc_edge.calibration.ranges import ActivationRanges
from mggc_edge.compiler.precision.fp16 import (
    NORM,
    OBSERVED,
    OTHER,
    SUBGRAPH,
    TOO_LARGE,
    TOO_SMALL,
    Kept,
    floats_to_observe,
    to_fp16,
)
from mggc_edge.errors import ArtifactError
from tests.compiler.passes.pass_helpers import operators, random, weights
from tests.compiler.precision.precision_helpers import network, pictures, run, three_convolutions


def types_of(model: onnx.ModelProto) -> dict[str, str]:
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    kinds = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {value.name: kinds.get(value.type.tensor_type.elem_type, "other") for value in values}


def error(model: onnx.ModelProto, made: onnx.ModelProto) -> float:
    return max(float(np.abs(run(made, picture) - run(model, picture)).max()) for picture in pictures())


def test_all_but_the_norm_computes_in_float16_between_float32_ends() -> None:
    model = three_convolutions()
    before = model.SerializeToString()
    made, kept = to_fp16(model)
    assert kept == (Kept("norm", NORM),)
    types = types_of(made)
    assert (types["x"], types["y"]) == ("float32", "float32")
    assert [types[name] for name in ("c1", "a1", "c2", "c3")] == ["float16"] * 4
    assert types["n2"] == "float32"
    assert {name: value.dtype.name for name, value in weights(made).items()} == {
        **{f"{name}_float16": "float16" for name in ("w1", "w2", "w3", "b1", "b2", "b3")},
        "one": "float32", "zero": "float32",
    }  # fmt: skip
    assert Counter(operators(made))["Cast"] == 4  # in, before and behind the norm, out
    assert 0 < error(model, made) < 5e-3
    assert model.SerializeToString() == before


def test_a_tensor_that_both_kinds_read_is_cast_once() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("Exp", ["r"], ["e"], name="exp"),
        helper.make_node("Softplus", ["r"], ["s"], name="softplus"),
        helper.make_node("Add", ["e", "s"], ["a"], name="add"),
        helper.make_node("Mul", ["a", "r"], ["y"], name="mul"),
    ]
    model = network(nodes, {})
    made, kept = to_fp16(model)
    assert [one.name for one in kept] == ["exp", "softplus"]
    assert {one.reason for one in kept} == {OTHER}
    assert Counter(operators(made))["Cast"] == 5  # x, r once, e, s, and the output
    assert error(model, made) < 2e-2


def test_an_output_that_a_node_reads_as_well_keeps_its_name_and_type() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"], name="relu"), helper.make_node("Tanh", ["y"], ["t"], name="tanh")]
    made, _ = to_fp16(network(nodes, {}))
    assert types_of(made)["y"] == "float32"
    (tanh,) = (node for node in made.graph.node if node.op_type == "Tanh")
    assert list(tanh.input) == ["y_float16"]


def with_weight(value: float) -> onnx.ModelProto:
    """A convolution whose weights are all `value`, and one of the usual size."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="odd"),
        helper.make_node("Conv", ["c", "v"], ["y"], name="usual"),
    ]
    return network(nodes, {"w": np.full((3, 3, 1, 1), value), "v": random(3, 3, 1, 1)})


@pytest.mark.parametrize(
    ("value", "reason"),
    [(1e5, TOO_LARGE), (-np.inf, TOO_LARGE), (np.nan, TOO_LARGE), (1e-8, TOO_SMALL), (65504.0, None), (1e-4, None)],
)
def test_a_constant_that_float16_does_not_hold_keeps_its_node_in_float32(value: float, reason: str | None) -> None:
    made, kept = to_fp16(with_weight(value))
    assert [one.reason for one in kept if one.name == "odd"] == ([] if reason is None else [reason])
    assert weights(made)["w" if reason else "w_float16"].dtype.name == ("float32" if reason else "float16")
    assert all(np.isfinite(value).all() for name, value in weights(made).items() if name.endswith("float16"))


def test_a_few_weights_that_vanish_beside_large_ones_do_not_matter() -> None:
    model = with_weight(0.5)
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "w")
    values = np.full((3, 3, 1, 1), 1e-9, np.float32)
    values[0] = 0.5
    weight.CopyFrom(numpy_helper.from_array(values, "w"))
    assert to_fp16(model)[1] == ()


def test_a_node_at_which_large_values_were_observed_stays_in_float32() -> None:
    model = three_convolutions()
    assert floats_to_observe(model) == ("c1", "a1", "c2", "n2", "c3", "y")
    ranges = ActivationRanges({"c1": (-1e5, 1.0), "a1": (0.0, 1.0), "c2": (-65504.0, 1.0)}, "min-max", 1, "")
    _, kept = to_fp16(model, ranges)
    assert kept == (Kept("first", OBSERVED), Kept("between", OBSERVED), Kept("norm", NORM))


def test_what_a_subgraph_reads_is_computed_in_float32() -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["r"], ["b"])],
        "b",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("If", ["true"], ["i"], name="if", then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["i", "r"], ["y"], name="add"),
    ]
    model = network(nodes, {"true": np.array(True)})
    made, kept = to_fp16(model)
    assert kept == (Kept("relu", SUBGRAPH), Kept("if", OTHER))
    assert error(model, made) < 2e-3


def test_names_that_a_file_has_already_are_not_taken_again() -> None:
    nodes = [
        helper.make_node("Exp", ["x"], ["e"], name="e_float16_cast"),
        helper.make_node("Relu", ["x"], ["e_float16"], name="relu"),
        helper.make_node("Mul", ["e", "w"], ["m"], name="y_cast"),
        helper.make_node("Add", ["m", "e_float16"], ["a"], name="add"),
        helper.make_node("Add", ["a", "w_float16"], ["y"], name="sum"),
    ]
    model = network(nodes, {"w": random(1, 3, 1, 1), "w_float16": random(1, 3, 1, 1, seed=1)})
    made, kept = to_fp16(model)
    assert kept == (Kept("e_float16_cast", OTHER),)
    names = [node.name for node in made.graph.node]
    assert len(set(names)) == len(names)
    assert set(weights(made)) == {"w_float16_", "w_float16_float16"}
    assert error(model, made) < 2e-2


def test_a_constant_that_can_be_fed_stays_one_in_float32() -> None:
    model = three_convolutions()
    model.graph.input.append(helper.make_tensor_value_info("w1", TensorProto.FLOAT, [8, 3, 3, 3]))
    made, kept = to_fp16(model)
    assert kept == (Kept("norm", NORM),)
    assert np.array_equal(weights(made)["w1"], weights(model)["w1"])
    assert error(model, made) < 5e-3


def test_a_graph_with_nothing_to_compute_in_float16_is_refused() -> None:
    with pytest.raises(ArtifactError, match="nothing in the file can be computed in float16") as caught:
        to_fp16(network([helper.make_node("Exp", ["x"], ["y"])], {}))
    assert caught.value.hint == "leave out fp16"


def test_types_that_contradict_each_other_are_refused() -> None:
    model = network([helper.make_node("Add", ["x", "whole"], ["y"])], {"whole": np.ones(1, np.int64)})
    with pytest.raises(ArtifactError, match="the types in the file contradict each other"):
        to_fp16(model)

"""Each rule of the lint, on a graph that breaks it and on one that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mggc_edge.compiler.tensorrt_lint import RULES, few_channels, lint, lint_file, summary
from tests.backends.trt_helpers import small_file


def model(nodes: list[Any], opset: int = 17, **arrays: Any) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def quantized(
    operator: str = "Conv", shape: tuple[int, ...] = (16, 16, 3, 3), axis: int | None = None, group: int = 1,
    after: tuple[Any, ...] = (), **changes: Any,
) -> onnx.ModelProto:  # fmt: skip
    """An int8 convolution x -> c, symmetric, with a scale for each output, and what comes after it."""
    of_weight = (0 if operator == "Conv" else 1) if axis is None else axis
    arrays = {
        "s": np.float32(0.1), "z": np.int8(0), "w": np.zeros(shape, np.int8),
        "ws": np.full(shape[of_weight], 0.1, np.float32), "wz": np.zeros(shape[of_weight], np.int8), **changes,
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="d"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], name="wd", axis=of_weight),
        helper.make_node(operator, ["d", "wd"], ["c"], name="c", group=group),
        *after,
    ]
    return model(nodes, **arrays)


def found(graph: onnx.ModelProto) -> list[tuple[str, str, str]]:
    return [(finding.rule, finding.severity, finding.node) for finding in lint(graph)]


RELU = helper.make_node("Relu", ["c"], ["y"], name="r")
PAIR = (
    helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"], name="cq"),
    helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["cd"], name="cd"),
)


@pytest.mark.parametrize(
    "graph",
    [
        quantized(after=(RELU,)),
        quantized(after=(*PAIR, helper.make_node("Conv", ["cd", "wd"], ["y"]))),
        quantized(group=4, shape=(64, 16, 3, 3)),
        quantized(shape=(24, 16, 3, 3)),
        model([helper.make_node("ConvTranspose", ["x", "w"], ["y"])], w=np.zeros((3, 5, 3, 3), np.float32)),
    ],
)
def test_a_graph_that_follows_the_rules_has_no_findings(graph: onnx.ModelProto) -> None:
    assert lint(graph) == ()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"z": np.uint8(0)}, "uint8 levels: only int8 is taken"),
        ({"z": np.int8(3)}, "a zero point that is not 0"),
    ],
)
def test_asymmetric_or_unsigned_levels_are_refused(changes: dict[str, Any], text: str) -> None:
    findings = lint(quantized(**changes))
    assert {(finding.rule, finding.severity, finding.text) for finding in findings} == {("symmetric", "refused", text)}
    assert [finding.node for finding in findings] == ["q", "d"]


def test_levels_without_a_zero_point_are_unsigned_and_refused_and_so_is_a_computed_one() -> None:
    bare = model([helper.make_node("QuantizeLinear", ["x", "s"], ["y"], name="q")], s=np.float32(1))
    assert [finding.text for finding in lint(bare)] == ["uint8 levels (no zero point): only int8 is taken"]
    computed = [
        helper.make_node("Identity", ["z"], ["zz"]),
        helper.make_node("QuantizeLinear", ["x", "s", "zz"], ["y"], name="q"),
    ]
    assert [finding.text for finding in lint(model(computed, s=np.float32(1), z=np.int8(0)))] == [
        "a zero point that is no constant"
    ]


def test_scales_that_are_computed_or_not_positive_are_refused() -> None:
    nodes = [
        helper.make_node("Identity", ["s"], ["t"]),
        helper.make_node("QuantizeLinear", ["x", "t", "z"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "zero", "z"], ["y"], name="d"),
    ]
    assert found(model(nodes, s=np.float32(1), z=np.int8(0), zero=np.float32(0))) == [
        ("constant_scales", "refused", "q"), ("constant_scales", "refused", "d"),
    ]  # fmt: skip


@pytest.mark.parametrize(("operator", "axis"), [("Conv", 1), ("ConvTranspose", 0)])
def test_scales_along_the_wrong_axis_of_a_weight_are_refused(operator: str, axis: int) -> None:
    findings = [finding for finding in lint(quantized(operator, axis=axis)) if finding.rule == "channel_scales"]
    assert [(finding.severity, finding.text) for finding in findings] == [
        ("refused", f"scales along axis {axis} of a {operator}'s weight, not {1 - axis}")
    ]


def test_more_than_one_scale_for_an_activation_is_refused() -> None:
    graph = quantized(s=np.full(16, 0.1, np.float32), z=np.zeros(16, np.int8))
    assert found(graph) == [("channel_scales", "refused", "q")]


def test_a_convolution_with_one_quantized_input_runs_in_floats() -> None:
    graph = quantized()
    graph.graph.node[3].input[0] = "x"
    (finding,) = [finding for finding in lint(graph) if finding.rule == "all_inputs"]
    assert finding.text == "its weight is quantized and what it reads is not: it runs in floats"
    graph = quantized(w2=np.zeros((16, 16, 3, 3), np.float32))
    graph.graph.node[3].input[1] = "w2"
    (finding,) = [finding for finding in lint(graph) if finding.rule == "all_inputs"]
    assert (finding.severity, finding.text) == ("slow", "its weight is not quantized: it runs in floats")


def test_rounding_between_a_convolution_and_what_is_fused_into_it_is_slow() -> None:
    relu = helper.make_node("Relu", ["cd"], ["y"], name="r")
    (finding,) = lint(quantized(after=(*PAIR, relu)))
    assert (finding.rule, finding.node) == ("before_fusion", "c")
    assert finding.text == "its output is quantized before Relu, which then cannot be fused into it"


def test_what_is_added_to_an_int8_convolution_should_be_quantized_too() -> None:
    assert found(quantized(after=(helper.make_node("Add", ["c", "x"], ["y"], name="a"),))) == [
        ("residual_input", "slow", "a")
    ]
    assert found(quantized(after=(helper.make_node("Add", ["d", "c"], ["y"], name="a"),))) == []


def test_int8_groups_that_are_no_multiple_of_4_are_refused() -> None:
    assert ("int8_groups", "refused", "c") in found(quantized(group=8, shape=(16, 2, 3, 3)))


@pytest.mark.parametrize(("shape", "slow"), [((3, 16, 7, 7), False), ((8, 8, 3, 3), True), ((3, 17, 3, 3), True)])
def test_thin_int8_convolutions_are_named(shape: tuple[int, ...], slow: bool) -> None:
    assert (("int8_channels", "slow", "c") in found(quantized(shape=shape))) is slow


@pytest.mark.parametrize(
    ("sizes", "group", "few"),
    [
        ((16, 16, 3, 3), 1, False),
        ((16, 8, 3, 3), 1, False),
        ((3, 16, 7, 7), 1, False),
        ((3, 17, 3, 3), 1, True),
        ((17, 17, 3, 3), 1, False),
        ((8, 8, 3, 3), 1, True),
        ((32, 1, 3, 3), 32, True),
        ((32, 16, 3, 3), 2, False),
    ],
)
def test_few_channels_are_fewer_than_16_unless_8_meet_16_without_groups(
    sizes: tuple[int, ...], group: int, few: bool
) -> None:
    assert few_channels(helper.make_node("Conv", ["x", "w"], ["y"], group=group), sizes) is few


def test_an_int8_transposed_convolution_is_named() -> None:
    assert found(quantized("ConvTranspose")) == [("int8_transposed", "slow", "c")]


def test_operators_that_the_parser_lacks_are_refused() -> None:
    nodes = [
        helper.make_node("Det", ["x"], ["t"], name="det"),
        helper.make_node("Gelu", ["t"], ["y"], name="own", domain="com.microsoft"),
    ]
    assert [(finding.node, finding.text) for finding in lint(model(nodes))] == [
        ("det", "Det is not supported"), ("own", "Gelu of 'com.microsoft' needs a plugin"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("opset", "text"),
    [
        (17, []),
        (20, ["opset 20: the documents of TensorRT 8 end at opset 17"]),
        (23, ["opset 23: the documents of TensorRT 10.0 end at opset 20"]),
    ],
)
def test_an_opset_that_is_newer_than_a_version_is_named(opset: int, text: list[str]) -> None:
    graph = model([helper.make_node("Relu", ["x"], ["y"])], opset=opset)
    assert [finding.text for finding in lint(graph) if finding.severity == "version"] == text


def test_the_summary_counts_places_and_says_what_is_refused_first(tmp_path: Path) -> None:
    assert summary(lint(quantized("ConvTranspose", z=np.int8(3)))) == (
        "refused: a zero point that is not 0 (2 places, first q)",
        (
            "slow: an int8 transposed convolution is often slower than one in float16: leave it in floats, or rewrite "
            "it (1 place, first c)"
        ),
    )
    assert summary(lint_file(small_file(tmp_path / "g.onnx"))) == (
        "version: opset 18: the documents of TensorRT 8 end at opset 17 (1 place, first the file)",
    )


def test_every_rule_names_its_source() -> None:
    for rule in RULES:
        assert rule.__doc__ is not None
        assert any(word in rule.__doc__ for word in ("TensorRT", "NvInfer.h", "NVIDIA", "The same", "onnx-tensorrt")), (
            rule
        )

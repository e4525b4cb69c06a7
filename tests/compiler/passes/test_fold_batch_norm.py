"""Batch norm is folded into the convolution beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mggc_edge.compiler.passes.fold_batch_norm import FoldBatchNorm
from tests.compiler.passes.pass_helpers import Values, applied, build, operators, random, refused, report_of

PASS = FoldBatchNorm()
SIZE = (2, 6, 7, 5)


def statistics(channels: int, *, shift: bool = True) -> dict[str, Values]:
    offsets = random(channels, seed=1) if shift else np.zeros(channels)
    return {
        "scale": random(channels, seed=2),
        "shift": offsets,
        "mean": random(channels, seed=3) if shift else np.zeros(channels),
        "variance": np.abs(random(channels, seed=4)) + 0.1,
    }


def norm(x: str, y: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("BatchNormalization", [x, "scale", "shift", "mean", "variance"], [y], **attributes)


def conv(x: str, y: str, *, bias: bool = True, operator: str = "Conv", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, [x, "w", "b"] if bias else [x, "w"], [y], **attributes)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("group", [1, 2, 3])
@pytest.mark.parametrize("opset", [15, 20])
def test_after_a_convolution(bias: bool, group: int, opset: int) -> None:
    constants = {"w": random(9 if group == 3 else 8, 6 // group, 3, 3), **statistics(9 if group == 3 else 8)}
    if bias:
        constants["b"] = random(len(constants["w"]))
    nodes = [conv("x", "c", bias=bias, group=group, pads=[1] * 4), norm("c", "y", epsilon=1e-3)]
    assert operators(applied(build(nodes, SIZE, constants, opset=opset), PASS, SIZE)) == ["Conv"]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("group", [1, 2, 3])
def test_after_a_transposed_convolution(bias: bool, group: int) -> None:
    constants: dict[str, Values] = {"w": random(6, 4, 4, 4), **statistics(4 * group)}
    if bias:
        constants["b"] = random(4 * group)
    nodes = [
        conv("x", "c", bias=bias, operator="ConvTranspose", group=group, strides=[2, 2], pads=[1] * 4),
        norm("c", "n"),
        helper.make_node("Relu", ["n"], ["y"]),
    ]
    assert operators(applied(build(nodes, SIZE, constants), PASS, SIZE)) == ["ConvTranspose", "Relu"]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("group", [1, 2])
def test_before_a_convolution_without_padding(bias: bool, group: int) -> None:
    constants = {"w": random(4, 6 // group, 3, 3), **statistics(6)}
    if bias:
        constants["b"] = random(4)
    nodes = [norm("x", "n"), conv("n", "y", bias=bias, group=group)]
    assert operators(applied(build(nodes, SIZE, constants), PASS, SIZE)) == ["Conv"]


def test_before_a_convolution_with_padding_only_where_nothing_is_shifted() -> None:
    nodes = [norm("x", "n"), conv("n", "y", bias=False, pads=[1] * 4)]
    weight = {"w": random(4, 6, 3, 3)}
    assert refused(build(nodes, SIZE, {**weight, **statistics(6)}), PASS) == "the convolution after it pads"
    applied(build(nodes, SIZE, {**weight, **statistics(6, shift=False)}), PASS, SIZE)


def test_an_instance_norm_with_running_statistics_is_a_batch_norm_between_reshapes() -> None:
    nodes = [
        conv("x", "c", bias=False),
        helper.make_node("Reshape", ["c", "inside"], ["r"]),
        norm("r", "n"),
        helper.make_node("Reshape", ["n", "outside"], ["y"]),
    ]
    shapes = {"inside": np.array([1, 4, 5, 3]), "outside": np.array([1, 4, 5, 3])}
    constants = {"w": random(4, 6, 3, 3), **statistics(4), **shapes}
    rewritten = applied(build(nodes, (1, *SIZE[1:]), constants), PASS, (1, *SIZE[1:]))
    assert operators(rewritten) == ["Conv", "Reshape"]


def test_a_reshape_that_changes_sizes_is_not_looked_through() -> None:
    nodes = [
        conv("x", "c", bias=False),
        helper.make_node("Reshape", ["c", "inside"], ["r"]),
        norm("r", "y"),
    ]
    constants = {"w": random(4, 6, 3, 3), **statistics(8), "inside": np.array([1, 8, 5, 3])}
    assert refused(build(nodes, SIZE, constants), PASS) == "no convolution stands beside it alone"


def test_every_norm_of_a_chain_is_folded() -> None:
    nodes = [conv("x", "c", bias=False), norm("c", "n"), norm("n", "y")]
    model = build(nodes, SIZE, {"w": random(4, 6, 3, 3), **statistics(4)})
    assert report_of(model, PASS).applied == 2
    assert operators(applied(model, PASS, SIZE)) == ["Conv"]


def changed(constants: Mapping[str, Values], **attributes: Any) -> onnx.ModelProto:
    return build([conv("x", "c", bias=False), norm("c", "y", **attributes)], SIZE, constants)


def test_a_precondition_that_does_not_hold_is_the_reason() -> None:
    constants = {"w": random(4, 6, 3, 3), **statistics(4)}
    assert refused(changed(constants, training_mode=1), PASS) == "it is in training mode"
    fed = {name: value for name, value in constants.items() if name != "mean"}
    model = changed(fed)
    model.graph.input.append(helper.make_tensor_value_info("mean", TensorProto.DOUBLE, [4]))
    assert refused(model, PASS) == "its statistics are not constant"
    both = changed(constants)
    both.graph.input.append(helper.make_tensor_value_info("w", TensorProto.DOUBLE, [4, 6, 3, 3]))
    assert refused(both, PASS) == "its weights are not constant"
    read = build(
        [conv("x", "c", bias=False), norm("c", "n"), helper.make_node("Add", ["c", "n"], ["y"])], SIZE, constants
    )
    assert refused(read, PASS) == "no convolution stands beside it alone"
    alone = build([norm("x", "y")], SIZE, statistics(6))
    assert refused(alone, PASS) == "no convolution stands beside it alone"


def test_half_precision_would_be_rounded_and_is_left_alone() -> None:
    constants = {name: value.astype(np.float16) for name, value in {"w": random(4, 6, 3, 3), **statistics(4)}.items()}
    model = build([conv("x", "c", bias=False), norm("c", "y")], SIZE, constants, kind=TensorProto.FLOAT16)
    assert refused(model, PASS) == "float16 weights would be rounded"

"""Dead biases, pads merged into convolutions, reflection by slices, and widths filled up with zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from mggc_edge.compiler.passes.dead_bias import DeadBias
from mggc_edge.compiler.passes.merge_pad import MergePad
from mggc_edge.compiler.passes.pad_widths import PadWidths
from mggc_edge.compiler.passes.reflect_pad import ReflectPad
from tests.compiler.passes.pass_helpers import (
    Values,
    applied,
    attributes,
    build,
    operators,
    random,
    refused,
    weights,
)  # fmt: skip

SIZE = (2, 6, 7, 5)


def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], **attributes)


# --- dead biases ---


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_a_bias_before_an_instance_norm_goes(operator: str) -> None:
    constants = {"w": random(6, 6, 3, 3), "b": random(6), "s": random(6, seed=1), "t": random(6, seed=2)}
    nodes = [node(operator, "x w b", "c"), node("InstanceNormalization", "c s t", "y")]
    rewritten = applied(build(nodes, SIZE, constants), DeadBias(), SIZE)
    assert set(weights(rewritten)) == {"w", "s", "t"}


def test_a_bias_that_somebody_sees_stays() -> None:
    constants = {"w": random(6, 6, 1, 1), "b": random(6), "s": random(6, seed=1), "t": random(6, seed=2)}
    norm = node("InstanceNormalization", "c s t", "n")
    read = [node("Conv", "x w b", "c"), norm, node("Add", "c n", "y")]
    assert refused(build(read, SIZE, constants), DeadBias()) == "others read the convolution before it"
    bare = [node("Conv", "x w", "c"), norm, node("Relu", "n", "y")]
    assert refused(build(bare, SIZE, constants), DeadBias()) == "the convolution before it has no bias"
    other = [node("Relu", "x", "c"), norm, node("Relu", "n", "y")]
    assert refused(build(other, SIZE, constants), DeadBias()) == "no convolution stands before it"


# --- pads ---


@pytest.mark.parametrize("pads", [[0, 0, 1, 2, 0, 0, 3, 0], [0, 0, 1, 1, 0, 0, 1, 1]])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("group", [1, 3])
def test_zeros_around_a_picture_become_padding(pads: list[int], stride: int, group: int) -> None:
    nodes = [
        node("Pad", "x pads", "p"),
        node("Conv", "p w", "y", strides=[stride] * 2, pads=[1, 0, 0, 1], group=group),
    ]
    constants = {"w": random(6, 6 // group, 3, 3), "pads": np.array(pads)}
    rewritten = applied(build(nodes, SIZE, constants, opset=13), MergePad(), SIZE)
    assert operators(rewritten) == ["Conv"]
    assert attributes(rewritten, "Conv")["pads"] == [pads[2] + 1, pads[3], pads[6], pads[7] + 1]


def test_named_axes_a_constant_zero_and_two_readers_are_understood() -> None:
    nodes = [
        node("Pad", "x pads zero axes", "p"),
        node("Conv", "p w", "a"),
        node("Conv", "p v", "b", auto_pad="VALID"),
        node("Add", "a b", "y"),
    ]
    constants: dict[str, Values] = {
        "w": random(4, 6, 3, 3), "v": random(4, 6, 3, 3, seed=5), "zero": np.zeros(()),
        "pads": np.array([2, 1, 0, 3]), "axes": np.array([-1, 2]),
    }  # fmt: skip
    assert operators(applied(build(nodes, SIZE, constants), MergePad(), SIZE)) == ["Conv", "Conv", "Add"]


def padded(pads: Sequence[int], *, mode: str = "constant", value: float = 0.0) -> onnx.ModelProto:
    constants = {"w": random(4, 6, 1, 1), "pads": np.array(pads), "value": np.array(value)}
    return build([node("Pad", "x pads value", "p", mode=mode), node("Conv", "p w", "y")], SIZE, constants)


def test_a_pad_that_is_no_padding_stays() -> None:
    around = [0, 0, 1, 1, 0, 0, 1, 1]
    assert refused(padded(around, mode="edge"), MergePad()) == "it does not pad with a constant"
    assert refused(padded(around, value=1.0), MergePad()) == "it does not pad with zeros"
    assert refused(padded([0, 0, -1, 0, 0, 0, 1, 1]), MergePad()) == "it does not pad pictures"
    assert refused(padded([1, 0, 1, 0, 0, 0, 1, 1]), MergePad()) == "it does not pad pictures"
    read = build([node("Pad", "x pads", "p"), node("Relu", "p", "y")], SIZE, {"pads": np.array(around)})
    assert refused(read, MergePad()) == "others than convolutions read it"
    fed = build([node("Cast", "x", "i", to=7), node("Shape", "i", "s"), node("Pad", "x pads", "y")], SIZE)
    fed.graph.input.append(helper.make_tensor_value_info("pads", onnx.TensorProto.INT64, [8]))
    assert refused(fed, MergePad()) == "its amounts are not constant"


@pytest.mark.parametrize("pads", [[3, 3, 3, 3], [1, 0, 0, 2], [0, 4, 0, 0], [6, 4, 6, 4], [0, 0, 1, 0]])
def test_reflection_is_slices_backwards(pads: list[int]) -> None:
    top, left, bottom, right = pads
    constants = {"pads": np.array([0, 0, top, left, 0, 0, bottom, right])}
    model = build([node("Pad", "x pads", "p", mode="reflect"), node("Tanh", "p", "y")], SIZE, constants)
    rewritten = applied(model, ReflectPad(), SIZE)
    assert set(operators(rewritten)) == {"Slice", "Concat", "Tanh"}


def test_a_pad_that_does_not_reflect_stays() -> None:
    assert refused(padded([0, 0, 1, 1, 0, 0, 1, 1]), ReflectPad()) == "it does not reflect"
    assert refused(padded([0] * 8, mode="reflect"), ReflectPad()) == "it pads nothing"


# --- widths ---


def widths(middle: Sequence[onnx.NodeProto], last: onnx.NodeProto, **more: Values) -> onnx.ModelProto:
    constants = {"w": random(5, 6, 3, 3), "b": random(5), "v": random(4, 5, 3, 3), **more}
    return build([node("Conv", "x w b", "c"), *middle, last], SIZE, constants)


@pytest.mark.parametrize("multiple", [4, 8, 16])
def test_widths_between_convolutions_are_filled_up_with_zeros(multiple: int) -> None:
    middle = [
        node("InstanceNormalization", "c s t", "n"),
        node("Relu", "n", "r"),
        node("Pad", "r pads", "p", mode="reflect"),
    ]
    more = {"s": random(5, seed=1), "t": random(5, seed=2), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    rewritten = applied(widths(middle, node("Conv", "p v", "y"), **more), PadWidths(multiple), SIZE)
    filled = -(-5 // multiple) * multiple
    shapes = {value.shape for value in weights(rewritten).values()}
    assert shapes == {(filled, 6, 3, 3), (filled,), (4, filled, 3, 3), (8,)}


def test_transposed_convolutions_are_filled_up_too() -> None:
    constants = {"w": random(6, 5, 3, 3), "v": random(5, 3, 4, 4)}
    nodes = [node("ConvTranspose", "x w", "c"), node("Sigmoid", "c", "r"), node("ConvTranspose", "r v", "y")]
    applied(build(nodes, SIZE, constants), PadWidths(4), SIZE)


def test_widths_that_cannot_be_filled_up_give_the_reason() -> None:
    def reasons(model: onnx.ModelProto) -> set[str]:
        from tests.compiler.passes.pass_helpers import report_of

        report = report_of(model, PadWidths(4))
        assert report.applied == 0
        return set(report.reasons)

    last = node("Conv", "r v", "y")
    assert reasons(widths([node("Add", "c c", "r")], last)) == {
        "more than one chain reads it", "its width is such a multiple",
    }  # fmt: skip
    assert reasons(widths([node("Exp", "c", "r")], last)) == {
        "what reads it joins channels, or is not known", "its width is such a multiple",
    }  # fmt: skip
    grouped = node("Conv", "c u", "y", group=5)
    assert reasons(widths([], grouped, u=random(5, 1, 3, 3))) == {
        "the convolution that reads it is grouped", "it is grouped",
    }  # fmt: skip
    norm, scales = node("InstanceNormalization", "c s s", "r", epsilon=0.0), {"s": random(5)}
    assert reasons(widths([norm], last, **scales)) == {
        "the norm that reads it divides by zero where nothing varies", "its width is such a multiple",
    }  # fmt: skip

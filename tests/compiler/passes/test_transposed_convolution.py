"""Transposed convolutions become convolutions and DepthToSpace."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from mggc_edge.compiler.facts import count_macs
from mggc_edge.compiler.passes.transposed_convolution import TransposedConvolution
from tests.compiler.passes.pass_helpers import Shape, applied, attributes, build, operators, random, refused

ANY = TransposedConvolution("transposed_convolution_any", None)
SIZE = (1, 6, 5, 7)


def transposed(
    kernel: tuple[int, int], shape: Shape = SIZE, *, outputs: int = 5, bias: bool = True, group: int = 1, **more: Any
) -> onnx.ModelProto:
    given = {"strides": [2, 2], "group": group, **more}
    node = helper.make_node("ConvTranspose", ["x", "w", "b"] if bias else ["x", "w"], ["y"], **given)
    constants = {"w": random(6, outputs, *kernel), "b": random(outputs * group)}
    return build([node], shape, constants if bias else {"w": constants["w"]})


@pytest.mark.parametrize("bias", [True, False])
def test_3x3_with_output_padding_is_a_2x2_convolution_without_a_crop(bias: bool) -> None:
    model = transposed((3, 3), pads=[1] * 4, output_padding=[1, 1], bias=bias)
    rewritten = applied(model, ANY, SIZE)
    assert operators(rewritten) == ["Conv", "DepthToSpace"]
    assert attributes(rewritten, "Conv")["kernel_shape"] == [2, 2]


def test_4x4_is_a_2x2_convolution_with_a_crop_and_no_more_multiplications_but_the_border() -> None:
    model = transposed((4, 4), pads=[1] * 4)
    rewritten = applied(model, TransposedConvolution(), SIZE)
    assert operators(rewritten) == ["Conv", "DepthToSpace", "Slice"]
    assert count_macs(model)[0] == 6 * 5 * 16 * 5 * 7
    assert count_macs(rewritten)[0] == 6 * 5 * 16 * 6 * 8


@pytest.mark.parametrize("kernel", [(2, 2), (3, 3), (4, 4), (5, 5), (2, 5), (6, 3), (7, 4)])
@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("padding", [[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 1]])
@pytest.mark.parametrize("output_padding", [[0, 0], [1, 0], [1, 1]])
def test_every_kernel_stride_and_padding_is_exact(
    kernel: tuple[int, int], stride: int, padding: list[int], output_padding: list[int]
) -> None:
    model = transposed(kernel, strides=[stride, stride], pads=padding, output_padding=output_padding)
    rewritten = applied(model, ANY, SIZE)
    assert "ConvTranspose" not in operators(rewritten)


@pytest.mark.parametrize("group", [2, 3, 6])
def test_groups_stay_groups(group: int) -> None:
    model = transposed((4, 4), pads=[1] * 4, group=group, outputs=2)
    rewritten = applied(model, TransposedConvolution(), SIZE)
    assert attributes(rewritten, "Conv")["group"] == group


def test_sizes_may_be_open() -> None:
    applied(transposed((4, 4), ("batch", 6, "height", "width"), pads=[1] * 4), TransposedConvolution(), (2, 6, 3, 4))


def test_a_pointwise_function_stays_beside_the_convolution() -> None:
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w"], ["c"], strides=[2, 2], pads=[1] * 4),
        helper.make_node("Tanh", ["c"], ["y"]),
    ]
    rewritten = applied(build(nodes, SIZE, {"w": random(6, 3, 4, 4)}), TransposedConvolution(), SIZE)
    assert operators(rewritten) == ["Conv", "Tanh", "DepthToSpace", "Slice"]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (transposed((3, 3), pads=[1] * 4, output_padding=[1, 1]), "it would multiply more than before"),
        (transposed((4, 4), strides=[1, 1]), "its strides are 1, or differ"),
        (transposed((4, 4), strides=[2, 1]), "its strides are 1, or differ"),
        (transposed((4, 4), dilations=[2, 2]), "its dilation is not 1"),
        (transposed((4, 4), auto_pad="SAME_UPPER"), "its padding follows from its size"),
        (transposed((4, 4), output_shape=[10, 14]), "its padding follows from its size"),
        (transposed((2, 2), pads=[3, 3, 0, 0]), "its padding is wider than its kernel"),
        (
            build([helper.make_node("ConvTranspose", ["x", "x"], ["y"])], (3, 3, 7, 7)),
            "its weights are not constant",
        ),
    ],
)
def test_a_precondition_that_does_not_hold_is_the_reason(model: onnx.ModelProto, reason: str) -> None:
    assert refused(model, TransposedConvolution()) == reason


def test_a_stride_of_a_few_bytes_does_not_ask_for_any_number_of_weights() -> None:
    assert refused(transposed((3, 3), strides=[10_000, 10_000]), ANY) == "its weights would become too many"


def test_weights_in_a_constant_node_are_constants() -> None:
    weight = onnx.numpy_helper.from_array(np.asarray(random(6, 2, 4, 4)), "value")
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], pads=[1] * 4),
    ]
    assert "Constant" not in operators(applied(build(nodes, SIZE), TransposedConvolution(), SIZE))

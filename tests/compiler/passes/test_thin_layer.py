"""A convolution with few outputs, such as the last one, computes blocks of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from mggc_edge.compiler.passes.thin_layer import ThinLayer
from tests.compiler.passes.pass_helpers import (
    Shape,
    applied,
    attributes,
    build,
    operators,
    random,
    refused,
    report_of,
    weights,
)  # fmt: skip

PASS = ThinLayer(16)


def last_layer(
    outputs: int, kernel: tuple[int, int], shape: Shape = (1, 5, 12, 20), *, bias: bool = True, **attributes: Any
) -> onnx.ModelProto:
    given = {"pads": [kernel[0] // 2, kernel[1] // 2] * 2, **attributes}
    channels = 5 // given.get("group", 1)
    node = helper.make_node("Conv", ["x", "w", "b"] if bias else ["x", "w"], ["y"], **given)
    constants = {"w": random(outputs, channels, *kernel), "b": random(outputs)}
    return build([node], shape, constants if bias else {"w": constants["w"]})


@pytest.mark.parametrize("outputs", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [(7, 7), (9, 9), (5, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_few_outputs_become_more_at_a_larger_stride(outputs: int, kernel: tuple[int, int], bias: bool) -> None:
    rewritten = applied(last_layer(outputs, kernel, bias=bias), PASS, (1, 5, 12, 20))
    assert operators(rewritten) == ["Conv", "DepthToSpace"]
    block = attributes(rewritten, "DepthToSpace")["blocksize"]
    conv = attributes(rewritten, "Conv")
    assert (conv["strides"], conv["kernel_shape"]) == ([block, block], [kernel[0] + block - 1, kernel[1] + block - 1])
    assert conv["pads"] == [kernel[0] // 2, kernel[1] // 2] * 2
    (weight,) = (value for value in weights(rewritten).values() if value.ndim == 4)
    assert weight.shape == (outputs * block**2, 5, kernel[0] + block - 1, kernel[1] + block - 1)


def test_the_block_is_what_costs_least_with_the_lanes_filled() -> None:
    # 3 outputs and 7x7, in 16 lanes: 2: 16 / 4 * 64 = 256, 4: 48 / 16 * 100 = 300, as it is 16 * 49 = 784.
    # 1 output: 2: 16 / 4 * 64 = 256, 4: 16 / 16 * 100 = 100.
    blocks = {n: applied(last_layer(n, (7, 7)), PASS, (1, 5, 12, 20)) for n in (1, 3)}
    assert {n: attributes(model, "DepthToSpace")["blocksize"] for n, model in blocks.items()} == {1: 4, 3: 2}


def test_a_side_that_4_does_not_divide_is_rewritten_in_blocks_of_2() -> None:
    rewritten = applied(last_layer(1, (7, 7), (2, 5, 12, 18)), PASS, (2, 5, 12, 18))
    assert attributes(rewritten, "DepthToSpace")["blocksize"] == 2


@pytest.mark.parametrize("how", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("kernel", [(7, 7), (6, 8)])
def test_implicit_pads_become_explicit(how: str, kernel: tuple[int, int]) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad=how)
    size = (1, 5, 12, 20) if how != "VALID" else (1, 5, 12 + kernel[0] - 1, 20 + kernel[1] - 1)
    rewritten = applied(build([node], size, {"w": random(3, 5, *kernel)}), PASS, size)
    assert "auto_pad" not in attributes(rewritten, "Conv")


def test_an_open_batch_stays_open_and_uneven_pads_stay_as_they_are() -> None:
    model = last_layer(3, (7, 7), ("batch", 5, 10, 18), pads=[1, 2, 5, 6])
    rewritten = applied(model, PASS, (3, 5, 10, 18))
    assert rewritten.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("function", ["Tanh", "Relu", "Sigmoid"])
def test_a_pointwise_function_stays_beside_the_convolution(function: str) -> None:
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["p"], mode="reflect"),
        helper.make_node("Conv", ["p", "w"], ["c"]),
        helper.make_node(function, ["c"], ["y"]),
    ]
    constants = {"w": random(3, 5, 7, 7), "pads": np.array([0, 0, 3, 3, 0, 0, 3, 3])}
    rewritten = applied(build(nodes, (1, 5, 8, 12), constants), PASS, (1, 5, 8, 12))
    assert operators(rewritten) == ["Pad", "Conv", function, "DepthToSpace"]


def test_what_others_read_too_is_put_in_place_first() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[3, 3, 3, 3]),
        helper.make_node("Tanh", ["c"], ["t"]),
        helper.make_node("Add", ["c", "t"], ["y"]),
    ]
    rewritten = applied(build(nodes, (1, 5, 8, 12), {"w": random(3, 5, 7, 7)}), PASS, (1, 5, 8, 12))
    assert operators(rewritten) == ["Conv", "DepthToSpace", "Tanh", "Add"]


def test_weights_that_two_layers_share_stay_for_the_other_one() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[3, 3, 3, 3]),
        helper.make_node("Conv", ["x", "w"], ["b"], pads=[3, 3, 3, 3], strides=[1, 1]),
        helper.make_node("Sub", ["a", "b"], ["d"]),
        helper.make_node("Add", ["d", "a"], ["y"]),
    ]
    applied(build(nodes, (1, 5, 8, 12), {"w": random(3, 5, 7, 7)}), PASS, (1, 5, 8, 12))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (last_layer(5, (7, 7)), "it has more than 4 outputs"),
        (last_layer(3, (7, 7), strides=[2, 2]), "its stride or dilation is not 1"),
        (last_layer(3, (7, 7), dilations=[2, 2], pads=[6, 6, 6, 6]), "its stride or dilation is not 1"),
        (last_layer(3, (7, 7), (1, 5, 11, 20)), "its output size is odd"),
        (last_layer(3, (7, 7), (1, 5, None, 20)), "its output size is not known"),
        (last_layer(3, (1, 1)), "no block makes it cheaper"),
        (build([helper.make_node("Conv", ["x", "x"], ["y"])], (3, 3, 7, 7)), "its weights are not constant"),
        (
            build([helper.make_node("Conv", ["x", "w"], ["y"])], (1, 5, 16), {"w": random(3, 5, 7)}),
            "it is not two-dimensional",
        ),
    ],
)
def test_a_precondition_that_does_not_hold_is_the_reason(model: onnx.ModelProto, reason: str) -> None:
    assert refused(model, PASS) == reason


def test_a_grouped_convolution_is_left_alone() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=2, pads=[3, 3, 3, 3])
    assert refused(build([node], (1, 4, 8, 8), {"w": random(2, 2, 7, 7)}), PASS) == "it is grouped"


def test_other_operators_are_no_sites() -> None:
    assert report_of(build([helper.make_node("Relu", ["x"], ["y"])], (1, 3, 4, 4)), PASS).sites == ()

"""Transposed convolutions become convolutions and DepthToSpace."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from mggc_edge.compiler.facts import count_macs
from mggc_edge.compiler.passes.transposed_convolution import TransposedConvolution
from tests.compiler.passes.pass_helpers import Shape, applied, attributes, build, operators, random, refused, run
from tests.compiler.passes.test_contract import by_onnxruntime

ANY = TransposedConvolution("transposed_convolution_any", None)
SIZE = (1, 6, 5, 7)
TOO_WIDE = "its padding is wider than its kernel"


def transposed(
    kernel: tuple[int, int], shape: Shape = SIZE, *, outputs: int = 5, bias: bool = True, group: int = 1, **more: Any
) -> onnx.ModelProto:
    given = {"strides": [2, 2], "group": group, **more}
    node = helper.make_node("ConvTranspose", ["x", "w", "b"] if bias else ["x", "w"], ["y"], **given)
    constants = {"w": random(6, outputs, *kernel), "b": random(outputs * group)}
    return build([node], shape, constants if bias else {"w": constants["w"]})


def single(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model in double precision, in single precision."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    for tensor in made.graph.initializer:
        if tensor.data_type == onnx.TensorProto.DOUBLE:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return made


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


@pytest.mark.parametrize(
    ("kernel", "stride", "pads", "output_padding"),
    [
        ((5, 5), 2, [2, 2, 2, 2], [1, 1]),
        ((5, 5), 2, [2, 2, 1, 1], [0, 0]),
        ((4, 4), 2, [2, 2, 2, 2], [0, 0]),
        ((4, 4), 2, [3, 0, 1, 2], [0, 1]),
        ((6, 6), 2, [5, 4, 5, 4], [1, 0]),
        ((7, 7), 3, [2, 2, 2, 2], [0, 0]),
        ((7, 7), 3, [3, 3, 3, 3], [2, 2]),
        ((7, 7), 3, [6, 4, 3, 5], [1, 2]),
        ((7, 4), 3, [5, 3, 6, 0], [0, 2]),
        ((9, 5), 4, [4, 4, 8, 0], [3, 1]),
    ],
)
def test_paddings_as_wide_as_the_stride_and_wider_are_exact(
    kernel: tuple[int, int], stride: int, pads: list[int], output_padding: list[int]
) -> None:
    model = transposed(kernel, strides=[stride, stride], pads=pads, output_padding=output_padding)
    assert "ConvTranspose" not in operators(applied(model, ANY, SIZE))


@pytest.mark.parametrize("seed", range(60))
def test_whatever_padding_is_below_the_kernels_size_is_exact_in_double_and_in_onnx_runtime(seed: int) -> None:
    drawn = np.random.default_rng(seed)
    stride, group = int(drawn.integers(2, 5)), int(drawn.integers(1, 4))
    kernel = int(drawn.integers(2, 8)), int(drawn.integers(2, 8))
    pads = [int(drawn.integers(side)) for side in kernel * 2]
    more = [int(drawn.integers(stride)) for _ in kernel]
    model = transposed(
        kernel, strides=[stride] * 2, pads=pads, output_padding=more, group=group, bias=seed % 3 > 0, outputs=2
    )
    rewritten = applied(model, ANY, SIZE)
    assert "ConvTranspose" not in operators(rewritten)
    feed = random(*SIZE, seed=seed).astype(np.float32)
    expected, found = by_onnxruntime(single(model), feed), by_onnxruntime(single(rewritten), feed)
    assert expected.shape == found.shape == run(model, random(*SIZE)).shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * max(1.0, float(np.abs(expected).max())))


@pytest.mark.parametrize("kernel", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("place", range(4))
def test_a_padding_is_too_wide_from_the_kernels_size_on(kernel: int, stride: int, place: int) -> None:
    pads = [0] * 4
    pads[place] = kernel - 1
    applied(transposed((kernel, kernel), strides=[stride] * 2, pads=pads), ANY, SIZE)
    pads[place] = kernel
    assert refused(transposed((kernel, kernel), strides=[stride] * 2, pads=pads), ANY) == TOO_WIDE


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
        (transposed((2, 2), pads=[3, 3, 0, 0]), TOO_WIDE),
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

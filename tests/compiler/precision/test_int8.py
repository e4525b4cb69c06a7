"""int8 out of a float graph and ranges: which layers, on which grids, and that ONNX Runtime computes them in int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from mggc_edge.calibration.ranges import ActivationRanges
from mggc_edge.compiler.precision.form import FORMS, Int8Form, form_of
from mggc_edge.compiler.precision.int8 import (
    ASKED,
    LAST,
    LEAST_PART,
    LEAST_WEIGHT,
    THIN,
    Layer,
    find_layers,
    named,
    quantized,
    tensors_to_observe,
    weight_grid,
)
from mggc_edge.compiler.tensorrt_lint import lint
from mggc_edge.errors import ArtifactError
from mggc_edge.models import fake_quant
from mggc_edge.models.families import layer_table
from mggc_edge.models.resnet import resnet_spec
from tests.compiler.passes.pass_helpers import operators, random, weights
from tests.compiler.precision.precision_helpers import (
    network,
    operators_in_onnxruntime,
    pictures,
    quantize,
    run,
    three_convolutions,
)

TRANSPOSED = "transposed convolutions have no 8-bit kernels; a pass may make convolutions of them"


# --- grids ---


def test_weights_lie_on_the_grid_that_training_rounds_them_to() -> None:
    layer = next(row for row in layer_table(resnet_spec(blocks=1, ngf=4), (32, 32)).layers if row.op == "conv")
    weight = random(4, 3, 7, 7).astype(np.float32)
    weight[1] *= 1e-9  # a channel that is nearly dead
    levels, scales = weight_grid(weight, 127)
    assert np.array_equal(scales, fake_quant.weight_scale(torch.from_numpy(weight), layer).numpy())
    assert np.array_equal(levels, fake_quant.weight_levels(torch.from_numpy(weight), layer).numpy())
    assert (LEAST_PART, LEAST_WEIGHT) == (fake_quant.LEAST_PART, fake_quant.LEAST_WEIGHT)
    assert np.abs(weight_grid(weight, 63)[0]).max() == 63


@pytest.mark.parametrize(
    ("form", "low", "high", "scale", "zero"),
    [
        (Int8Form(), -1.0, 1.55, 0.01, 100),
        (Int8Form(), 0.2, 2.55, 0.01, 0),
        (Int8Form(), -2.55, -1.0, 0.01, 255),
        (Int8Form("int8"), -1.0, 1.55, 0.01, -28),
        (Int8Form("int8", symmetric=True), -1.0, 1.27, 0.01, 0),
        (Int8Form("uint8", symmetric=True), -1.27, 1.0, 0.01, 128),
        (Int8Form(), 0.0, 0.0, 1e-12, 0),
    ],
)
def test_a_grid_holds_the_range_and_zero_exactly(
    form: Int8Form, low: float, high: float, scale: float, zero: int
) -> None:
    found, level = form.grid(low, high)
    assert found == pytest.approx(scale)
    assert level == zero


def test_targets_have_the_grids_that_their_kernels_take_and_settings_win() -> None:
    assert form_of("x86-avx512") == form_of("portable") == Int8Form("uint8", False, 8, True)
    assert form_of("x86-avx2").weight_limit == 63
    tensorrt = Int8Form("int8", symmetric=True, pads_between=False, outputs=False, thin_in_float=True)
    assert form_of("tensorrt") == tensorrt
    assert form_of("portable", "symmetric", 7) == Int8Form("int8", True, 7, pads_between=False, outputs=False)
    assert form_of("tensorrt", "uint8") == Int8Form(thin_in_float=True)
    assert form_of("arm64", "uint8") == Int8Form()
    assert set(FORMS) == {"x86-avx2", "arm64", "ort-mobile", "tensorrt"}
    with pytest.raises(ArtifactError, match="weights of 4 bits are not written"):
        Int8Form(weight_bits=4)


# --- the graph ---


@pytest.mark.parametrize(
    ("between", "pad"), [("Relu", False), ("Relu", True), ("LeakyRelu", False), ("LeakyRelu", True)]
)
def test_every_quantized_convolution_runs_as_qlinearconv_in_onnxruntime(
    tmp_path: Path, between: str, pad: bool
) -> None:
    model = three_convolutions(between, pad=pad)
    made, layers, _ = quantize(model)
    assert layers == (Layer("first", None), Layer("second", None), Layer("last", LAST))
    found = operators_in_onnxruntime(made, tmp_path)
    assert found["QLinearConv"] == 2
    assert found["Conv"] + found["FusedConv"] == 1
    assert operators_in_onnxruntime(model, tmp_path)["QLinearConv"] == 0


def test_the_output_of_a_small_network_stays_within_forty_decibels() -> None:
    model = three_convolutions()
    made, _, _ = quantize(model)
    error = np.concatenate([run(made, picture) - run(model, picture) for picture in pictures()])
    assert 10 * np.log10(4 / np.square(error).mean()) > 40


def test_a_tensor_between_two_convolutions_has_one_pair_and_one_that_others_read_has_its_own() -> None:
    made, _, _ = quantize(three_convolutions())
    names = [node.name for node in made.graph.node if node.op_type == "QuantizeLinear"]
    assert names == ["first.input_quantized", "second.input_quantized", "second.output_quantized"]
    skipped = three_convolutions()
    skipped.graph.node.append(helper.make_node("Add", ["a1", "n2"], ["more"], name="skip"))
    made, _, _ = quantize(skipped)
    names = [node.name for node in made.graph.node if node.op_type == "QuantizeLinear"]
    assert names == ["first.input_quantized", "first.output_quantized", "second.output_quantized"]
    readers = {node.name for node in made.graph.node if "first.output_dequantized" in node.input}
    assert readers == {"second", "skip"}


def test_a_pad_that_copies_works_on_levels_where_the_target_likes_it_and_one_with_zeros_never_does() -> None:
    def order(model: onnx.ModelProto, form: Int8Form) -> list[str]:
        kinds = ("Pad", "QuantizeLinear", "DequantizeLinear", "Conv", "Relu")
        nodes = [node for node in quantize(model, form)[0].graph.node if not node.name.endswith("weight_dequantized")]
        found = [node.op_type for node in nodes if node.op_type in kinds]
        return found[found.index("Relu") + 1 : found.index("Conv", found.index("Relu"))]

    reflecting = three_convolutions(pad=True)
    assert order(reflecting, Int8Form()) == ["QuantizeLinear", "Pad", "DequantizeLinear"]
    beside = ["Pad", "QuantizeLinear", "DequantizeLinear"]
    assert order(reflecting, FORMS["tensorrt"])[-3:] == beside
    zeros = three_convolutions(pad=True)
    (pad,) = (node for node in zeros.graph.node if node.op_type == "Pad")
    del pad.attribute[:]
    assert order(zeros, Int8Form())[-3:] == beside


def test_a_bias_is_a_float_in_whole_steps_of_input_and_weight() -> None:
    model = three_convolutions()
    made, _, ranges = quantize(model)
    before, after = weights(model), weights(made)
    scale = Int8Form().grid(*ranges.of("x"))[0]
    steps = weight_grid(before["w1"], 127)[1] * np.float32(scale)
    whole = after["first.bias"] / steps
    assert np.abs(whole - np.rint(whole)).max() < 1e-2
    assert np.abs(after["first.bias"] - before["b1"]).max() <= steps.max() / 2 * 1.001
    assert "w1" not in after
    assert after["first.weight_int8"].dtype == np.int8
    assert np.array_equal(after["w3"], before["w3"])


def test_symmetric_levels_are_int8_with_zero_in_the_middle() -> None:
    made, _, _ = quantize(three_convolutions(), FORMS["tensorrt"])
    names = [node.name for node in made.graph.node if node.op_type == "QuantizeLinear"]
    assert names == ["first.input_quantized", "second.input_quantized"], "what they give stays in floats"
    zeros = {name: value for name, value in weights(made).items() if name.endswith("_zero_point")}
    assert {value.dtype.name for value in zeros.values()} == {"int8"}
    assert not any(value.any() for value in zeros.values())


def test_names_that_a_file_has_already_are_not_taken_again() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "conv1.weight", "conv1.bias"], ["conv1_.x"], name="conv1", pads=[1] * 4),
        helper.make_node("Relu", ["conv1_.x"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "conv2.weight", "conv2.bias"], ["y"], name="conv2"),
    ]
    constants = {
        "conv1.weight": random(8, 3, 3, 3) / 4, "conv1.bias": random(8) / 4,
        "conv2.weight": random(3, 8, 1, 1) / 4, "conv2.bias": random(3) / 4,
    }  # fmt: skip
    model = network(nodes, constants)
    made, layers, _ = quantize(model, last_in_float=False)
    assert [layer.reason for layer in layers] == [None, None]
    names = [tensor.name for tensor in made.graph.initializer]
    assert {"conv1__.bias", "conv2__.bias", "conv1__.weight_int8"} <= set(names)
    assert len(set(names)) == len(names)
    assert np.abs(run(made, pictures()[0]) - run(model, pictures()[0])).max() < 0.1


def test_weights_in_constant_nodes_and_shared_ones_are_quantized_and_taken_out() -> None:
    weight = (random(8, 3, 3, 3) / 4).astype(np.float32)
    held = helper.make_node("Constant", [], ["w"], name="held", value=numpy_helper.from_array(weight))
    nodes = [
        held,
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        helper.make_node("Conv", ["x", "w"], ["b"], pads=[1] * 4),
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("Conv", ["s", "v"], ["y"]),
    ]
    model = network(nodes, {"v": random(3, 8, 1, 1)})
    made, layers, _ = quantize(model)
    assert [layer.reason for layer in layers] == [None, None, LAST]
    assert operators(made).count("Constant") == 0
    assert np.abs(run(made, pictures()[0]) - run(model, pictures()[0])).max() < 0.2


# --- which layers ---


def test_nodes_without_names_get_some_and_names_that_occur_twice_a_number() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"], name="r"),
        helper.make_node("Relu", ["b"], ["y"], name="r"),
    ]
    model = network(nodes, {})
    assert [node.name for node in model.graph.node] == ["Relu_a", "r", "r_1"]
    assert [node.name for node in named(model).graph.node] == ["Relu_a", "r", "r_1"]


def test_what_stays_in_float_says_why() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="kept", pads=[1] * 4),
        helper.make_node("Mul", ["w2", "two"], ["computed"], name="times"),
        helper.make_node("Conv", ["a", "computed"], ["b"], name="of_computed", pads=[1] * 4),
        helper.make_node("ConvTranspose", ["b", "up"], ["c"], name="up", strides=[2, 2]),
        helper.make_node("Conv", ["c", "w3"], ["y"], name="end"),
    ]
    constants = {"w": random(4, 3, 3, 3), "w2": random(4, 4, 3, 3), "two": 2.0 * np.ones(1), "up": random(4, 4, 2, 2)}
    model = network(nodes, {**constants, "w3": random(3, 4, 1, 1)})
    found = {layer.name: layer.reason for layer in find_layers(model, keep_float=["kept"])}
    assert found == {"kept": ASKED, "of_computed": "its weights are not constant", "up": TRANSPOSED, "end": LAST}
    assert find_layers(model, last_in_float=False)[-1] == Layer("end", None)


def widths(*sizes: tuple[int, int, int]) -> onnx.ModelProto:
    """A chain of 3x3 convolutions c0, c1, ... of (outputs, inputs, groups)."""
    names = ["x", *(f"t{number}" for number in range(len(sizes) - 1)), "y"]
    nodes = [
        helper.make_node("Conv", [names[at], f"w{at}"], [names[at + 1]], name=f"c{at}", pads=[1] * 4, group=groups)
        for at, (_, _, groups) in enumerate(sizes)
    ]
    constants = {
        f"w{at}": random(outputs, inputs // groups, 3, 3) / 8 for at, (outputs, inputs, groups) in enumerate(sizes)
    }
    return network(nodes, constants)


CHAIN = ((8, 3, 1), (16, 8, 1), (32, 16, 1), (32, 32, 32), (20, 32, 1), (3, 20, 1))


def test_convolutions_with_few_channels_stay_in_float_for_tensorrt_and_for_no_other_target() -> None:
    model = widths(*CHAIN)
    found = [layer.reason for layer in find_layers(model, FORMS["tensorrt"], last_in_float=False)]
    assert found == [THIN, None, None, THIN, None, THIN]
    assert [layer.reason for layer in find_layers(model, FORMS["tensorrt"], keep_float=["c0"])] == [
        ASKED, None, None, THIN, None, LAST,
    ]  # fmt: skip
    for target in ("portable", "x86-avx2", "arm64", "ort-mobile"):
        for activations in ("auto", "symmetric"):
            layers = find_layers(model, form_of(target, activations), last_in_float=False)
            assert [layer.reason for layer in layers] == [None] * 6
    assert find_layers(model) == find_layers(model, Int8Form())


def test_what_is_quantized_for_tensorrt_has_no_int8_convolution_that_the_lint_calls_thin() -> None:
    model = widths(*CHAIN)
    thin = {}
    for name, form in (("all", None), ("tensorrt", FORMS["tensorrt"])):
        layers = find_layers(model, form, last_in_float=False)
        names = tensors_to_observe(model, layers, FORMS["tensorrt"])
        ranges = ActivationRanges(dict.fromkeys(names, (-1.0, 1.0)), "min-max", 1, "")
        made, _ = quantized(model, ranges, FORMS["tensorrt"], layers)
        thin[name] = [finding.node for finding in lint(made) if finding.rule == "int8_channels"]
    assert thin == {"all": ["c0", "c3", "c5"], "tensorrt": []}


def test_both_convolutions_of_a_last_sum_are_last_ones() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="one"),
        helper.make_node("Conv", ["a", "w"], ["b"], name="two"),
        helper.make_node("Conv", ["a", "w"], ["c"], name="three"),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    model = network(nodes, {"w": random(3, 3, 1, 1)})
    assert [layer.reason for layer in find_layers(model)] == [None, LAST, LAST]


def test_a_bias_beyond_int32_and_weights_that_are_not_finite_leave_a_layer_in_float() -> None:
    model = three_convolutions()
    for tensor in model.graph.initializer:
        if tensor.name == "b1":
            tensor.CopyFrom(numpy_helper.from_array(np.full(8, 1e9, np.float32), "b1"))
        if tensor.name == "w2":
            tensor.CopyFrom(numpy_helper.from_array(np.full((8, 8, 3, 3), np.inf, np.float32), "w2"))
    layers = find_layers(model)
    names = tensors_to_observe(model, layers, Int8Form())
    ranges = ActivationRanges(dict.fromkeys(names, (-1.0, 1.0)), "min-max", 1, "")
    _, done = quantized(model, ranges, Int8Form(), layers)
    assert done[0].reason == "its bias has more steps than int32 holds"
    assert done[1].reason == "its weights are not finite"


def test_an_opset_without_scales_per_channel_a_quantized_file_and_an_unknown_node_are_refused() -> None:
    with pytest.raises(ArtifactError, match="with a scale per channel need opset 13, and the file has opset 12") as old:
        find_layers(three_convolutions(opset=12))
    assert old.value.hint == "export it with a newer opset"
    with pytest.raises(ArtifactError, match="the file is in 8 bits already") as again:
        find_layers(quantize(three_convolutions())[0])
    assert again.value.hint == "give the float32 file that it was made from"
    with pytest.raises(ArtifactError, match=r"quantize\.keep_float names 'none', which is no convolution") as unknown:
        find_layers(three_convolutions(), keep_float=["none"])
    assert unknown.value.hint == "such as first, second, last"


def test_a_graph_without_a_range_for_a_tensor_is_refused() -> None:
    model = three_convolutions()
    with pytest.raises(ArtifactError, match="tensor 'x' has no range"):
        quantized(model, ActivationRanges({}, "mse", 1, ""), Int8Form(), find_layers(model))

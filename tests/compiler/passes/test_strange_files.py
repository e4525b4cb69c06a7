"""Files that other tools could write: names that mislead, sizes that differ, weights that overflow, chains of sites."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mggc_edge.compiler.passes.contract import MAX_ROUNDS, apply_passes
from mggc_edge.compiler.passes.dead_bias import DeadBias
from mggc_edge.compiler.passes.depth_to_space import DepthToSpace
from mggc_edge.compiler.passes.editor import Editor
from mggc_edge.compiler.passes.fold_batch_norm import FoldBatchNorm
from mggc_edge.compiler.passes.merge_pad import MergePad
from mggc_edge.compiler.passes.pad_widths import PadWidths
from mggc_edge.compiler.passes.thin_layer import ThinLayer
from mggc_edge.compiler.passes.transposed_convolution import TransposedConvolution
from mggc_edge.compiler.targets import choose_passes
from tests.compiler.passes.pass_helpers import (
    Shape,
    Values,
    applied,
    attributes,
    build,
    operators,
    random,
    refused,
    report_of,
)
from tests.compiler.passes.test_contract import by_onnxruntime

SIZE = (1, 4, 8, 8)
AROUND = np.array([0, 0, 1, 1, 0, 0, 1, 1])


def node(operator: str, inputs: str, output: str, domain: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], domain=domain, **attributes)


def norm(source: str, output: str) -> onnx.NodeProto:
    return node("BatchNormalization", f"{source} scale shift mean variance", output)


def statistics(width: int, *, shift: bool = True) -> dict[str, Values]:
    offsets = random(width, seed=1) if shift else np.zeros(width)
    return {"scale": random(width, seed=2), "shift": offsets, "mean": offsets, "variance": np.full(width, 0.5)}


def single(nodes: Sequence[onnx.NodeProto], constants: dict[str, Values], shape: Shape = SIZE) -> onnx.ModelProto:
    small = {name: value if value.dtype == np.int64 else value.astype(np.float32) for name, value in constants.items()}
    return build(nodes, shape, small, kind=TensorProto.FLOAT)


# --- names that mislead ---


def own(operator: str, parameters: str, body: Sequence[onnx.NodeProto]) -> onnx.FunctionProto:
    return helper.make_function(
        "own", operator, parameters.split(), ["result"], body, [helper.make_opsetid("", 18)]
    )  # fmt: skip


CONV = own("Conv", "a b", [node("Abs", "a", "d"), node("Conv", "d b", "result")])
BIASED = own("Conv", "a b c", [node("Conv", "a b c", "d"), node("Tanh", "d", "result")])
TANH = own("Tanh", "a", [node("Softmax", "a", "result", axis=1)])
INNER = own("Pad", "a b", [node("Softmax", "a", "d", axis=1), node("Pad", "d b", "result")])
W = {"w": random(4, 4, 1, 1)}


@pytest.mark.parametrize(
    ("graph_pass", "function", "nodes", "constants", "reason"),
    [
        (
            FoldBatchNorm(), CONV, [norm("x", "n"), node("Conv", "n w", "y", "own")], {**W, **statistics(4)},
            "no convolution stands beside it alone",
        ),
        (
            FoldBatchNorm(), CONV, [node("Conv", "x w", "n", "own"), norm("n", "y")], {**W, **statistics(4)},
            "no convolution stands beside it alone",
        ),
        (
            DeadBias(), BIASED, [node("Conv", "x w b", "n", "own"), node("InstanceNormalization", "n s s", "y")],
            {**W, "b": random(4), "s": random(4)}, "no convolution stands before it",
        ),
        (
            MergePad(), CONV, [node("Pad", "x pads", "n"), node("Conv", "n w", "y", "own")], {**W, "pads": AROUND},
            "others than convolutions read it",
        ),
        (
            PadWidths(8), CONV, [node("Conv", "x w", "n"), node("Conv", "n w", "y", "own")], W,
            "what reads it joins channels, or is not known",
        ),
        (
            PadWidths(8), INNER, [node("Conv", "x w", "n"), node("Pad", "n pads", "y", "own")],
            {**W, "pads": AROUND}, "what reads it joins channels, or is not known",
        ),
    ],
)  # fmt: skip
def test_a_function_with_the_name_of_an_operator_is_no_neighbour(
    graph_pass: FoldBatchNorm, function: onnx.FunctionProto, nodes: list[onnx.NodeProto],
    constants: dict[str, Values], reason: str,
) -> None:  # fmt: skip
    model = build(nodes, SIZE, constants)
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    assert refused(model, graph_pass) == reason


def test_a_function_called_tanh_reads_pictures_that_are_in_their_places() -> None:
    nodes = [node("Conv", "x w", "c", pads=[3] * 4), node("Tanh", "c", "y", "own")]
    model = single(nodes, {"w": random(3, 4, 7, 7)})
    model.functions.append(TANH)
    model.opset_import.append(helper.make_opsetid("own", 1))
    rewritten, _ = apply_passes(model, [ThinLayer(16)])
    assert operators(rewritten) == ["Conv", "DepthToSpace", "Tanh"]
    feed = random(*SIZE).astype(np.float32)
    np.testing.assert_allclose(by_onnxruntime(rewritten, feed), by_onnxruntime(model, feed), rtol=0, atol=1e-5)


def test_a_function_in_the_standard_domain_hides_the_operator() -> None:
    import onnx_ir

    model = build([node("Conv", "x w", "y")], SIZE, W)
    hidden = helper.make_function("", "Conv", ["a", "b"], ["c"], [node("Add", "a b", "c")], model.opset_import)
    model.functions.append(hidden)
    read = onnx_ir.from_proto(model)
    assert not Editor(read).is_a(read.graph.node(0), "Conv")
    del model.functions[:]
    read = onnx_ir.from_proto(model)
    assert Editor(read).is_a(read.graph.node(0), "Pad", "Conv")


# --- sizes that differ ---


@pytest.mark.parametrize("how", ["VALID", "NOTSET", "SAME_UPPER"])
def test_an_output_shape_wins_over_every_padding(how: str) -> None:
    nodes = [node("ConvTranspose", "x w", "y", strides=[2, 2], auto_pad=how, output_shape=[16, 16])]
    model = build(nodes, SIZE, {"w": random(4, 3, 4, 4)})
    assert refused(model, TransposedConvolution()) == "its padding follows from its size"


def test_sizes_behind_a_transposed_convolution_that_is_padded_by_its_size_are_not_known() -> None:
    nodes = [
        node("ConvTranspose", "x w", "c", strides=[4, 4], auto_pad="SAME_UPPER", output_padding=[2, 0]),
        node("Relu", "c", "r"),
        node("DepthToSpace", "r", "y", blocksize=2, mode="CRD"),
    ]
    model = single(nodes, {"w": random(3, 4, 6, 6)}, (3, 3, 5, 7))
    assert by_onnxruntime(model, random(3, 3, 5, 7).astype(np.float32)).shape == (3, 1, 40, 56)  # by ONNX 44
    assert refused(model, DepthToSpace()) == "its size is not known"


def test_the_size_that_a_file_says_of_its_output_stays() -> None:
    nodes = [
        node("DepthToSpace", "x", "d", blocksize=2, mode="CRD"),
        node("ConvTranspose", "d w", "y", strides=[4, 4], auto_pad="SAME_UPPER"),
    ]
    model = build(nodes, SIZE, {"w": random(1, 3, 6, 6)})
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.DOUBLE, [1, 3, 64, 64]))
    rewritten, (report,) = apply_passes(model, [DepthToSpace()])
    assert report.applied == 1
    assert rewritten.graph.output[0] == model.graph.output[0]


def test_sizes_behind_a_subgraph_are_not_known() -> None:
    out = [helper.make_tensor_value_info("o", TensorProto.DOUBLE, None)]
    inner = helper.make_graph([node("Relu", "x", "o")], "inner", [], out)
    nodes = [
        helper.make_node("If", ["yes"], ["i"], then_branch=inner, else_branch=inner),
        node("DepthToSpace", "i", "y", blocksize=2, mode="CRD"),
    ]
    assert refused(build(nodes, SIZE, {"yes": np.array(True)}), DepthToSpace()) == "its size is not known"


@pytest.mark.parametrize(
    ("attributes", "bias"),
    [
        ({"pads": [1, 1]}, 4), ({"strides": [1]}, 4), ({"dilations": [1, 1, 1]}, 4), ({"group": 3}, 4), ({}, 3),
        ({"kernel_shape": [3, 3]}, 4), ({"auto_pad": "SAME_UPPER", "dilations": [1]}, 4),
    ],
)  # fmt: skip
def test_a_convolution_that_contradicts_itself_is_left_alone(attributes: dict[str, Any], bias: int) -> None:
    model = build([node("Conv", "x w b", "y", **attributes)], SIZE, {**W, "b": random(bias)})
    reason = refused(model, ThinLayer(16))
    assert reason in ("its weights and attributes do not fit together", "its padding follows from its size")


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("before", [True, False])
def test_statistics_of_another_width_are_left_alone(width: int, before: bool) -> None:
    nodes = [node("Conv", "x w", "n"), norm("n", "y")] if before else [norm("x", "n"), node("Conv", "n w", "y")]
    model = build(nodes, SIZE, {**W, **statistics(width)})
    assert refused(model, FoldBatchNorm()) == "its statistics do not fit together"
    uneven = build(nodes, SIZE, {**W, **statistics(4), "mean": random(width)})
    assert refused(uneven, FoldBatchNorm()) == "its statistics do not fit together"


def test_axes_that_are_named_twice_and_blocks_that_do_not_divide_are_left_alone() -> None:
    twice = {**W, "pads": np.array([1, 1, 2, 2]), "none": np.zeros(()), "axes": np.array([2, -2])}
    model = build([node("Pad", "x pads none axes", "p"), node("Conv", "p w", "y")], SIZE, twice)
    assert refused(model, MergePad()) == "its amounts and axes do not fit together"
    model = build([node("DepthToSpace", "x", "y", blocksize=3, mode="CRD")], SIZE)
    assert refused(model, DepthToSpace()) == "its channels are no blocks"


# --- weights ---


def test_weights_that_overflow_are_not_folded() -> None:
    for nodes in ([node("Conv", "x w", "n"), norm("n", "y")], [norm("x", "n"), node("Conv", "n w", "y")]):
        constants = {"w": np.full((4, 4, 1, 1), 1e10), **statistics(4), "scale": np.full(4, 1e30)}
        assert refused(single(nodes, constants), FoldBatchNorm()) == "the folded weights would not be finite"
        doubles = {**constants, "scale": np.full(4, 1e300)}
        assert refused(build(nodes, SIZE, doubles), FoldBatchNorm()) == "the folded weights would not be finite"


@pytest.mark.parametrize("variance", [-1.0, -1e-5, float("nan")])
def test_a_variance_that_is_none_is_not_folded(variance: float) -> None:
    constants = {**W, **statistics(4), "variance": np.full(4, variance)}
    model = build([node("Conv", "x w", "n"), norm("n", "y")], SIZE, constants)
    assert refused(model, FoldBatchNorm()) == "its variance is not above zero"


# --- once is enough ---


def test_a_file_of_ir_version_3_becomes_one_that_may_have_initializers() -> None:
    model = build([node("DepthToSpace", "x", "y", blocksize=2, mode="CRD")], SIZE, opset=13)
    model.ir_version = 3
    assert applied(model, DepthToSpace(), SIZE).ir_version == 4
    model.ir_version = 8
    assert applied(model, DepthToSpace(), SIZE).ir_version == 8


@pytest.mark.parametrize(
    ("nodes", "constants", "shape", "counts"),
    [
        (  # a pad before a transposed convolution, which becomes a convolution only later
            [node("Pad", "x pads", "p"), node("ConvTranspose", "p w", "y", strides=[2, 2], pads=[1, 1, 0, 0])],
            {"pads": AROUND, "w": random(1, 4, 4, 2)}, (3, 1, 5, 7),
            {"merge_pad": 1, "transposed_convolution": 1, "depth_to_space": 1},
        ),
        (
            [norm("x", "a"), norm("a", "b"), norm("b", "c"), node("Conv", "c w", "y", group=2)],
            {**statistics(4), "w": random(6, 2, 1, 1)}, SIZE, {"fold_batch_norm": 3},
        ),
        (
            [node("Pad", "x pads", "a"), node("Pad", "a pads", "b"), node("Conv", "b w", "y", strides=[2, 2])],
            {"pads": AROUND, "w": random(6, 4, 3, 3)}, SIZE, {"merge_pad": 2},
        ),
        (  # one output with four phases is a thin layer itself
            [node("ConvTranspose", "x w", "y", strides=[2, 2], pads=[1] * 4)],
            {"w": random(2, 1, 4, 4)}, (2, 2, 7, 5),
            {"thin_layer": 1, "transposed_convolution": 1, "depth_to_space": 2},
        ),
        (  # the size before the second follows from what the first was
            [node("DepthToSpace", "x", "d", blocksize=2, mode="CRD"), node("Relu", "d", "r"),
             node("DepthToSpace", "r", "y", blocksize=2, mode="CRD")], {}, (1, 16, 3, 5), {"depth_to_space": 2},
        ),
    ],
)  # fmt: skip
def test_a_second_run_finds_nothing_to_do(
    nodes: list[onnx.NodeProto], constants: dict[str, Values], shape: tuple[int, ...], counts: dict[str, int]
) -> None:
    model, passes = single(nodes, constants, shape), choose_passes("auto", "x86-avx512")
    rewritten, reports = apply_passes(model, passes)
    assert {report.name: report.applied for report in reports if report.applied} == counts
    again, second = apply_passes(rewritten, passes)
    assert (again is rewritten, [report.applied for report in second]) == (True, [0] * 6)
    feed = random(*shape).astype(np.float32)
    expected, found = by_onnxruntime(model, feed), by_onnxruntime(rewritten, feed)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(np.abs(expected).max()))


def test_what_a_pass_makes_of_a_site_is_reported_once() -> None:
    report = report_of(build([node("Conv", "x w", "y", pads=[3] * 4)], SIZE, {"w": random(3, 4, 7, 7)}), ThinLayer(16))
    assert report.to_json() == {"name": "thin_layer", "applied": 1, "not_applied": {}}


def test_the_rounds_have_an_end() -> None:
    names = ["x", *(f"n{number}" for number in range(MAX_ROUNDS + 2))]
    nodes = [norm(source, output) for source, output in itertools.pairwise(names)]
    constants = {**statistics(4, shift=False), "scale": np.ones(4), "w": random(2, 4, 1, 1)}
    model = build([*nodes, node("Conv", f"{names[-1]} w", "y")], SIZE, constants)
    rewritten, (report,) = apply_passes(model, [FoldBatchNorm()])
    assert report.applied == MAX_ROUNDS
    assert report.reasons == {"no convolution stands beside it alone": 2}
    assert attributes(rewritten, "Conv") == {}
    assert operators(rewritten) == ["BatchNormalization"] * 2 + ["Conv"]

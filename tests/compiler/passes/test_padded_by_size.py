"""Convolutions that are padded by the picture's size are folded into and filled up: neither asks where they pad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mggc_edge.compiler.passes.contract import GraphPass, apply_passes
from mggc_edge.compiler.passes.fold_batch_norm import FoldBatchNorm
from mggc_edge.compiler.passes.pad_widths import PadWidths
from tests.compiler.passes.pass_helpers import Values, build, operators, random, refused, weights
from tests.compiler.passes.test_contract import by_onnxruntime

FOLD = FoldBatchNorm()
BY_SIZE = "its padding follows from its size"
SAME = ("SAME_UPPER", "SAME_LOWER")


def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], **attributes)


def norm(source: str, output: str) -> onnx.NodeProto:
    return node("BatchNormalization", f"{source} scale shift mean variance", output)


def statistics(width: int, *, shift: bool = True) -> dict[str, Values]:
    offsets = random(width, seed=1) if shift else np.zeros(width)
    return {
        "scale": random(width, seed=2), "shift": offsets, "mean": offsets * 2,
        "variance": np.abs(random(width, seed=4)) + 0.2,
    }  # fmt: skip


def single(nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Values], size: Sequence[int]) -> onnx.ModelProto:
    small = {name: value if value.dtype == np.int64 else value.astype(np.float32) for name, value in constants.items()}
    return build(nodes, size, small, kind=TensorProto.FLOAT)


def equal_in_onnx_runtime(model: onnx.ModelProto, graph_pass: GraphPass, size: Sequence[int]) -> onnx.ModelProto:
    """Rewrite a model at one site, and hold the outputs of both in ONNX Runtime against each other."""
    rewritten, (report,) = apply_passes(model, [graph_pass])
    assert report.applied == 1, report.reasons
    onnx.checker.check_model(rewritten)
    feed = random(*size, seed=9).astype(np.float32)
    expected, found = by_onnxruntime(model, feed), by_onnxruntime(rewritten, feed)
    assert found.shape == expected.shape
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * max(1.0, float(np.abs(expected).max())))
    return rewritten


def drawn(seed: int) -> tuple[str, int, dict[str, Any], dict[str, Values], tuple[int, ...]]:
    """A convolution padded by its size: operator, outputs, attributes, weights `w` and `b`, and a picture's size."""
    random_of = np.random.default_rng(seed)
    operator = ("Conv", "ConvTranspose")[seed % 2]
    group, outputs, inputs = int(random_of.integers(1, 3)), int(random_of.integers(1, 4)), int(random_of.integers(1, 4))
    kernel = [int(side) for side in random_of.integers(2, 6, 2)]
    strides = [int(side) for side in random_of.integers(2, 4, 2)]
    size = (2, inputs * group, *(int(side) for side in random_of.integers(5, 12, 2)))
    attributes: dict[str, Any] = {"strides": strides, "group": group}
    if operator == "ConvTranspose" and seed % 4 == 1:  # at most what the kernel would give without padding
        most = [stride * (side - 1) + reach for stride, side, reach in zip(strides, size[2:], kernel, strict=True)]
        attributes["output_shape"] = [side - int(random_of.integers(0, 3)) for side in most]
    else:
        attributes["auto_pad"] = SAME[int(random_of.integers(2))]
    shape = (outputs * group, inputs, *kernel) if operator == "Conv" else (inputs * group, outputs, *kernel)
    return operator, outputs * group, attributes, {"w": random(*shape), "b": random(outputs * group)}, size


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("seed", range(24))
def test_a_norm_is_folded_into_the_convolution_before_it_however_that_pads(seed: int, bias: bool) -> None:
    operator, outputs, attributes, constants, size = drawn(seed)
    nodes = [node(operator, "x w b" if bias else "x w", "c", **attributes), norm("c", "n"), node("Tanh", "n", "y")]
    if not bias:
        del constants["b"]
    model = single(nodes, {**constants, **statistics(outputs)}, size)
    rewritten = equal_in_onnx_runtime(model, FOLD, size)
    assert operators(rewritten) == [operator, "Tanh"]
    kept = {entry.name: helper.get_attribute_value(entry) for entry in rewritten.graph.node[0].attribute}
    assert {name: value.decode() if isinstance(value, bytes) else value for name, value in kept.items()} == attributes


@pytest.mark.parametrize("seed", range(0, 24, 2))
def test_a_norm_is_folded_into_the_convolution_after_it_only_where_nothing_is_shifted(seed: int) -> None:
    _, _, attributes, constants, size = drawn(seed)
    nodes = [norm("x", "n"), node("Conv", "n w b", "y", **attributes)]
    model = single(nodes, {**constants, **statistics(size[1], shift=False)}, size)
    assert operators(equal_in_onnx_runtime(model, FOLD, size)) == ["Conv"]
    assert refused(single(nodes, {**constants, **statistics(size[1])}, size), FOLD) == BY_SIZE


@pytest.mark.parametrize("first", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("last", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("how", SAME)
def test_widths_between_convolutions_that_pad_by_their_size_are_filled_up(first: str, last: str, how: str) -> None:
    size = (2, 3, 7, 10)
    nodes = [
        node(first, "x w b", "c", strides=[2, 2], auto_pad=how),
        node("InstanceNormalization", "c s t", "n"),
        node("Relu", "n", "r"),
        node(last, "r v", "y", strides=[2, 3], auto_pad=how),
    ]
    constants = {
        "w": random(5, 3, 4, 3) if first == "Conv" else random(3, 5, 4, 3), "b": random(5), "s": random(5, seed=1),
        "v": random(8, 5, 3, 4) if last == "Conv" else random(5, 8, 3, 4), "t": random(5, seed=2),
    }  # fmt: skip
    model = single(nodes, constants, size)
    rewritten, (report,) = apply_passes(model, [PadWidths(8)])
    assert report.to_json() == {
        "name": "pad_widths", "applied": 1, "not_applied": {"its width is such a multiple": 1},
    }  # fmt: skip
    assert {value.shape for value in weights(rewritten).values()} == {
        (8, 3, 4, 3) if first == "Conv" else (3, 8, 4, 3), (8,), (8, 8, 3, 4),
    }  # fmt: skip
    equal_in_onnx_runtime(model, PadWidths(8), size)


@pytest.mark.parametrize(
    ("attributes", "bias"), [({"group": 3}, 4), ({}, 3), ({"kernel_shape": [3, 3]}, 4), ({"group": 0}, 4)]
)
def test_weights_that_contradict_each_other_are_still_left_alone(attributes: dict[str, Any], bias: int) -> None:
    constants = {"w": random(4, 4, 2, 2), "b": random(bias), **statistics(4)}
    model = build([node("Conv", "x w b", "c", **attributes), norm("c", "y")], (1, 4, 8, 8), constants)
    assert refused(model, FOLD) == "its weights and attributes do not fit together"

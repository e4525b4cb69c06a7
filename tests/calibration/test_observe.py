"""Inner tensors, as ONNX Runtime computes them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mggc_edge.calibration import observe as module
from mggc_edge.calibration.observe import observe
from mggc_edge.errors import ArtifactError
from mggc_edge.tensors import Array, FloatArray
from tests.compiler.passes.pass_helpers import build

PICTURES = [np.full((1, 3, 4, 4), value, np.float32) for value in (-1.0, 0.5, 2.0)]


def chain() -> onnx.ModelProto:
    """x -> a = 2 x -> b = relu(a) -> y = -b."""
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Neg", ["b"], ["y"]),
    ]
    return build(nodes, (1, 3, 4, 4), {"two": np.full(1, 2, np.float32)}, kind=TensorProto.FLOAT)


def stream() -> Iterator[FloatArray]:
    return iter(PICTURES)


def seen(names: list[str], **more: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}

    def see(name: str, values: Array) -> None:
        assert values.shape == (1, 3, 4, 4)
        found.setdefault(name, []).append(float(values.max()))

    assert observe(chain(), names, stream, see, **more) == 3
    return found


def test_every_tensor_of_every_picture_is_shown_in_order_the_input_and_the_output_too() -> None:
    assert seen(["b", "x", "y", "a"]) == {"b": [0, 1, 4], "x": [-1, 0.5, 2], "y": [0, -1, -4], "a": [-2, 1, 4]}


def test_tensors_that_do_not_fit_together_are_observed_in_several_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    original = module._with_outputs

    def noted(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
        given.append(names)
        return original(model, names)

    monkeypatch.setattr(module, "_with_outputs", noted)
    of_one = 3 * 4 * 4 * 4
    assert seen(["a", "b", "y"], max_bytes=2 * of_one) == {"a": [-2, 1, 4], "b": [0, 1, 4], "y": [0, -1, -4]}
    assert given == [["a", "b"], ["y"]]
    given.clear()
    seen(["a", "b"], max_bytes=1)
    assert given == [["a"], ["b"]]


def test_a_tensor_that_is_not_there_is_named() -> None:
    with pytest.raises(ArtifactError, match="the graph has no tensor 'z'") as caught:
        observe(chain(), ["z"], stream, lambda *_: None)
    assert caught.value.hint == "were the ranges found on another graph?"


def test_a_graph_of_two_inputs_cannot_be_observed() -> None:
    model = chain()
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    with pytest.raises(ArtifactError, match="a graph with 2 inputs cannot be observed on pictures"):
        observe(model, ["a"], stream, lambda *_: None)

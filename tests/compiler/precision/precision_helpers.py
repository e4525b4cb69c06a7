"""What the tests of precisions share: small graphs, calibration pictures, and what ONNX Runtime runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from mggc_edge.calibration.ranges import ActivationRanges, Finding, find_ranges
from mggc_edge.calibration.samples import Samples
from mggc_edge.compiler.finishing import random_pictures
from mggc_edge.compiler.precision.form import Int8Form
from mggc_edge.compiler.precision.int8 import Layer, find_layers, named, quantized, tensors_to_observe
from mggc_edge.tensors import FloatArray
from tests.compiler.passes.pass_helpers import Values, build, random

SIZE = (3, 16, 16)


def samples(
    shape: tuple[int, int, int] = SIZE, observed: int = 4, held_out: int = 2, sha256: str = "0" * 64
) -> Samples:
    """Noise at several scales, other pictures to observe than to hold out."""

    def stream(count: int, seed: int) -> Iterator[FloatArray]:
        return random_pictures(count, (1,), shape, seed)

    return Samples(lambda: stream(observed, 1), lambda: stream(held_out, 2), observed, held_out, sha256, "folder")


def network(nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Values], *, opset: int = 18) -> onnx.ModelProto:
    """A float32 graph from x [1, 3, 16, 16] to y, whose nodes have names."""
    floats = {
        name: np.asarray(value, np.float32) if np.asarray(value).dtype == np.float64 else value
        for name, value in constants.items()
    }
    return named(build(nodes, (1, *SIZE), floats, kind=TensorProto.FLOAT, opset=opset))


def three_convolutions(between: str = "Relu", *, pad: bool = False, opset: int = 18) -> onnx.ModelProto:
    """conv -> `between` -> conv -> instance norm -> conv, the last one to the picture; with biases."""
    second = [helper.make_node("Conv", ["a1", "w2", "b2"], ["c2"], name="second", pads=[1] * 4)]
    if pad:
        second = [
            helper.make_node("Pad", ["a1", "pads"], ["p1"], name="pad", mode="reflect"),
            helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], name="second"),
        ]
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="first", pads=[1] * 4),
        helper.make_node(between, ["c1"], ["a1"], name="between"),
        *second,
        helper.make_node("InstanceNormalization", ["c2", "one", "zero"], ["n2"], name="norm"),
        helper.make_node("Conv", ["n2", "w3", "b3"], ["c3"], name="last", pads=[1] * 4),
        helper.make_node("Tanh", ["c3"], ["y"], name="tanh"),
    ]
    constants: dict[str, Values] = {
        "w1": random(8, 3, 3, 3) / 4, "w2": random(8, 8, 3, 3) / 8, "w3": random(3, 8, 3, 3) / 8,
        "b1": random(8) / 4, "b2": random(8) / 4, "b3": random(3) / 8, "one": np.ones(8), "zero": np.zeros(8),
    }  # fmt: skip
    if pad:
        constants["pads"] = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    return network(nodes, constants, opset=opset)


def quantize(
    model: onnx.ModelProto, form: Int8Form | None = None, *, last_in_float: bool = True
) -> tuple[onnx.ModelProto, tuple[Layer, ...], ActivationRanges]:
    """Observe, and quantize all that can be."""
    form = form or Int8Form()
    layers = find_layers(model, last_in_float=last_in_float)
    ranges = find_ranges(model, tensors_to_observe(model, layers, form), samples(), Finding("min-max"))
    return *quantized(model, ranges, form, layers), ranges


def operators_in_onnxruntime(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """The operators that ONNX Runtime runs, after all of its own rewrites."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimized = onnx.load_model_from_string((folder / "optimized.onnx").read_bytes())
    return Counter(node.op_type for node in optimized.graph.node)


def run(model: onnx.ModelProto, picture: FloatArray) -> FloatArray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    output: FloatArray = session.run(None, {session.get_inputs()[0].name: picture})[0]
    return output


def pictures(count: int = 2, seed: int = 2) -> list[FloatArray]:
    return list(random_pictures(count, (1,), SIZE, seed))

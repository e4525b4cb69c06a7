"""What the tests of graph passes share: small graphs in double precision, and the proof that a rewrite is exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from mggc_edge.compiler.passes.contract import GraphPass, PassReport, apply_passes

Values = NDArray[Any]
Shape = Sequence[int | str | None]
DOUBLE = 1e-11


def random(*shape: int, seed: int = 0) -> Values:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def build(
    nodes: Sequence[onnx.NodeProto],
    shape: Shape,
    constants: Mapping[str, Values] | None = None,
    *,
    opset: int = 18,
    kind: int = TensorProto.DOUBLE,
    outputs: Sequence[str] = ("y",),
) -> onnx.ModelProto:
    """A graph from `x` [N, C, H, W] to `y`, whose constants are double where they are floats."""
    graph = helper.make_graph(
        list(nodes),
        "elsewhere",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, kind, [None] * 4) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


class ConvTranspose(OpRun):
    """By torch: the reference evaluator's own knows no groups. It gives all values, of which ONNX takes a window."""

    def _run(self, x: Values, w: Values, b: Values | None = None, **attributes: Any) -> tuple[Values]:
        strides, pads = attributes.get("strides") or [1, 1], attributes.get("pads") or [0] * 4
        more = attributes.get("output_padding") or [0, 0]
        assert attributes.get("auto_pad", "NOTSET") == "NOTSET"
        assert not attributes.get("output_shape")
        everything = torch.nn.functional.conv_transpose2d(
            torch.tensor(x), torch.tensor(w), stride=strides, groups=attributes.get("group") or 1
        ).numpy()
        beyond = np.pad(everything, [(0, 0), (0, 0), (0, more[0]), (0, more[1])])
        height, width = beyond.shape[2:]
        window = beyond[:, :, pads[0] : height - pads[2], pads[1] : width - pads[3]]
        return (window if b is None else window + b[:, None, None],)


def run(model: onnx.ModelProto, feed: Values) -> Values:
    evaluator: Any = ReferenceEvaluator(model, new_ops=[ConvTranspose])
    result = evaluator.run(None, {"x": feed})[0]
    assert isinstance(result, np.ndarray)
    return result


def applied(model: onnx.ModelProto, graph_pass: GraphPass, size: Sequence[int]) -> onnx.ModelProto:
    """Rewrite a model, hold the outputs of both against each other, and find nothing to do the second time."""
    before = model.SerializeToString()
    rewritten, (report,) = apply_passes(model, [graph_pass])
    assert report.applied >= 1, report.reasons
    assert model.SerializeToString() == before, "the input survives"
    onnx.checker.check_model(rewritten, full_check=True)
    assert [value.name for value in rewritten.graph.output] == [value.name for value in model.graph.output]
    again, (second,) = apply_passes(rewritten, [graph_pass])
    assert (second.applied, again is rewritten) == (0, True)
    feed = random(*size, seed=9)
    expected, found = run(model, feed), run(rewritten, feed)
    assert found.shape == expected.shape
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=DOUBLE * max(1.0, float(np.abs(expected).max())))
    return rewritten


def refused(model: onnx.ModelProto, graph_pass: GraphPass) -> str:
    """The reason at the only site; the model is the one that was given."""
    same, (report,) = apply_passes(model, [graph_pass])
    assert same is model
    assert report.applied == 0
    (reason,) = report.reasons
    assert report.reasons == {reason: 1}
    return reason


def report_of(model: onnx.ModelProto, graph_pass: GraphPass) -> PassReport:
    _, (report,) = apply_passes(model, [graph_pass])
    return report


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def weights(model: onnx.ModelProto) -> dict[str, Values]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def attributes(model: onnx.ModelProto, operator: str) -> dict[str, Any]:
    (node,) = (node for node in model.graph.node if node.op_type == operator)
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}

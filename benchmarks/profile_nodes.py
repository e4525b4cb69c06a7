"""What an engine says of the time of its nodes, read from the file that it wrote.

ONNX Runtime writes one event a node and run, so a node's time is the median of the runs after the warm-up. OpenVINO
keeps means over all runs since a model was opened, so the runs come in parts: a part's mean follows from the means at
its end and before, and the median of the parts is taken. Both count whole microseconds.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from mggc_edge.errors import ArtifactError, InputError

# Class -> what the engines call its operators.
CLASSES: dict[str, tuple[str, ...]] = {
    "convolution": (
        "Conv", "FusedConv", "NhwcConv", "NhwcFusedConv", "QLinearConv", "ConvInteger", "Convolution",
        "GroupConvolution",
    ),
    "transposed convolution": (
        "ConvTranspose", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "Deconvolution",
    ),
    "norm": (
        "InstanceNormalization", "BatchNormalization", "BatchNormInference", "LayerNormalization", "GroupNorm",
        "GroupNormalization", "MeanVarianceNormalization", "MVN", "LpNormalization", "NormalizeL2",
    ),
    "activation": (
        "Relu", "LeakyRelu", "PRelu", "Tanh", "Sigmoid", "Clip", "Clamp", "Elu", "Selu", "Gelu", "HardSigmoid",
        "HardSwish", "Swish", "SiLU", "Softplus", "SoftPlus", "Softmax", "QLinearSigmoid", "QLinearLeakyRelu",
    ),
    "pad": ("Pad",),
    "layout": (
        "ReorderInput", "ReorderOutput", "Reorder", "Transpose", "DepthToSpace", "SpaceToDepth", "Reshape", "Squeeze",
        "Unsqueeze", "Flatten",
    ),
    "quantize": (
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "FakeQuantize", "Quantize", "Cast", "Convert",
    ),
    "elementwise": (
        "Add", "Subtract", "Sub", "Mul", "Multiply", "Div", "Divide", "Sum", "Pow", "Power", "Sqrt", "Abs", "Neg",
        "Round", "Min", "Max", "Minimum", "Maximum", "QLinearAdd", "QLinearMul", "Eltwise", "Subgraph",
    ),
    "other": (),
}  # fmt: skip
CLASS_OF = {op: name for name, ops in CLASSES.items() for op in ops}
KERNEL = "_kernel_time"
BLOCKED = "_nchwc"  # what ONNX Runtime adds to the name of a node in its blocked layout
NO_BIAS = "/WithoutBiases"  # what OpenVINO adds to the name of a convolution without the addition that follows it
AROUND = ("If", "Loop", "Scan")  # whose time is that of the nodes inside, which are counted themselves


@dataclass(frozen=True)
class NodeTime:
    """A node as the engine runs it.

    Attributes:
        name, op: the engine's own.
        ms: its time in a run.
        size_bytes: of what it reads and writes, weights included where the engine has not packed them.
        layers: names by which the file may know it, its own among them.
    """

    name: str
    op: str
    ms: float
    size_bytes: int
    layers: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.ms < float("inf") or self.size_bytes < 0:
            raise InputError(f"the node '{self.name}' cannot take {self.ms} ms for {self.size_bytes} bytes")

    @property
    def kind(self) -> str:
        """Its class, a key of `CLASSES`."""
        return CLASS_OF.get(self.op, "other")


def read_nodes(data: bytes, runs: int) -> tuple[NodeTime, ...]:
    """Read what an engine wrote into its file.

    Args:
        data: the file's bytes.
        runs: the last so many runs in it count.

    Raises:
        ArtifactError: it has no times.
    """
    try:
        found: Any = json.loads(data)
        nodes = onnxruntime_nodes(found, runs) if isinstance(found, list) else openvino_nodes(found)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ArtifactError(f"the engine's profile cannot be read: {error}") from error
    if not sum(node.ms for node in nodes):
        raise ArtifactError("the engine gave no times of its nodes")
    return nodes


def onnxruntime_nodes(events: Sequence[Mapping[str, Any]], runs: int) -> tuple[NodeTime, ...]:
    """Return the nodes of ONNX Runtime's events: per node the median of the last `runs` runs."""
    facts: dict[str, tuple[str, int]] = {}
    done: list[dict[str, float]] = []
    times: dict[str, float] = defaultdict(float)
    for event in events:
        name, kind = str(event.get("name")), event.get("cat")
        if kind == "Node" and name.endswith(KERNEL) and event["args"]["op_name"] not in AROUND:
            name, args = name.removesuffix(KERNEL), event["args"]
            sizes = (int(args.get(key, 0)) for key in ("activation_size", "parameter_size", "output_size"))
            facts[name] = (str(args["op_name"]), sum(sizes))
            times[name] += float(event["dur"])
        elif (kind, name) == ("Session", "model_run"):  # written after its nodes
            done.append(times)
            times = defaultdict(float)
    kept = done[-runs:]
    return tuple(
        NodeTime(name, op, median(run.get(name, 0.0) for run in kept) / 1e3, size, (name, name.removesuffix(BLOCKED)))
        for name, (op, size) in facts.items()
        if kept
    )


def openvino_nodes(found: Mapping[str, Any]) -> tuple[NodeTime, ...]:
    """Return the nodes of what OpenVINO counted after the warm-up and each part: per node the median of the parts.

    With the mean a of n runs and, a part before, b of m: (a n - b m) / (n - m).
    """
    noted = found["noted"]
    means = [(int(moment["runs"]), {one["name"]: float(one["us"]) for one in moment["nodes"]}) for moment in noted]
    nodes = []
    for entry in noted[-1]["nodes"]:
        name = str(entry["name"])
        parts = [
            (later.get(name, 0.0) * n - sooner.get(name, 0.0) * m) / (n - m)
            for (m, sooner), (n, later) in pairwise(means)
        ]
        own = [name, *map(str, entry["layers"])]
        layers = tuple(dict.fromkeys([*own, *(layer.removesuffix(NO_BIAS) for layer in own)]))
        nodes.append(NodeTime(name, str(entry["op"]), max(0.0, median(parts)) / 1e3, int(entry["bytes"]), layers))
    return tuple(nodes)

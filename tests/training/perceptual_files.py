"""Files of VGG16 and SqueezeNet-1.1 with random weights, in torchvision's layout and as ONNX graphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from mggc_edge.training.perceptual import LAYOUTS, Layout

VGG16, SQUEEZENET = LAYOUTS


def state_of(layout: Layout, seed: int = 0) -> dict[str, Tensor]:
    """A state dict up to the last tap, and what torchvision has behind it."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for row in layout.convolutions:
        fan_in = row.shape[1] * row.shape[2] * row.shape[3]
        state[f"{row.name}.weight"] = torch.randn(row.shape, generator=generator) * (2 / fan_in) ** 0.5
        state[f"{row.name}.bias"] = torch.randn(row.shape[0], generator=generator) * 0.1
    if layout is SQUEEZENET:
        state |= {"classifier.1.weight": torch.zeros(4, 512, 1, 1), "classifier.1.bias": torch.zeros(4)}
    else:
        state |= {"features.24.weight": torch.zeros(512, 512, 1, 1), "features.24.bias": torch.zeros(512)}
    return state


def write_onnx(
    path: Path,
    state: dict[str, Tensor],
    layout: Layout,
    *,
    swapped: bool = False,
    constants: bool = False,
    same: bool = False,
    concat: Sequence[int] = (0, 1),
    then: str = "Relu",
    stride: int = 1,
) -> Path:
    """An ONNX graph of the same network up to its last tap, half precision, under other names; only pools are left out.

    Args:
        swapped: 3x3 before 1x1. constants: weights in Constant nodes. same: paddings by auto_pad.
        concat: in which order the 1x1 and the 3x3 of a fire module are joined.
        then: what follows the convolutions. stride: of the third of them.
    """
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []
    x = "x"

    def conv(name: str, source: str) -> str:
        """Write a convolution and what follows it, and return what that gives."""
        row = next(row for row in layout.convolutions if row.name == name)
        number = len(tensors)
        halved = {kind: state[f"{name}.{kind}"].half().numpy() for kind in ("weight", "bias")}
        tensors.extend(numpy_helper.from_array(values, f"{kind}_{number}") for kind, values in halved.items())
        by_name = same and row.geometry[0] == 1
        padding = {"auto_pad": "SAME_UPPER"} if by_name else {"pads": [row.geometry[1]] * 4}
        strides = [stride if row is layout.convolutions[2] else row.geometry[0]] * 2
        inputs = [source, f"weight_{number}", f"bias_{number}"]
        nodes.append(helper.make_node("Conv", inputs, [f"c_{number}"], strides=strides, **padding))
        more = [f"bias_{number}"] * 4 if then == "BatchNormalization" else []
        nodes.append(helper.make_node(then, [f"c_{number}", *more], [f"r_{number}"]))
        return f"r_{number}"

    for row in layout.convolutions:
        fire, _, part = row.name.rpartition(".")
        if part not in ("squeeze", "expand1x1", "expand3x3"):
            x = conv(row.name, x)
        elif part == "squeeze":
            h = conv(row.name, x)
            parts = ["expand3x3", "expand1x1"] if swapped else ["expand1x1", "expand3x3"]
            given = {name: conv(f"{fire}.{name}", h) for name in parts}
            both = given["expand1x1"], given["expand3x3"]
            x = f"{fire}_joined"
            nodes.append(helper.make_node("Concat", [both[place] for place in concat], [x], axis=1))
    if constants:
        nodes = [*(helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in tensors), *nodes]
    side = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, 3, 8, 8])
    given_value = helper.make_tensor_value_info(x, TensorProto.FLOAT16, ["n", "c", "h", "w"])
    kept = [] if constants else sorted(tensors, key=lambda tensor: tensor.name)
    graph = helper.make_graph(nodes, "features", [side], [given_value], kept)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path

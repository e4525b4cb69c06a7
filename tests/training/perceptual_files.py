"""Files of VGG16 and SqueezeNet-1.1 with random weights, in torchvision's layout and as ONNX graphs."""

from __future__ import annotations

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


def write_onnx(path: Path, state: dict[str, Tensor], layout: Layout, *, swapped: bool = False) -> Path:
    """An ONNX graph with the same convolutions, half precision, under other names; `swapped`: 3x3 before 1x1."""
    rows = [row.name for row in layout.convolutions]
    if swapped:
        for place in [place for place, name in enumerate(rows) if name.endswith("expand1x1")]:
            rows[place : place + 2] = rows[place : place + 2][::-1]
    nodes, tensors = [], []
    for number, name in enumerate(rows):
        for kind in ("weight", "bias"):
            values = state[f"{name}.{kind}"].half().numpy()
            tensors.append(numpy_helper.from_array(values, f"{kind}_{number}"))
        nodes.append(helper.make_node("Conv", ["x", f"weight_{number}", f"bias_{number}"], [f"y_{number}"]))
    side = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, 3, 8, 8])
    given = helper.make_tensor_value_info("y_0", TensorProto.FLOAT16, ["n", "c", "h", "w"])
    graph = helper.make_graph(nodes, "features", [side], [given], sorted(tensors, key=lambda tensor: tensor.name))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path

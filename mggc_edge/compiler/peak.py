"""Models that do little but multiply: what a machine reaches on them is the peak that others are held against.

Convolutions of many channels, one after the other, in two shapes, since engines run them by different code: 1x1 with
512 channels, and 3x3 with 128 channels, at 16x16. A run lasts
a millisecond or two, so that some are not disturbed. For int8 each of them stands between Q/DQ.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mggc_edge.compiler.facts import count_macs
from mggc_edge.errors import InputError
from mggc_edge.lazy import require

if TYPE_CHECKING:
    import onnx

SHAPES = ((512, 1, 16), (128, 3, 16))  # channels, kernel, picture
LAYERS = 2
PRECISIONS = ("fp32", "int8")
_LEVEL, _ZERO = 4.0 / 255, 128  # of activations; weights are multiples of 1/127
_OPSET, _IR = 17, 8  # which old engines read too


def write_peak_models(folder: Path, precision: str = "fp32") -> list[tuple[Path, int]]:
    """Write the models into a folder and return each with its MACs.

    Args:
        folder: one that is there.
        precision: "fp32" or "int8".

    Raises:
        InputError: another precision.
        MissingDependencyError: onnx is not installed here.
    """
    if precision not in PRECISIONS:
        raise InputError(f"there is no model of the peak in {precision}", hint=", ".join(PRECISIONS))
    onnx_module = require("onnx", extra="onnx")
    written = []
    for channels, kernel, side in SHAPES:
        model = peak_model(channels, kernel, side, quantized=precision == "int8")
        path = folder / f"peak-{precision}-{kernel}x{kernel}.onnx"
        onnx_module.save_model(model, path)
        macs = count_macs(model)[0]
        assert macs is not None
        written.append((path, macs))
    return written


def peak_model(channels: int, kernel: int, side: int, *, quantized: bool = False) -> onnx.ModelProto:
    """Return convolutions of `channels` channels in a row, over pictures of `side` x `side`."""
    helper = require("onnx.helper", extra="onnx")
    arrays = require("onnx.numpy_helper", extra="onnx")
    float32 = require("onnx", extra="onnx").TensorProto.FLOAT
    random = np.random.default_rng(0)
    pads = [kernel // 2] * 4
    nodes: list[Any] = []
    stored: list[Any] = []

    def store(name: str, values: Any) -> str:
        stored.append(arrays.from_array(np.asarray(values), name))
        return name

    def add(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    grid = [store("level", np.float32(_LEVEL)), store("zero", np.uint8(_ZERO))] if quantized else []

    def rounded(name: str) -> str:
        if not quantized:
            return name
        return add("DequantizeLinear", [add("QuantizeLinear", [name, *grid], f"{name}_q"), *grid], f"{name}_dq")

    tensor = rounded("x")
    for number in range(LAYERS):
        # Weights whose sum of squares is 1 keep the size of what goes through.
        weight = random.standard_normal((channels, channels, kernel, kernel), np.float32)
        weight /= np.float32(channels**0.5 * kernel)
        name = f"w{number}"
        if quantized:
            scale = float(np.abs(weight).max()) / 127
            levels = store(f"{name}_q", np.round(weight / scale).astype(np.int8))
            of = [store(f"{name}_level", np.float32(scale)), store(f"{name}_zero", np.int8(0))]
            name = add("DequantizeLinear", [levels, *of], f"{name}_dq")
        else:
            store(name, weight)
        tensor = rounded(add("Conv", [tensor, name], f"y{number}", pads=pads))
    shape = [1, channels, side, side]
    graph = helper.make_graph(
        nodes,
        "peak",
        [helper.make_tensor_value_info("x", float32, shape)],
        [helper.make_tensor_value_info(tensor, float32, shape)],
        stored,
    )
    made: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR, producer_name="mggc-edge"
    )
    return made

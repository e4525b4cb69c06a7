"""Proof that a graph has the grids of its network: the same levels, layer by layer, on the same input.

A deep network of 8-bit layers does not repeat itself: a sum that is rounded otherwise in its last bit puts one value
of a million on the next level, that one moves a thousand others, and after a few layers two engines round
independently of each other. So each layer is looked at alone: what it reads is cut off from the graph, and the levels
that torch found are fed in its place. The output, which follows from the last ones, is then torch's.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.errors import CheckFailedError
from mggc_edge.lazy import require
from mggc_edge.tensors import Array

if TYPE_CHECKING:
    import onnx

LEAST_EQUAL = 0.999  # of a layer's values
MOST_LEVELS = 1  # that any of them is off by
MAX_OUTPUT = 1e-3  # that the output may differ by, of the range from -1 to 1


@dataclass(frozen=True)
class GridParity:
    """How the levels of a graph compare with a network's, each layer on the same input.

    Attributes:
        values: how many were compared, in all layers and pictures.
        equal: fraction that is the same in the layer where it is lowest, which is `worst`; a layer in which too few are
            comes before one that is excused.
        levels: most that one is off by, in any layer.
        output: largest difference of the output; not a number where the output of either is none.
        different: how many values of `worst` are not the same.
    """

    values: int
    equal: float
    levels: int
    worst: str
    output: float
    different: int

    def check(self, what: str) -> None:
        """Raise CheckFailedError unless nearly all levels are equal, none is off by more than one, nor the output."""
        if not self.output <= MAX_OUTPUT:
            raise CheckFailedError(f"{what}: on the same levels, outputs differ by up to {self.output:.3g}")
        if not (_enough(self.equal, self.different) and self.levels <= MOST_LEVELS):
            raise CheckFailedError(
                f"{what}: in layer {self.worst} {self.equal:.4%} of the quantized values are the same, and the largest "
                f"difference of any is {self.levels} levels; wanted were {LEAST_EQUAL:.1%} and {MOST_LEVELS}"
            )


def check_grids(
    model: onnx.ModelProto, input_name: str, pictures: Iterable[tuple[Array, Mapping[str, Array], Array]]
) -> GridParity:
    """Compare the levels that a graph finds with those of its network.

    Args:
        model: with Q/DQ pairs as `insert_qdq` names them.
        input_name: of its picture.
        pictures: each [1, C, H, W], with the network's levels by the names of its rows, uint8, and its output.

    Raises:
        ArtifactError: the graph cannot be run.
        ValueError: there is no picture.
    """
    levels, same, total, differences = 0, dict[str, int](), dict[str, int](), list[float]()
    name_of_output = model.graph.output[0].name
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        runner: OnnxRuntimeRunner | None = None
        for picture, wanted, output in pictures:
            if runner is None:
                path = Path(folder, "cut.onnx")
                path.write_bytes(cut(model, {name: level.shape for name, level in wanted.items()}).SerializeToString())
                runner = OnnxRuntimeRunner(path)
                stack.enter_context(runner)
            found = runner.infer({input_name: picture, **{forced(name): level for name, level in wanted.items()}})
            differences.append(float(np.abs(found[name_of_output] - output).max()))
            for name, level in wanted.items():
                difference = np.abs(found[f"{name}.input_quantized"].astype(np.int16) - level.astype(np.int16))
                levels = max(levels, int(difference.max()))
                same[name] = same.get(name, 0) + int((difference == 0).sum())
                total[name] = total.get(name, 0) + difference.size
    if not total:
        raise ValueError("no picture was compared")
    shares = {name: (same[name] / total[name], total[name] - same[name]) for name in total}
    worst = min(shares, key=lambda name: (_enough(*shares[name]), shares[name][0]))
    equal, different = shares[worst]
    furthest = float(np.max(differences))  # of which any may be no number
    return GridParity(sum(total.values()), equal, levels, worst, furthest, different)


def _enough(equal: float, different: int) -> bool:
    """Whether the levels of a layer are the network's: all but a thousandth, or all but one where it has few values."""
    return equal >= LEAST_EQUAL or different <= 1


def forced(name: str) -> str:
    """Return the name of the input that stands for what the row `name` reads."""
    return f"{name}.input_forced"


def cut(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """Return a copy of a graph in which every row reads an input of its own, and what it would read is an output."""
    onnx_module = require("onnx", extra="onnx")
    helper = require("onnx.helper", extra="onnx")
    copy: onnx.ModelProto = onnx_module.ModelProto()
    copy.CopyFrom(model)
    for name, shape in shapes.items():
        quantized = f"{name}.input_quantized"
        for node in copy.graph.node:
            for place, source in enumerate(node.input):
                if source == quantized:
                    node.input[place] = forced(name)
        kind = onnx_module.TensorProto.UINT8
        copy.graph.input.append(helper.make_tensor_value_info(forced(name), kind, shape))
        copy.graph.output.append(helper.make_tensor_value_info(quantized, kind, shape))
    return copy

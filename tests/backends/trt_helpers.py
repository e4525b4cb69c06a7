"""What the tests of TensorRT share: the fake of a version with ONNX Runtime behind it, in the place of the real one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mggc_edge.backends import trt_run
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.tensors import Array
from tests.backends import fake_cuda, fake_tensorrt

VERSIONS = ("8.6.1", "10.3.0", "10.16.1.11", "11.4.0.106")
KINDS = {"float32": "FLOAT", "float16": "HALF", "uint8": "UINT8"}


class OnnxRuntimeExecutor:
    """Runs a file with ONNX Runtime, plus an error that a test chooses.

    `moved_to`: where the file is by now, if a folder was renamed since the engine was built.
    """

    def __init__(self, error: float = 0.0) -> None:
        self.error = error
        self.moved_to: Path | None = None

    def _open(self, path: str) -> OnnxRuntimeRunner:
        return OnnxRuntimeRunner(Path(path) if self.moved_to is None else self.moved_to / Path(path).name)

    def describe(self, path: str) -> Any:
        with self._open(path) as runner:
            sides = [
                [
                    (tensor.name, KINDS[tensor.dtype], tuple(-1 if size is None else size for size in tensor.shape))
                    for tensor in side
                ]
                for side in (runner.inputs, runner.outputs)
            ]
        kinds = {"Conv": "CONVOLUTION", "InstanceNormalization": "NORMALIZATION"}
        nodes = onnx.load(path).graph.node if self.moved_to is None else ()
        return (*sides, [kinds[node.op_type] for node in nodes if node.op_type in kinds])

    def run(self, path: str, feeds: dict[str, Array]) -> dict[str, Array]:
        with self._open(path) as runner:
            outputs = runner.infer(feeds)
        if not self.error:
            return outputs
        noise = np.random.default_rng(0)
        return {name: array + self.error * noise.standard_normal(array.shape) for name, array in outputs.items()}


def install(monkeypatch: pytest.MonkeyPatch, version: str, error: float = 0.0) -> Any:
    """Put a fake TensorRT, and a fake cuda-python, in the place of the real ones; return the fake."""
    fake = fake_tensorrt.make(version, OnnxRuntimeExecutor(error))
    cudart = fake_cuda.make_cudart()
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    for name, module in fake_cuda.modules_of(cudart).items():
        monkeypatch.setitem(sys.modules, name, module)
    fake.world.stream, fake.cudart = cudart.stream, cudart
    return fake


def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no library give access to a device."""
    for name in ("cuda", "cuda.bindings", "pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(trt_run, "PROVIDERS", trt_run.PROVIDERS[:2])


def small_file(path: Path, batch: int | str = 1) -> Path:
    """Write a file with a convolution and an instance norm, from [batch, 3, 8, 8] to the same."""
    weight = np.random.default_rng(0).standard_normal((3, 3, 3, 3)).astype(np.float32) / 5
    tensors: dict[str, Array] = {"w": weight, "scale": np.ones(3, np.float32), "bias": np.zeros(3, np.float32)}
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("InstanceNormalization", ["c", "scale", "bias"], ["output"], epsilon=1e-5),
    ]
    shape = [batch, 3, 8, 8]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", "output")]
    stored = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def picture(seed: int = 0, batch: int = 1) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, (batch, 3, 8, 8)).astype(np.float32)

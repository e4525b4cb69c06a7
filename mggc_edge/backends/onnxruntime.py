"""ONNX Runtime: .onnx files and its own .ort files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mggc_edge.backends.base import BaseRunner
from mggc_edge.errors import ArtifactError, MggcEdgeError
from mggc_edge.lazy import require
from mggc_edge.tensors import Array, Feeds, TensorSpec

if TYPE_CHECKING:
    import onnxruntime

_DTYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(uint8)": "uint8",
    "tensor(int8)": "int8", "tensor(int32)": "int32", "tensor(int64)": "int64", "tensor(bool)": "bool",
}  # fmt: skip


class OnnxRuntimeRunner(BaseRunner):
    """Runs a file with ONNX Runtime's CPU execution provider.

    Args:
        path: an .onnx or .ort file.
        threads: threads inside an operator; 0 lets ONNX Runtime choose.
    """

    engine = "onnxruntime"

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        super().__init__(path.name)
        self._path = path
        self._threads = threads
        self._session: onnxruntime.InferenceSession | None = None

    def _open(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        ort = require("onnxruntime", extra="ort")
        options = ort.SessionOptions()
        options.log_severity_level = 4  # what matters comes back as an exception
        options.intra_op_num_threads = self._threads
        try:
            self._session = ort.InferenceSession(
                str(self._path), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
            inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
            specs = tuple(map(_spec, inputs)), tuple(map(_spec, outputs))
        except MggcEdgeError:
            raise
        except Exception as error:  # ONNX Runtime raises many kinds, and its texts may be no UTF-8
            raise ArtifactError(f"ONNX Runtime cannot run '{self._path}': {_reason(error)}") from error
        return specs

    def _infer(self, feeds: Feeds) -> dict[str, Array]:
        assert self._session is not None
        names = [tensor.name for tensor in self.outputs]
        try:
            values = self._session.run(names, dict(feeds))
        except Exception as error:  # as above; the feeds fit, so the file is at fault
            raise ArtifactError(f"ONNX Runtime failed while running '{self._path}': {_reason(error)}") from error
        return dict(zip(names, values, strict=True))

    def _close(self) -> None:
        self._session = None


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _spec(tensor: Any) -> TensorSpec:
    if tensor.type not in _DTYPES:
        raise ArtifactError(f"'{tensor.name}' has the type {tensor.type}, which mggc-edge cannot feed")
    shape = tuple(size if isinstance(size, int) else None for size in tensor.shape)
    return TensorSpec(tensor.name, _DTYPES[tensor.type], shape)

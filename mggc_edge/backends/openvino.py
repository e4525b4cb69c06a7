"""OpenVINO: .onnx files on the processor, in float32, in bfloat16 where it has that, and 8-bit Q/DQ files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mggc_edge.backends.base import BaseRunner
from mggc_edge.errors import ArtifactError, InputError, MggcEdgeError
from mggc_edge.lazy import require
from mggc_edge.machine import BF16_SETS, Machine, this_machine
from mggc_edge.tensors import Array, Feeds, TensorSpec

if TYPE_CHECKING:
    import openvino

# Precision that a float32 file is run in -> OpenVINO's name. Left to itself, OpenVINO takes bfloat16 wherever the
# processor has it; so it is always told.
OPENVINO = "openvino"
EXECUTION = {"fp32": "f32", "bf16": "bf16"}
_DTYPES = {
    "f32": "float32", "f16": "float16", "f64": "float64", "u8": "uint8", "i8": "int8", "i32": "int32", "i64": "int64",
    "boolean": "bool",
}  # fmt: skip
# Lines of OpenVINO's errors that say where in its own code they arose, or that more follows.
_FRAMES = ("Exception from ", "Check '", "FrontEnd API failed", "Model wasn't fully converted", "Summary:", "-- ")
_UNKNOWN = "-- No conversion rule found for operations: "


def properties(threads: int, precision: str) -> dict[str, Any]:
    """Return OpenVINO's properties for one picture at a time.

    Threads are not tied to cores, as those of ONNX Runtime are not when their number is given: others may run beside
    them. (While they are measured they are, see `benchmarks/agent/cores.py`.)
    """
    chosen = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": EXECUTION[precision],
    }
    return {**chosen, "INFERENCE_NUM_THREADS": threads} if threads else chosen


def openvino_version() -> str:
    """Return the version of OpenVINO, without build and branch; MissingDependencyError where it is not installed."""
    return str(require("openvino", extra="openvino").__version__).split("-")[0]


class OpenVinoRunner(BaseRunner):
    """Runs an .onnx file with OpenVINO's CPU plugin.

    Args:
        path: an .onnx file, which has a precision of its own.
        threads: threads inside an operator; 0 lets OpenVINO choose.
        precision: what floats are computed in: "fp32", or "bf16" where the processor has it.

    Raises:
        InputError: there is no such precision, or this processor has no bfloat16.
    """

    engine = OPENVINO

    def __init__(self, path: Path, *, threads: int = 0, precision: str = "fp32") -> None:
        super().__init__(path.name)
        if precision not in EXECUTION:
            raise InputError(f"OpenVINO runs files in {' or '.join(EXECUTION)}, not in '{precision}'")
        if precision == "bf16":
            check_bf16(this_machine())
        self._path = path
        self._threads, self._precision = threads, precision
        self._request: openvino.InferRequest | None = None

    def _open(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        ov = require("openvino", extra="openvino")
        try:
            # Not `Core.read_model`, which tries the readers of other formats on what it cannot read.
            reader = require("openvino.frontend", extra="openvino").FrontEndManager().load_by_framework("onnx")
            model = reader.convert(reader.load(str(self._path)))
            compiled = ov.Core().compile_model(model, "CPU", properties(self._threads, self._precision))
            if not compiled.outputs:  # an empty file is a network of nothing
                raise ArtifactError(f"OpenVINO cannot run '{self._path}': it holds no network")
            self._request = compiled.create_infer_request()
            self.metadata = _metadata(model)
            return tuple(map(_spec, compiled.inputs)), tuple(map(_spec, compiled.outputs))
        except MggcEdgeError:
            raise
        except Exception as error:  # OpenVINO raises many kinds
            raise ArtifactError(f"OpenVINO cannot run '{self._path}': {reason(error)}") from error

    def _infer(self, feeds: Feeds) -> dict[str, Array]:
        assert self._request is not None
        try:
            values = self._request.infer(dict(feeds), share_inputs=True, share_outputs=False)
            return {tensor.name: values[tensor.name] for tensor in self.outputs}
        except Exception as error:  # as above; the feeds fit, so the file is at fault
            raise ArtifactError(f"OpenVINO failed while running '{self._path}': {reason(error)}") from error

    def _close(self) -> None:
        self._request = None


def check_bf16(machine: Machine) -> None:
    """Raise InputError where a processor has no instructions for bfloat16: OpenVINO would imitate it, slowly."""
    if not machine.has_any(BF16_SETS):
        raise InputError(
            f"this processor, {machine.processor}, has no instructions for bf16 ({', '.join(BF16_SETS)})",
            hint="run it in fp32",
        )


def reason(error: Exception) -> str:
    """Return what an error of OpenVINO says, in one line: operations that it does not have come first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    unknown = [line.removeprefix(_UNKNOWN) for line in lines if line.startswith(_UNKNOWN)]
    if unknown:
        return f"it has no operation {unknown[0]}"[:200]
    said = [line for line in lines if not line.startswith(_FRAMES)]
    return (said or lines or [type(error).__name__])[0][:200]


def _metadata(model: openvino.Model) -> Mapping[str, str]:
    """Return the metadata of an ONNX file: OpenVINO keeps them below "framework", as values of any type."""
    if not model.has_rt_info(["framework"]):
        return {}
    return {key: str(value) for key, value in model.get_rt_info(["framework"]).value.items()}


def _spec(port: Any) -> TensorSpec:
    kind = port.element_type.get_type_name()
    if kind not in _DTYPES:
        raise ArtifactError(f"'{port.any_name}' has the type {kind}, which mggc-edge cannot feed")
    shape = tuple(size.get_length() if size.is_static else None for size in port.partial_shape)
    return TensorSpec(port.any_name, _DTYPES[kind], shape)

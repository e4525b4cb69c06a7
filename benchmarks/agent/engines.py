"""How the worker opens a model and runs it: one class an engine.

A class imports its engine when it is made, so that opening a model is measured without that. `open` loads the model;
then `provider`, `inputs`, `metadata` and `versions` say what it is, and `run` runs it once. Opened with `profile`, the
engine counts the time of every node, which costs some time itself: such a process is never a timed one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

TYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(uint8)": "uint8",
    "tensor(int8)": "int8", "tensor(int32)": "int32", "tensor(int64)": "int64", "tensor(bool)": "bool",
}  # fmt: skip
OPENVINO_TYPES = {
    "f32": "float32", "f16": "float16", "f64": "float64", "u8": "uint8", "i8": "int8", "i32": "int32", "i64": "int64",
    "boolean": "bool",
}  # fmt: skip
_FRAMES = ("Exception from ", "Check '", "FrontEnd API failed", "Model wasn't fully converted", "Summary:", "-- ")
_UNKNOWN = "-- No conversion rule found for operations: "

if TYPE_CHECKING:
    # Name, numpy's name of the element type or else the engine's own, and sizes of an input: open ones are a name or
    # None.
    Input = tuple[str, str, list[int | str | None]]


class RefusalError(Exception):
    """What the model or this machine does not allow: an error kind and a sentence."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class Engine(Protocol):
    """An engine that the worker can run.

    Attributes:
        device_bytes: memory of the device that running takes beside weights, inputs and outputs; None where not known.
    """

    device_bytes: int | None
    provider: str
    inputs: list[Input]
    metadata: Mapping[str, str]
    versions: dict[str, str]

    def open(self, request: Mapping[str, Any]) -> None:
        """Load a model.

        Args:
            request: `path`, `threads`, `provider` (ONNX Runtime's own name) and `precision` (that of the run); perhaps
                `profile`, with which the names of the profile's files begin; and of a TensorRT engine `facts`.
        """

    def run(self, feeds: Mapping[str, Any]) -> Any:
        """Run once and return what comes out, in order or by name, in new arrays; what goes in is not copied."""

    def note_profile(self) -> None:
        """Note that the warm-up is over, or that a part of the runs after it is."""

    def end_profile(self) -> str:
        """Return the path of the file that has the times of the nodes; nothing can be run afterwards."""


class OnnxRuntime:
    """ONNX Runtime, for .onnx and .ort files."""

    device_bytes: int | None = None

    def __init__(self) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise RefusalError("missing", f"onnxruntime cannot be imported here: {error}") from error
        self._library: Any = onnxruntime
        self.versions = {"onnxruntime": str(onnxruntime.__version__)}

    def open(self, request: Mapping[str, Any]) -> None:
        """Load a model on one provider."""
        ort, provider = self._library, request["provider"]
        there: list[str] = ort.get_available_providers()
        if provider not in there:  # ONNX Runtime would only warn, and run on the processor
            raise RefusalError("provider", f"this build of ONNX Runtime has no {provider}, but {', '.join(there)}")
        options = ort.SessionOptions()
        options.log_severity_level = 4  # what matters comes back as an exception
        options.intra_op_num_threads = request["threads"]
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        # A thread that spins takes a core from the other worker while it is measured.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        if "profile" in request:
            options.enable_profiling = True
            options.profile_file_prefix = request["profile"]
        try:
            session = ort.InferenceSession(request["path"], options, providers=[provider], enable_fallback=0)
        except Exception as error:  # ONNX Runtime raises many kinds, and its texts may be no UTF-8
            raise RefusalError("model", f"ONNX Runtime cannot run it: {_first_line(error)}") from error
        self.provider: str = session.get_providers()[0]
        if self.provider != provider:
            raise RefusalError(
                "provider", f"ONNX Runtime's {provider} does not start here; it would run on {self.provider}"
            )
        self._session = session
        self._names = [output.name for output in session.get_outputs()]
        self.metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
        self.inputs: list[Input] = [
            (tensor.name, TYPES.get(tensor.type, tensor.type), tensor.shape) for tensor in session.get_inputs()
        ]

    def run(self, feeds: Mapping[str, Any]) -> Any:
        """Run once."""
        try:
            return self._session.run(self._names, feeds)
        except Exception as error:  # as above
            raise RefusalError("model", f"ONNX Runtime failed while running it: {_first_line(error)}") from error

    def note_profile(self) -> None:
        """Do nothing: every run is an event of its own."""

    def end_profile(self) -> str:
        """End the profile; its file has been written all along."""
        return str(self._session.end_profiling())


class OpenVino:
    """OpenVINO's CPU plugin, for .onnx files. It copies inputs and shares outputs unless it is told otherwise."""

    device_bytes: int | None = None

    def __init__(self) -> None:
        try:
            import openvino
            from openvino.frontend import FrontEndManager
        except ImportError as error:
            raise RefusalError("missing", f"openvino cannot be imported here: {error}") from error
        self._library: Any = openvino
        self._manager: Any = FrontEndManager
        self.versions = {"openvino": str(openvino.__version__).split("-")[0]}  # without build and branch

    def open(self, request: Mapping[str, Any]) -> None:
        """Load a model. Left to itself OpenVINO computes in bfloat16 where the processor has it; so it is told."""
        chosen = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": request["threads"],
            "INFERENCE_PRECISION_HINT": "bf16" if request["precision"] == "bf16" else "f32",
            # Within the cores of the process; what `cores.spread` ties its threads to it undoes when they wake up.
            # Threads without work sleep at once: nothing to set for that.
            "ENABLE_CPU_PINNING": request.get("cores") is not None,
        }
        if "profile" in request:
            chosen["PERF_COUNT"] = True
            self._profile = Path(f"{request['profile']}.json")
        try:
            reader = self._manager().load_by_framework("onnx")
            model = reader.convert(reader.load(request["path"]))
            compiled = self._library.Core().compile_model(model, "CPU", chosen)
            self._request = compiled.create_infer_request()
            self._compiled, self._runs = compiled, 0
            self._noted: list[dict[str, Any]] = []
            self.inputs: list[Input] = [
                (port.any_name, _openvino_type(port), [_openvino_size(size) for size in port.partial_shape])
                for port in compiled.inputs
            ]
        except Exception as error:  # OpenVINO raises many kinds
            raise RefusalError("model", f"OpenVINO cannot run it: {_openvino_line(error)}") from error
        if not compiled.outputs:  # an empty file is a network of nothing
            raise RefusalError("model", "OpenVINO cannot run it: it holds no network")
        kept = model.get_rt_info(["framework"]).value if model.has_rt_info(["framework"]) else {}
        self.metadata: Mapping[str, str] = {key: str(value) for key, value in kept.items()}
        self.provider = "CPU"

    def run(self, feeds: Mapping[str, Any]) -> Any:
        """Run once."""
        try:
            self._runs += 1
            return self._request.infer(feeds, share_inputs=True, share_outputs=False)
        except Exception as error:  # as above
            raise RefusalError("model", f"OpenVINO failed while running it: {_openvino_line(error)}") from error

    def note_profile(self) -> None:
        """Keep the times so far: OpenVINO gives means over all runs since the model was opened."""
        self._noted.append({"runs": self._runs, "nodes": self._counted()})

    def end_profile(self) -> str:
        """Write down the times of all these moments."""
        self._profile.write_text(json.dumps({"noted": self._noted}), encoding="utf-8")
        return str(self._profile)

    def _counted(self) -> list[dict[str, Any]]:
        """Return every node that was executed: its type, the layers in it, its mean time, the bytes of its tensors."""
        kinds = {entry.node_name: entry.node_type for entry in self._request.get_profiling_info()}
        found = []
        for node in self._compiled.get_runtime_model().get_ordered_ops():
            facts = {key: str(getattr(value, "value", value)) for key, value in node.get_rt_info().items()}
            name = node.get_friendly_name()
            if facts.get("execTimeMcs", "").isdecimal():
                ports = [port.get_source_output() for port in node.inputs()] + node.outputs()
                entry = {"name": name, "op": kinds.get(name, facts["layerType"]), "us": int(facts["execTimeMcs"])}
                layers = [layer for layer in facts.get("originalLayersNames", "").split(",") if layer]
                found.append({**entry, "layers": layers, "bytes": sum(map(_openvino_bytes, ports))})
        return found


class TensorRt:
    """TensorRT, for .engine files, which run on the kind of device, and under the TensorRT, that built them.

    What is timed is a picture's way to the device and back, with one launch of a CUDA graph where one can be recorded:
    on a board whose processor and GPU share their memory, that is what an application sees.
    """

    device_bytes: int | None = None

    def __init__(self) -> None:
        from . import trt_api, trt_run

        self._api, self._run = trt_api, trt_run
        try:
            self._library = trt_api.TensorRT()
            self._library.check_device()
            self._memory = trt_run.open_memory()
        except (trt_api.TensorRTError, trt_run.CudaError) as error:
            raise RefusalError("missing", error.message) from error
        self.versions = {"tensorrt": self._library.version}
        self.provider: str = self._memory.device

    def open(self, request: Mapping[str, Any]) -> None:
        """Load an engine. `facts`, where its builder wrote any, say what it was built for, and its metadata."""
        name, facts = Path(request["path"]).name, request.get("facts") or _facts_beside(request["path"])
        here = f"{self._memory.device} with TensorRT {self._library.version}"
        built = f"{facts.get('device')} with TensorRT {facts.get('tensorrt')}"
        if facts and built != here:
            raise RefusalError("engine", f"it was built for {built}, and this is {here}")
        try:
            engine = self._library.load(Path(request["path"]).read_bytes(), name)
            self._session, self._enqueued = self._run.Session(engine, self._memory), 0
        except self._api.TensorRTError as error:
            kind = "engine" if error.hint == self._api.REBUILD_HINT else "model"
            raise RefusalError(kind, error.message) from error
        except OSError as error:
            raise RefusalError("model", f"it cannot be read: {error.strerror}") from error
        self.metadata: Mapping[str, str] = {key: str(value) for key, value in (facts.get("metadata") or {}).items()}
        self.inputs: list[Input] = [
            (tensor.name, tensor.dtype, [size if size >= 0 else None for size in tensor.shape])
            for tensor in engine.tensors
            if tensor.is_input
        ]
        self.device_bytes = engine.device_memory_bytes

    def run(self, feeds: Mapping[str, Any]) -> Any:
        """Run once."""
        try:
            return self._session.infer(feeds)
        except (self._api.TensorRTError, self._run.CudaError) as error:
            raise RefusalError("model", error.message) from error

    def take_enqueue_ns(self) -> int:
        """Return for how long work has been handed to the device since this was asked last."""
        total = int(self._session.enqueue_ns)
        taken, self._enqueued = total - self._enqueued, total
        return taken

    def note_profile(self) -> None:
        """Do nothing: nobody asks for a profile."""

    def end_profile(self) -> str:
        """Refuse: what the layers of an engine take is not counted here."""
        raise RefusalError("model", "the layers of a TensorRT engine are not timed")


# Runtime, as `--runtime` has it -> its class.
ENGINES: dict[str, type[OnnxRuntime] | type[OpenVino] | type[TensorRt]] = {
    "onnxruntime": OnnxRuntime,
    "ort-mobile": OnnxRuntime,
    "openvino": OpenVino,
    "tensorrt": TensorRt,
}


def _facts_beside(path: str) -> dict[str, Any]:
    """Return what is kept beside an engine that was built here; nothing where there is nothing."""
    try:
        facts = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(facts) if isinstance(facts, dict) else {}


def _openvino_type(port: Any) -> str:
    kind: str = port.element_type.get_type_name()
    return OPENVINO_TYPES.get(kind, kind)


def _openvino_size(size: Any) -> int | None:
    return int(size.get_length()) if size.is_static else None


def _openvino_bytes(port: Any) -> int:
    if not port.get_partial_shape().is_static:
        return 0
    return int(math.prod(port.get_shape()) * port.get_element_type().bitwidth // 8)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _openvino_line(error: Exception) -> str:
    """Return what an error of OpenVINO says, without the lines on where in its own code it arose."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    unknown = [line[len(_UNKNOWN) :] for line in lines if line.startswith(_UNKNOWN)]
    if unknown:
        return f"it has no operation {unknown[0]}"[:200]
    said = [line for line in lines if not line.startswith(_FRAMES)]
    return (said or lines or [type(error).__name__])[0][:200]

"""ONNX Runtime: .onnx files and its own .ort files, on any of its execution providers that this build has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mggc_edge.backends.base import BaseRunner
from mggc_edge.errors import ArtifactError, InputError, MggcEdgeError
from mggc_edge.lazy import require
from mggc_edge.machine import INT8_SETS, this_machine
from mggc_edge.tensors import Array, Feeds, TensorSpec

if TYPE_CHECKING:
    import onnxruntime

_DTYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(uint8)": "uint8",
    "tensor(int8)": "int8", "tensor(int32)": "int32", "tensor(int64)": "int64", "tensor(bool)": "bool",
}  # fmt: skip
ONNX_RUNTIME = "onnxruntime"  # of .onnx files
ORT_MOBILE = "ort-mobile"  # the runtime of .ort files, which builds without ONNX parser and graph passes run too
_UNKNOWN = re.compile(r"([^\s:]+:\S+?)\(-?\d+\) is not a registered function/op")
# Where a processor has no instructions for 8-bit sums, ONNX Runtime adds products of uint8 and int8 in 16 bits and cuts
# off what is beyond them, unless it is told to take int8 weights as uint8. The sums are then exact, and slower.
EXACT_SUMS = ("session.x64quantprecision", "1")
# Short name, as `--provider` has it -> ONNX Runtime's name.
PROVIDERS: Mapping[str, str] = {
    "cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider",
}  # fmt: skip


class OnnxRuntimeRunner(BaseRunner):
    """Runs a file with one of ONNX Runtime's execution providers; sums of 8-bit products are exact on every processor.

    Args:
        path: an .onnx or .ort file.
        threads: threads inside an operator; 0 lets ONNX Runtime choose.
        provider: "cpu", "cuda" or "tensorrt". What it does not take, ONNX Runtime runs on the processor; a provider
            that is not there, or does not start, is an error.
    """

    engine = ONNX_RUNTIME

    def __init__(self, path: Path, *, threads: int = 0, provider: str = "cpu") -> None:
        super().__init__(path.name)
        if path.suffix.lower() == ".ort":
            self.engine = ORT_MOBILE
        self._path = path
        self._threads = threads
        self._provider = provider_name(provider)
        self._session: onnxruntime.InferenceSession | None = None

    def _open(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        ort = require("onnxruntime", extra="ort")
        check_provider(self._provider)
        options = ort.SessionOptions()
        options.log_severity_level = 4  # what matters comes back as an exception
        options.intra_op_num_threads = self._threads
        if not this_machine().has_any(INT8_SETS):
            options.add_session_config_entry(*EXACT_SUMS)
        try:
            self._session = ort.InferenceSession(
                str(self._path), options, providers=[self._provider], enable_fallback=0
            )
            if (started := self._session.get_providers()[0]) != self._provider:
                raise InputError(
                    f"ONNX Runtime's {self._provider} does not start here; it would run on {started}",
                    hint="does the driver, and do CUDA, cuDNN or TensorRT, fit this build of ONNX Runtime?",
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


def write_optimized(path: Path, target: Path) -> None:
    """Write the graph of a file as ONNX Runtime rewrites it for this machine's processor, to read and not to run.

    Raises:
        ArtifactError: ONNX Runtime does not take the file.
        MissingDependencyError: there is no ONNX Runtime.
    """
    ort = require("onnxruntime", extra="ort")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(target)
    try:
        ort.InferenceSession(str(path), options, providers=[PROVIDERS["cpu"]], enable_fallback=0)
    except Exception as error:  # as above
        raise ArtifactError(f"ONNX Runtime cannot run '{path}': {_reason(error)}") from error


def provider_name(provider: str) -> str:
    """Return ONNX Runtime's name of a provider, given by its short name or its own.

    Raises:
        InputError: there is no such provider, or none that can be chosen.
    """
    name = PROVIDERS.get(provider, provider)
    if name not in PROVIDERS.values():
        raise InputError(f"'{provider}' is no provider", hint=f"one of {', '.join(PROVIDERS)}")
    return name


def onnxruntime_version() -> str:
    """Return the version of ONNX Runtime; MissingDependencyError where it is not installed."""
    return str(require("onnxruntime", extra="ort").__version__)


def available_providers() -> tuple[str, ...]:
    """Return ONNX Runtime's own names of the providers that this build has.

    Raises:
        MissingDependencyError: there is no ONNX Runtime.
    """
    return tuple(require("onnxruntime", extra="ort").get_available_providers())


def check_provider(name: str) -> None:
    """Raise InputError where this build of ONNX Runtime lacks a provider: it would run on the processor instead.

    Args:
        name: ONNX Runtime's own name.
    """
    there = available_providers()
    if name not in there:
        raise InputError(
            f"this build of ONNX Runtime has no {name}, but {', '.join(there)}",
            hint="install a build that has it, such as onnxruntime-gpu or that of your board, in the place of this one",
        )


def _reason(error: Exception) -> str:
    """Return the first line of what ONNX Runtime says; of an operator that it lacks, that and no more."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    unknown = _UNKNOWN.search(text)
    return (text if unknown is None else f"it has no operator {unknown[1]}")[:200]


def _spec(tensor: Any) -> TensorSpec:
    if tensor.type not in _DTYPES:
        raise ArtifactError(f"'{tensor.name}' has the type {tensor.type}, which mggc-edge cannot feed")
    shape = tuple(size if isinstance(size, int) else None for size in tensor.shape)
    return TensorSpec(tensor.name, _DTYPES[tensor.type], shape)

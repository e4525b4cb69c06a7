"""TensorRT 8.6 to 11 behind one face: build an engine from a typed ONNX file, read it, describe it.

What a version can do is asked of its bindings (`hasattr`), never of its number:

                        8.6                     10                      11
    types of a network  hints, beside flags     as in the file          as in the file, always
    network flag        EXPLICIT_BATCH          STRONGLY_TYPED          STRONGLY_TYPED (no effect)
    FP16, INT8 flags    needed                  refused: the file says  gone
    device memory       device_memory_size      _v2                     _v2
    inspector's JSON    "Bindings"              "Bindings"              "I/O Tensors"

Python 3.8, standard library and numpy, nothing of mggc_edge: bundles carry copies of this file and of `trt_run.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Mapping, Sequence

INSTALL_HINT = (
    "pip install tensorrt; on a Jetson it comes with JetPack (sudo apt install python3-libnvinfer), and a virtual "
    "environment sees it with --system-site-packages"
)
REBUILD_HINT = "an engine runs where it was built: build it here from its ONNX file"
# cudaError_t, as TensorRT quotes it where a builder or a runtime cannot start.
CUDA_ERRORS = {
    2: "the GPU has no memory left",
    3: "the CUDA driver cannot start",
    35: "there is no NVIDIA driver, or it is older than the CUDA that this TensorRT was built for",
    46: "the GPU is busy, or in use by another process alone",
    100: "there is no CUDA device",
    802: "the system is not ready for CUDA yet",
    803: "driver and CUDA libraries do not fit together",
}
# numpy's names of TensorRT's types; others (BF16, FP8, INT4) have none.
DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32", "INT64": "int64", "UINT8": "uint8",
    "BOOL": "bool",
}  # fmt: skip
HALF_FLAGS = ("FP16", "OBEY_PRECISION_CONSTRAINTS")
NORM_LAYERS = ("NORMALIZATION", "PLUGIN", "PLUGIN_V2", "PLUGIN_V3")  # of our graphs nothing else becomes a plugin
MAX_REASON = 400
_LOGGERS: list[tuple[Any, Any, list[str]]] = []  # module, its logger, what went wrong
FACTS_SCHEMA, FACTS_SUFFIX = "mggc-edge/engine/1", ".json"  # beside an engine: generator.fp16.engine.json


class TensorRTError(RuntimeError):
    """TensorRT or its parser says no: a sentence (`message`) and, where there is one, the way out (`hint`)."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message, self.hint = message, hint
        super().__init__(message)


class TensorRTMissingError(TensorRTError):
    """TensorRT, the driver or a device is not there."""


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built.

    Attributes:
        precision: of the ONNX file: "fp32", "fp16" (typed by casts) or "int8" (Q/DQ). Where a network has types of its
            own nothing follows from it; before that it sets flags, for int8 those of fp16 too: not all has Q/DQ pairs.
        tf32: allow float32 convolutions with 10 bits of mantissa, TensorRT's default on Ampere and later.
        native_norm: instance norm as a layer of TensorRT's own; False: the plugin that 8.6 had, where it is there.
        workspace_bytes: memory for a layer's scratch; None: all that the device has.
        optimization_level: 0 to 5, how long is searched; None: TensorRT's own.
        shapes: input -> (smallest, best, largest) shape, for inputs with open sizes.
    """

    precision: str = "fp32"
    tf32: bool = True
    native_norm: bool = True
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    shapes: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "fp16", "int8"):
            raise TensorRTError(f"'{self.precision}' is no precision", "fp32, fp16 or int8")
        if self.workspace_bytes is not None and self.workspace_bytes < 2**20:
            raise TensorRTError(f"a workspace of {self.workspace_bytes} bytes is too small", "1 MiB is the least")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise TensorRTError(f"there is no optimization level {self.optimization_level}", "0 to 5")


@dataclass(frozen=True)
class Built:
    """A serialized engine, what it was built with, and what is to be said about it."""

    plan: bytes
    typed: bool
    flags: tuple[str, ...]
    seconds: float
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineTensor:
    """An input or output of an engine: numpy's name of its type, and its shape, -1 where it is open."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    is_input: bool


def timing_cache_file(folder: Path, device: str, version: str) -> Path:
    """Return where the timings of one device under one TensorRT are kept: they are worth nothing on another."""
    return Path(folder) / f"{re.sub('[^A-Za-z0-9.]+', '-', device).strip('-').lower()}-tensorrt-{version}.cache"


class TensorRT:
    """The TensorRT of this machine.

    Args:
        module: the bindings; None: `import tensorrt`.

    Raises:
        TensorRTMissingError: it cannot be imported.
    """

    def __init__(self, module: Any = None) -> None:
        if module is None:
            try:
                import tensorrt

                module = tensorrt
            except ImportError as error:
                raise TensorRTMissingError(f"tensorrt cannot be imported here: {error}", INSTALL_HINT) from error
        self.trt = module
        self.version = str(module.__version__)
        self.logger, self._errors = _logger(module)

    @property
    def typed(self) -> bool:
        """Whether networks have the types of their file."""
        return hasattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")

    def check_device(self) -> None:
        """Raise TensorRTMissingError where there is no device to build for, or to run on."""
        self._start(self.trt.Runtime)  # which takes less memory than a Builder

    def build(self, onnx: Path, options: BuildOptions, timing_cache: Path | None = None) -> Built:
        """Build an engine from an ONNX file, for the device at hand.

        Args:
            onnx: the file; data outside of it lies beside it.
            options: see `BuildOptions`.
            timing_cache: file that timings are taken from and added to, see `timing_cache_file`.

        Raises:
            TensorRTMissingError: there is no device.
            TensorRTError: the file is not understood, or no engine can be built.
        """
        trt, started = self.trt, time.perf_counter()
        builder = self._start(trt.Builder)
        creation = trt.NetworkDefinitionCreationFlag
        kind = creation.STRONGLY_TYPED if hasattr(creation, "STRONGLY_TYPED") else creation.EXPLICIT_BATCH
        network = builder.create_network(1 << int(kind))
        self._parse(network, onnx, options)
        config = builder.create_builder_config()
        flags = self._configure(config, network, options)
        self._set_shapes(builder, config, network, options)
        known, remarks = self._load_timings(config, timing_cache)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise TensorRTError(f"TensorRT cannot build an engine from '{onnx}': {self.reason()}", self._build_hint())
        if timing_cache is not None:
            self._save_timings(config, timing_cache, known)
        return Built(bytes(plan), self.typed, flags, time.perf_counter() - started, remarks)

    def load(self, plan: bytes, name: str = "engine") -> Engine:
        """Return a serialized engine, ready to run.

        Raises:
            TensorRTMissingError: there is no device.
            TensorRTError: it is damaged, or was built for another device or by another TensorRT.
        """
        runtime = self._start(self.trt.Runtime)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise TensorRTError(f"TensorRT {self.version} cannot read '{name}': {self.reason()}", REBUILD_HINT)
        return Engine(self, runtime, engine, name)

    def _start(self, what: Any) -> Any:
        """Return a Builder or a Runtime; both need a driver and a device."""
        self._errors.clear()
        try:
            started = what(self.logger)
        except TypeError as error:  # pybind11: "factory function returned nullptr"
            raise self._no_device() from error
        if started is None:
            raise self._no_device()
        return started

    def _no_device(self) -> TensorRTMissingError:
        reason = self.reason()
        code = re.search(r"CUDA initialization failure with error:? (\d+)", reason)
        words = CUDA_ERRORS.get(int(code.group(1))) if code else None
        return TensorRTMissingError(
            f"TensorRT {self.version} finds no device that it can use: {words or reason}",
            "run it on a machine with an NVIDIA GPU and its driver, and in a container with --gpus all",
        )

    def reason(self) -> str:
        """Return what TensorRT said last, or that it said nothing."""
        lines = [" ".join(text.split()) for text in self._errors[-2:]]
        return "; ".join(dict.fromkeys(lines))[:MAX_REASON] or "it does not say why"

    def _build_hint(self) -> str | None:
        short = re.search("memory|workspace", " ".join(self._errors), re.IGNORECASE)
        return "free memory on the device, or allow a larger workspace" if short else None

    def _parse(self, network: Any, onnx: Path, options: BuildOptions) -> None:
        parser = self.trt.OnnxParser(network, self.logger)
        flag = self.trt.OnnxParserFlag
        if hasattr(flag, "NATIVE_INSTANCENORM"):
            (parser.set_flag if options.native_norm else parser.clear_flag)(flag.NATIVE_INSTANCENORM)
        if parser.parse_from_file(str(onnx)):
            return
        errors = dict.fromkeys(_parser_error(parser.get_error(number)) for number in range(parser.num_errors))
        reason = "; ".join(errors)[:MAX_REASON] or self.reason()
        raise TensorRTError(f"TensorRT {self.version} does not understand '{onnx}': {reason}")

    def _configure(self, config: Any, network: Any, options: BuildOptions) -> tuple[str, ...]:
        """Set what the options say, and return the flags that are set."""
        trt = self.trt
        if options.workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        if options.optimization_level is not None:
            config.builder_optimization_level = options.optimization_level
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if not options.tf32:
            config.clear_flag(trt.BuilderFlag.TF32)
        wanted: Sequence[str] = ()
        if not self.typed:
            wanted = {"fp32": (), "fp16": HALF_FLAGS, "int8": ("INT8", *HALF_FLAGS)}[options.precision]
            if options.precision != "fp32":
                _keep_norms_in_float(trt, network)
        for name in wanted:
            config.set_flag(getattr(trt.BuilderFlag, name))
        return (*wanted, *(["TF32"] if config.get_flag(trt.BuilderFlag.TF32) else []))

    def _set_shapes(self, builder: Any, config: Any, network: Any, options: BuildOptions) -> None:
        tensors = [network.get_input(number) for number in range(network.num_inputs)]
        open_inputs = [tensor for tensor in tensors if -1 in tuple(tensor.shape)]
        if not open_inputs:
            return
        profile = builder.create_optimization_profile()
        for tensor in open_inputs:
            if tensor.name not in options.shapes:
                raise TensorRTError(
                    f"input '{tensor.name}' has open sizes {tuple(tensor.shape)}, and no shapes are given for it",
                    "give its smallest, best and largest shape",
                )
            profile.set_shape(tensor.name, *map(tuple, options.shapes[tensor.name]))
        if config.add_optimization_profile(profile) < 0:
            raise TensorRTError(f"the shapes {dict(options.shapes)} do not fit the network: {self.reason()}")

    def _load_timings(self, config: Any, path: Path | None) -> tuple[bytes, tuple[str, ...]]:
        """Give the builder what is known of the device; return that, and what is to be said."""
        if path is None:
            return b"", ()
        known = path.read_bytes() if path.is_file() else b""
        cache = config.create_timing_cache(known)
        if cache is not None and config.set_timing_cache(cache, False):
            return known, ()
        config.set_timing_cache(config.create_timing_cache(b""), False)
        return b"", (f"the timings in '{path.name}' are of another device or TensorRT: begun anew",)

    def _save_timings(self, config: Any, path: Path, known: bytes) -> None:
        """Write all timings, those of others who wrote meanwhile included."""
        cache = config.get_timing_cache()
        now = path.read_bytes() if path.is_file() else b""
        if now and now != known:
            others = config.create_timing_cache(now)
            if others is not None:
                cache.combine(others, False)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, bytes(cache.serialize()))


class Engine:
    """A deserialized engine. It outlives whatever runs it."""

    def __init__(self, owner: TensorRT, runtime: Any, engine: Any, name: str) -> None:
        self.owner, self.name = owner, name
        self._runtime, self.engine = runtime, engine  # the runtime must live as long as the engine
        count = self.engine.num_io_tensors
        self.tensors = tuple(self._tensor(self.engine.get_tensor_name(number)) for number in range(count))

    def _tensor(self, name: str) -> EngineTensor:
        engine = self.engine
        dtype = engine.get_tensor_dtype(name).name
        if dtype not in DTYPES:
            raise TensorRTError(f"'{name}' of '{self.name}' has the type {dtype}, which numpy does not have")
        is_input = engine.get_tensor_mode(name) == self.owner.trt.TensorIOMode.INPUT
        return EngineTensor(name, DTYPES[dtype], tuple(engine.get_tensor_shape(name)), is_input)

    def error(self, message: str, hint: str | None = None) -> TensorRTError:
        """Return the error for something that failed, with what TensorRT said last."""
        return TensorRTError(f"{message}: {self.owner.reason()}", hint)

    @property
    def device_memory_bytes(self) -> int:
        """Memory that running it takes, beside its weights, inputs and outputs."""
        engine = self.engine
        if hasattr(engine, "device_memory_size_v2"):
            return int(engine.device_memory_size_v2)
        return int(engine.device_memory_size)

    def layers(self) -> list[Any]:
        """Return what TensorRT says of each layer: a mapping, or only its name."""
        inspector = self.engine.create_engine_inspector()
        text = inspector.get_engine_information(self.owner.trt.LayerInformationFormat.JSON)
        return list(json.loads(text).get("Layers", [])) if text else []


def engine_facts(
    built: Built, engine: Engine, device: str, precision: str, metadata: Mapping[str, str]
) -> dict[str, Any]:
    """Return what is kept beside an engine, as JSON: what it was built from, for, and by, and what it takes."""
    return {
        "schema": FACTS_SCHEMA,
        "precision": precision,
        "device": device,
        "tensorrt": engine.owner.version,
        "sha256": hashlib.sha256(built.plan).hexdigest(),
        "size_bytes": len(built.plan),
        "tensors": [asdict(tensor) for tensor in engine.tensors],
        "typed": built.typed,
        "flags": list(built.flags),
        "device_memory_bytes": engine.device_memory_bytes,
        "layers": engine.layers(),
        "build_seconds": round(built.seconds, 3),
        "remarks": list(built.remarks),
        "metadata": dict(metadata),
    }


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file: the whole of it, or nothing."""
    descriptor, name = tempfile.mkstemp(dir=str(path.parent), prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


def _keep_norms_in_float(trt: Any, network: Any) -> None:
    """Hold instance norms, plugins too, to float32 where types are hints: in half precision their sums overflow."""
    norms = [getattr(trt.LayerType, name) for name in NORM_LAYERS if hasattr(trt.LayerType, name)]
    for number in range(network.num_layers):
        layer = network.get_layer(number)
        if layer.type in norms:
            layer.precision = trt.DataType.FLOAT


def _parser_error(error: Any) -> str:
    """Return what the parser says of one node, with the node's name and operator where it knows them."""
    where = f"node {error.node()}"
    if hasattr(error, "node_name"):
        where += f" ('{error.node_name()}', {error.node_operator()})"
    return f"{where}: {' '.join(error.desc().split())}" if error.node() >= 0 else " ".join(error.desc().split())


def _logger(trt: Any) -> tuple[Any, list[str]]:
    """Return a logger that keeps what went wrong and prints nothing, and what it keeps.

    TensorRT speaks to the logger that it was given first: there is one for each module.
    """
    for module, logger, errors in _LOGGERS:
        if module is trt:
            return logger, errors
    kept: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity.name in ("INTERNAL_ERROR", "ERROR"):
                kept.append(msg)

    _LOGGERS.append((trt, Logger(), kept))
    return _LOGGERS[-1][1], kept

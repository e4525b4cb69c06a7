"""A TensorRT without a GPU: `make(version)` has the names that the real bindings of that version have, and behaves.

Whatever the recording of a version lacks is taken away, so that code which passes with the fake finds its names in the
real bindings. An engine is a line of JSON that names its ONNX file; running it is left to an `Executor`, over addresses
of the host (`fake_cuda.py`). Python 3.8, standard library and numpy: the script of a bundle is tested with it too.
"""

from __future__ import annotations

import ctypes
import enum
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np

RECORDED = json.loads((Path(__file__).parent / "tensorrt_names.json").read_text(encoding="utf-8"))["tensorrt"]
NUMPY = {"FLOAT": "float32", "HALF": "float16", "UINT8": "uint8", "BF16": "uint16"}


class Executor(Protocol):
    """What is behind the fake: what a file takes and gives, its layers, and its outputs."""

    def describe(self, path: str) -> Any:
        """Return (inputs, outputs, names of TensorRT's layer types)."""

    def run(self, path: str, feeds: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Return the outputs."""


class World:
    """What a test decides: the device, and what goes wrong; and what it looks at afterwards."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.device = "Fake sm87"
        self.driver_error: int | None = None
        self.parser_errors: list[str] = []
        self.build_error: str | None = None
        self.run_error: str | None = None
        self.no_context = False
        self.no_capture = False
        self.stream: Any = None  # of `fake_cuda`: while it records, nothing runs
        self.log: list[Any] = []  # what was set: flags, precisions, shapes, ...


class Guarded:
    """Public attributes can be set only where the version has them."""

    _fake: Any

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(f"{type(self).__name__} has no attribute {name}")
        object.__setattr__(self, name, value)


class ILogger(Guarded):
    Severity: Any = None

    def __init__(self) -> None:
        self._begun = True


class Logger(ILogger):
    def log(self, severity: Any, msg: str) -> None:
        raise AssertionError("our logger is used, not TensorRT's, which prints")


class Starting(Guarded):
    def __init__(self, logger: Any) -> None:
        self._logger = logger
        world = self._fake.world
        if world.driver_error is not None:
            self._say("ERROR", f"createInferRuntime: CUDA initialization failure with error: {world.driver_error}")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def _say(self, severity: str, text: str) -> None:
        self._logger.log(self._fake.ILogger.Severity[severity], text)


class Builder(Starting):
    def create_network(self, flags: int = 0) -> Any:
        self._fake.world.log.append(("network", flags))
        return self._fake.INetworkDefinition()

    def create_builder_config(self) -> Any:
        return self._fake.IBuilderConfig()

    def create_optimization_profile(self) -> Any:
        return self._fake.IOptimizationProfile()

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        world = self._fake.world
        world.log += [
            ("precision", layer.type.name, layer._precision)
            for layer in network._layers
            if layer._precision is not None
        ]
        world.log.append(("config", config._facts()))
        if world.build_error is not None:
            self._say("WARNING", "a warning is no reason")
            self._say("ERROR", world.build_error)
            return None
        config._cache._entries.add(hashlib.sha256(Path(network._path).read_bytes()).hexdigest()[:8])
        plan = {"version": self._fake.version, "device": world.device, "onnx": network._path}
        return self._fake.IHostMemory(json.dumps(plan).encode())


class IHostMemory(bytes):
    pass


class ITensor(Guarded):
    name: Any = None
    shape: Any = None

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.shape = name, shape


class ILayer(Guarded):
    type: Any = None
    precision: Any = None

    def __init__(self, kind: Any) -> None:
        self.type = kind

    @property
    def _precision(self) -> Any:
        return vars(self).get("precision")


class INetworkDefinition(Guarded):
    def __init__(self) -> None:
        self._path, self._inputs, self._layers = "", [], []  # type: ignore[var-annotated]

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> Any:
        return self._inputs[index]

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_layer(self, index: int) -> Any:
        return self._layers[index]


class ParserError(Guarded):
    def __init__(self, number: int, text: str) -> None:
        self._number, self._text = number, text

    def node(self) -> int:
        return self._number

    def node_name(self) -> str:
        return f"n{self._number}"

    def node_operator(self) -> str:
        return "Einsum"

    def desc(self) -> str:
        return self._text


class OnnxParser(Guarded):
    def __init__(self, network: Any, logger: Any) -> None:
        self._network, self._errors, self._logger = network, [], logger  # type: ignore[var-annotated]
        self._plugin_norm = False

    def set_flag(self, flag: Any) -> None:
        self._fake.world.log.append(("parser", flag.name, True))

    def clear_flag(self, flag: Any) -> None:
        self._fake.world.log.append(("parser", flag.name, False))
        self._plugin_norm = self._plugin_norm or flag.name == "NATIVE_INSTANCENORM"

    def parse_from_file(self, path: str) -> bool:
        fake = self._fake
        if fake.world.parser_errors:
            self._errors = [fake.ParserError(number, text) for number, text in enumerate(fake.world.parser_errors)]
            return False
        inputs, _, layers = fake.world.executor.describe(path)
        if self._plugin_norm:
            layers = ["PLUGIN_V2" if kind == "NORMALIZATION" else kind for kind in layers]
        self._network._path = path
        self._network._inputs = [fake.ITensor(name, shape) for name, _, shape in inputs]
        self._network._layers = [fake.ILayer(fake.LayerType[kind]) for kind in layers]
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]


class IOptimizationProfile(Guarded):
    def set_shape(self, name: str, smallest: Any, best: Any, largest: Any) -> None:
        self._fake.world.log.append(("shape", name, smallest, best, largest))


class ITimingCache(Guarded):
    def __init__(self, header: str, entries: Any) -> None:
        self._header, self._entries = header, set(entries)

    def combine(self, other: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self._entries |= other._entries
        return True

    def serialize(self) -> Any:
        return self._fake.IHostMemory(json.dumps([self._header, sorted(self._entries)]).encode())


class IBuilderConfig(Guarded):
    builder_optimization_level: Any = None
    profiling_verbosity: Any = None

    def __init__(self) -> None:
        self._flags, self._pools, self._profiles = {"TF32"}, {}, []  # type: ignore[var-annotated]
        self._cache = self.create_timing_cache(b"")

    def _facts(self) -> Any:
        verbosity = self.profiling_verbosity.name
        return sorted(self._flags), self._pools, self.builder_optimization_level, verbosity, len(self._profiles)

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag.name)

    def get_flag(self, flag: Any) -> bool:
        return flag.name in self._flags

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self._pools[pool.name] = size

    def add_optimization_profile(self, profile: Any) -> int:
        self._profiles.append(profile)
        return -1 if self._fake.world.log[-1][2] > self._fake.world.log[-1][4] else len(self._profiles) - 1

    def create_timing_cache(self, data: bytes) -> Any:
        header = f"{self._fake.version} {self._fake.world.device}"
        return self._fake.ITimingCache(*(json.loads(data.decode()) if data else (header, [])))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache._header != f"{self._fake.version} {self._fake.world.device}":
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache


class Runtime(Starting):
    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        try:
            facts = json.loads(bytes(plan).decode())
        except ValueError:
            self._say(
                "ERROR", "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (magic tag does not match)"
            )
            return None
        for key, here in (("version", self._fake.version), ("device", self._fake.world.device)):
            if facts[key] != here:
                self._say("ERROR", f"The engine plan file is not compatible: expecting {key} {here} got {facts[key]}")
                return None
        return self._fake.ICudaEngine(facts["onnx"], self._logger)


class ICudaEngine(Guarded):
    device_memory_size = 1000
    device_memory_size_v2 = 2000

    def __init__(self, path: str, logger: Any) -> None:
        self._path, self._logger = path, logger
        inputs, outputs, _ = self._fake.world.executor.describe(path)
        self._tensors = {name: (kind, shape) for name, kind, shape in [*inputs, *outputs]}
        self._inputs = {name for name, _, _ in inputs}

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return str(list(self._tensors)[index])

    def get_tensor_mode(self, name: str) -> Any:
        return self._fake.TensorIOMode["INPUT" if name in self._inputs else "OUTPUT"]

    def get_tensor_dtype(self, name: str) -> Any:
        return self._fake.DataType[self._tensors[name][0]]

    def get_tensor_shape(self, name: str) -> Any:
        return self._tensors[name][1]

    def create_engine_inspector(self) -> Any:
        return self._fake.EngineInspector()

    def create_execution_context(self) -> Any:
        if self._fake.world.no_context:
            self._logger.log(self._fake.ILogger.Severity.ERROR, "OutOfMemory (Requested size was 64 bytes.)")
            return None
        return self._fake.IExecutionContext(self)


class EngineInspector(Guarded):
    def get_engine_information(self, form: Any) -> str:
        assert form.name == "JSON"
        return json.dumps({"Layers": ["conv + relu"], "I/O Tensors": ["input"]})


class IExecutionContext(Guarded):
    def __init__(self, engine: Any) -> None:
        self._engine, self._shapes, self._addresses = engine, {}, {}  # type: ignore[var-annotated]

    def set_input_shape(self, name: str, shape: Any) -> bool:
        wanted = self._engine._tensors[name][1]
        if len(wanted) != len(shape) or any(a not in (-1, b) for a, b in zip(wanted, shape)):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> Any:
        if name in self._engine._inputs:
            return self._shapes[name]
        batch = next(iter(self._shapes.values()))[0]
        return tuple(batch if size == -1 else size for size in self._engine._tensors[name][1])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: Any) -> bool:
        engine, world = self._engine, self._fake.world
        if world.run_error is not None:
            engine._logger.log(self._fake.ILogger.Severity.ERROR, world.run_error)
            return False
        recording = None if world.stream is None else world.stream.recording
        if recording is None:
            self._run()
        elif world.no_capture:
            engine._logger.log(self._fake.ILogger.Severity.ERROR, "operation not permitted when stream is capturing")
            return False
        else:
            recording.append(self._run)
        return True

    def _run(self) -> None:
        engine, world = self._engine, self._fake.world
        world.log.append(("run",))
        feeds = {}
        for name in engine._inputs:
            shape, dtype = self._shapes[name], np.dtype(NUMPY[engine._tensors[name][0]])
            size = int(np.prod(shape)) * dtype.itemsize
            feeds[name] = np.frombuffer(ctypes.string_at(self._addresses[name], size), dtype).reshape(shape)
        for name, array in world.executor.run(engine._path, feeds).items():
            data = np.ascontiguousarray(array, NUMPY[engine._tensors[name][0]])
            ctypes.memmove(self._addresses[name], data.ctypes.data, data.nbytes)


ENUMS = {
    "NetworkDefinitionCreationFlag": ("EXPLICIT_BATCH", "STRONGLY_TYPED"),
    "BuilderFlag": ("FP16", "INT8", "TF32", "OBEY_PRECISION_CONSTRAINTS"),
    "DataType": ("FLOAT", "HALF", "INT8", "INT32", "UINT8", "BF16"),
    "LayerInformationFormat": ("ONELINE", "JSON"),
    "LayerType": ("CONVOLUTION", "NORMALIZATION", "PLUGIN", "PLUGIN_V2", "PLUGIN_V3"),
    "MemoryPoolType": ("WORKSPACE",),
    "OnnxParserFlag": ("NATIVE_INSTANCENORM",),
    "ProfilingVerbosity": ("LAYER_NAMES_ONLY", "DETAILED"),
    "TensorIOMode": ("NONE", "INPUT", "OUTPUT"),
}
CLASSES = (
    ILogger, Logger, Builder, IHostMemory, ITensor, ILayer, INetworkDefinition, ParserError, OnnxParser,
    IOptimizationProfile, ITimingCache, IBuilderConfig, Runtime, ICudaEngine, EngineInspector, IExecutionContext,
)  # fmt: skip


def make(version: str, executor: Any) -> Any:
    """Return the fake of one version; its `world` is what a test decides."""
    recorded = RECORDED[version]
    fake = SimpleNamespace(__version__=version, version=version, world=World(executor))
    for name, members in ENUMS.items():
        there = [member for member in members if member in recorded["classes"][name]]
        setattr(fake, name, enum.IntEnum(name, {member: value for value, member in enumerate(there)}))
    severities = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
    severity = enum.IntEnum("Severity", {name: value for value, name in enumerate(severities)})  # type: ignore[misc]
    for kind in CLASSES:
        listed = recorded["classes"].get(kind.__name__)
        kept = {
            name: value
            for name, value in vars(kind).items()
            if name.startswith("_") or listed is None or name in listed
        }
        kept.pop("__dict__", None)
        kept.pop("__weakref__", None)
        made: Any = type(kind.__name__, kind.__bases__, {**kept, "_fake": fake})
        if kind is ILogger:
            made.Severity = severity
        setattr(fake, kind.__name__, made)
    return fake

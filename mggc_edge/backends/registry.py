"""Which engine opens which file, and which engines work here. A new engine is one file and a line in two tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from mggc_edge.backends.base import BaseRunner
from mggc_edge.backends.onnxruntime import ONNX_RUNTIME, ORT_MOBILE, OnnxRuntimeRunner
from mggc_edge.backends.openvino import OPENVINO, OpenVinoRunner
from mggc_edge.backends.tensorrt import TrtRunner, tensorrt_ability
from mggc_edge.errors import ArtifactError, InputError, MissingDependencyError
from mggc_edge.lazy import install_line, require


@dataclass(frozen=True)
class Runtime:
    """An engine that opens files, by its name in `--runtime`.

    Attributes:
        ending: of the files that it takes.
        opener: makes a runner of a path, and of the arguments named in `takes`.
        takes: what can be chosen beside: "threads", "provider", "precision".
    """

    name: str
    ending: str
    opener: Callable[..., BaseRunner]
    takes: tuple[str, ...]


RUNTIMES: Mapping[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime(ONNX_RUNTIME, ".onnx", OnnxRuntimeRunner, ("threads", "provider")),
        Runtime(ORT_MOBILE, ".ort", OnnxRuntimeRunner, ("threads", "provider")),
        Runtime(OPENVINO, ".onnx", OpenVinoRunner, ("threads", "precision")),
        Runtime("tensorrt", ".engine", TrtRunner, ()),
    )
}
ENDINGS = tuple(dict.fromkeys(runtime.ending for runtime in RUNTIMES.values()))  # of what an engine opens
USUAL = {"threads": 0, "provider": "cpu", "precision": "fp32"}


@dataclass(frozen=True)
class Library:
    """An inference engine, or a library beside the engines.

    Attributes:
        name: what it is called; of a library beside the engines, also its name on the package index.
        module: what is imported.
        extra: the optional dependencies that install it.
        needed_by: what needs it; None for an engine, which is needed by whoever wants to use it.
    """

    name: str
    module: str
    extra: str
    needed_by: str | None = None


ENGINES: tuple[Library, ...] = (
    Library("pytorch", "torch", "torch"),
    Library("onnxruntime", "onnxruntime", "ort"),
    Library("tensorrt", "tensorrt", "tensorrt"),
    Library("openvino", "openvino", "openvino"),
)
LIBRARIES: tuple[Library, ...] = (
    Library("onnx", "onnx", "onnx", "export, inspect of ONNX files"),
    Library("onnxscript", "onnxscript", "onnx", "export"),
    Library("onnxsim", "onnxsim", "onnx", "export (optional: export.simplify)"),
    Library("safetensors", "safetensors", "torch", "export with a plan, which saves the slim network"),
    Library("lightning-fabric", "lightning_fabric", "devices", "training on several devices (optional: --devices)"),
)


@dataclass(frozen=True)
class LibraryState:
    """Whether a library works here, and if not, why and what to do."""

    library: Library
    works: bool
    version: str | None
    detail: str
    hint: str | None = None


def open_artifact(path: Path, runtime: str | None = None, *, threads: int = 0, **chosen: str) -> BaseRunner:
    """Return a runner, not yet entered, for a file that an engine can run as it is.

    Args:
        path: the file; its own precision stays what it is.
        runtime: a key of `RUNTIMES`; None: by the file's ending, the first that opens it.
        threads: threads inside an operator; 0 lets the engine choose.
        chosen: `provider` ("cpu", "cuda", "tensorrt"), for ONNX Runtime, and `precision` ("fp32", "bf16"), in which
            OpenVINO computes what is float32 in the file.

    Raises:
        ArtifactError: no engine, or not this one, opens files with that ending.
        InputError: there is no such runtime, or it has not what was chosen.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ArtifactError(f"no engine opens '{path.name}'", hint=f"known endings: {', '.join(ENDINGS)}")
    if runtime is None:
        runtime = next(known.name for known in RUNTIMES.values() if known.ending == ending)
    wanted = {name: value for name, value in {"threads": threads, **chosen}.items() if value != USUAL.get(name)}
    check_runtime(path, runtime, wanted)
    return RUNTIMES[runtime].opener(path, **wanted)


def check_runtime(path: Path, runtime: str, chosen: Mapping[str, object]) -> None:
    """Raise as `open_artifact` does where an engine does not take a file, or what was chosen beside it."""
    if runtime not in RUNTIMES:
        raise InputError(f"'{runtime}' is no runtime", hint=f"one of {', '.join(RUNTIMES)}")
    known = RUNTIMES[runtime]
    if path.suffix.lower() != known.ending:
        others = ", ".join(other.name for other in RUNTIMES.values() if other.ending == path.suffix.lower())
        raise ArtifactError(
            f"the runtime '{runtime}' opens {known.ending} files, and '{path.name}' is none",
            hint=f"runtimes for it: {others}" if others else None,
        )
    for name, value in chosen.items():
        if name not in known.takes:
            those = ", ".join(other.name for other in RUNTIMES.values() if name in other.takes)
            raise InputError(f"the runtime '{runtime}' has no {name} '{value}'", hint=f"for {those}")


def library_states(libraries: Iterable[Library]) -> tuple[LibraryState, ...]:
    """Return the state of each library on this machine; each is imported to find out."""
    return tuple(_state(library) for library in libraries)


def _state(library: Library) -> LibraryState:
    version = None
    try:
        module = require(library.module, extra=library.extra)
        version = _version(library, module)
        detail, hint = _abilities(library, module), None
    except MissingDependencyError as error:
        detail, hint = _absence(library, error), error.hint
    except Exception as error:  # noqa: BLE001  a half-installed library may fail in any way while it loads
        detail, hint = f"importing it fails: {str(error) or type(error).__name__}", install_line(library.extra)
    if hint is not None and library.needed_by is not None:
        detail = f"{detail}; needed by {library.needed_by}"
    return LibraryState(library, hint is None, version, detail, hint)


def _version(library: Library, module: object) -> str | None:
    try:
        return metadata.version(library.module)
    except (metadata.PackageNotFoundError, KeyError):  # vendor builds carry other package names; metadata may be broken
        version = getattr(module, "__version__", None)
        return None if version is None else str(version)


def _absence(library: Library, error: MissingDependencyError) -> str:
    cause = error.__cause__
    missing = isinstance(cause, ModuleNotFoundError) and cause.name == library.module
    return "not installed" if missing else error.message


def _abilities(library: Library, module: Any) -> str:
    if library.name == "onnxruntime":
        providers: list[str] = module.get_available_providers()
        return ", ".join(name.removesuffix("ExecutionProvider") for name in providers)
    if library.name == "tensorrt":
        return tensorrt_ability()
    if library.name == "openvino":
        devices: list[str] = module.Core().available_devices
        return ", ".join(devices)
    if library.name == "pytorch":
        return "CPU, CUDA" if module.cuda.is_available() else "CPU"
    return library.needed_by or ""

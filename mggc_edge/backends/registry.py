"""Which engine opens which file, and which engines work here. A new engine is one file and one line in each table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mggc_edge.backends.base import BaseRunner
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.errors import ArtifactError, MissingDependencyError
from mggc_edge.lazy import install_line, require

# File name ending -> how to open it.
OPENERS: Mapping[str, Callable[[Path], BaseRunner]] = {".onnx": OnnxRuntimeRunner, ".ort": OnnxRuntimeRunner}


@dataclass(frozen=True)
class Engine:
    """An inference engine: the module it lives in, the extra that installs it, whether this version can use it."""

    name: str
    module: str
    extra: str
    supported: bool = True


ENGINES: tuple[Engine, ...] = (
    Engine("pytorch", "torch", "torch"),
    Engine("onnxruntime", "onnxruntime", "ort"),
    Engine("tensorrt", "tensorrt", "tensorrt", supported=False),
    Engine("openvino", "openvino", "openvino", supported=False),
)


@dataclass(frozen=True)
class EngineState:
    """Whether an engine works here, and if not, why and what to do."""

    engine: Engine
    works: bool
    version: str | None
    detail: str
    hint: str | None = None


def open_artifact(path: Path) -> BaseRunner:
    """Return a runner, not yet entered, for a file that an engine can run as it is.

    Raises:
        ArtifactError: no engine opens files with that ending.
    """
    opener = OPENERS.get(path.suffix.lower())
    if opener is None:
        raise ArtifactError(f"no engine opens '{path.name}'", hint=f"known endings: {', '.join(OPENERS)}")
    return opener(path)


def engine_states() -> tuple[EngineState, ...]:
    """Return the state of every engine on this machine; each is imported to find out."""
    return tuple(_state(engine) for engine in ENGINES)


def _state(engine: Engine) -> EngineState:
    try:
        module = require(engine.module, extra=engine.extra)
    except MissingDependencyError as error:
        return EngineState(engine, False, None, _absence(engine, error), error.hint)
    except Exception as error:  # noqa: BLE001  a half-installed vendor library may fail in any way while it loads
        return EngineState(engine, False, None, f"importing it fails: {error}", install_line(engine.extra))
    try:
        version: str | None = metadata.version(engine.module)
    except metadata.PackageNotFoundError:  # vendor builds carry other package names
        version = getattr(module, "__version__", None)
    if not engine.supported:
        return EngineState(engine, False, version, "installed, but this version of mggc-edge has no backend for it")
    return EngineState(engine, True, version, _abilities(engine, module))


def _absence(engine: Engine, error: MissingDependencyError) -> str:
    cause = error.__cause__
    missing = isinstance(cause, ModuleNotFoundError) and cause.name == engine.module
    return "not installed" if missing else error.message


def _abilities(engine: Engine, module: object) -> str:
    if engine.name == "onnxruntime":
        providers: list[str] = module.get_available_providers()  # type: ignore[attr-defined]
        return ", ".join(name.removesuffix("ExecutionProvider") for name in providers)
    cuda: bool = module.cuda.is_available()  # type: ignore[attr-defined]
    return "CPU, CUDA" if cuda else "CPU"

"""TensorRT: .engine files, which run on the device that they were built on."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import read_json
from mggc_edge.backends import trt_api, trt_run
from mggc_edge.backends.base import BaseRunner
from mggc_edge.errors import ArtifactError, MggcEdgeError, MissingDependencyError
from mggc_edge.tensors import Array, Feeds, TensorSpec


class TrtRunner(BaseRunner):
    """Runs an engine on the first CUDA device; what the artifact says of itself is read from `<file>.json` beside it.

    Args:
        path: an .engine file.
        graph: replay a CUDA graph, where the library that gives access to the device can record one.

    Attributes:
        remark: why there is no CUDA graph; None where there is one, or nothing has run yet.
    """

    engine = "tensorrt"

    def __init__(self, path: Path, *, graph: bool = True) -> None:
        super().__init__(path.name)
        self._path, self._graph = path, graph
        self._memory: trt_run.Memory | None = None
        self._session: trt_run.Session | None = None

    @property
    def remark(self) -> str | None:
        """Why there is no CUDA graph."""
        return None if self._session is None else self._session.graph_remark

    def _open(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        try:
            plan = self._path.read_bytes()
        except OSError as error:
            raise ArtifactError(f"'{self._path}' cannot be read: {error.strerror or error}") from error
        self.metadata = read_engine_metadata(self._path)
        try:
            loaded = trt_api.TensorRT().load(plan, str(self._path))
            self._memory = trt_run.open_memory()
            self._session = trt_run.Session(loaded, self._memory, graph=self._graph)
        except (trt_api.TensorRTError, trt_run.CudaError) as error:
            raise as_mggc_error(error) from error
        specs = [
            TensorSpec(tensor.name, tensor.dtype, tuple(None if size < 0 else size for size in tensor.shape))
            for tensor in loaded.tensors
        ]
        sides = [tensor.is_input for tensor in loaded.tensors]
        inputs, outputs = (
            tuple(spec for spec, is_input in zip(specs, sides, strict=True) if is_input is side)
            for side in (True, False)
        )
        return inputs, outputs

    def _infer(self, feeds: Feeds) -> dict[str, Array]:
        assert self._session is not None
        try:
            return self._session.infer(feeds)
        except (trt_api.TensorRTError, trt_run.CudaError) as error:
            raise ArtifactError(error.message, error.hint) from error

    def _close(self) -> None:
        session, memory, self._session, self._memory = self._session, self._memory, None, None
        try:
            if session is not None:
                session.close()
            if memory is not None:
                memory.close()
        except trt_run.CudaError as error:  # what failed on the device shows at the next call, whatever that is
            raise ArtifactError(f"'{self._path}' failed on the device: {error.message}") from error


def as_mggc_error(error: trt_api.TensorRTError | trt_run.CudaError) -> MggcEdgeError:
    """Return what TensorRT or CUDA says as an error of this package."""
    missing = isinstance(error, trt_api.TensorRTMissingError | trt_run.CudaError)
    return (MissingDependencyError if missing else ArtifactError)(error.message, error.hint)


def read_engine_metadata(path: Path) -> dict[str, str]:
    """Return the metadata in the facts beside an engine, see `read_engine_facts`."""
    return dict(read_engine_facts(path).get("metadata", {}))


def read_engine_facts(path: Path) -> dict[str, Any]:
    """Return what an engine was built for and by: `device`, `tensorrt`, `metadata`; nothing beside a foreign engine.

    Raises:
        ArtifactError: the facts beside it are damaged, or are those of another engine.
    """
    facts_path = path.with_name(path.name + trt_api.FACTS_SUFFIX)
    with contextlib.suppress(FileNotFoundError):
        facts = read_json(facts_path)
        metadata = facts.get("metadata")
        if facts.get("schema") != trt_api.FACTS_SCHEMA or not isinstance(metadata, dict):
            raise ArtifactError(f"'{facts_path}' holds no facts about an engine", hint="remove it, or build again")
        if facts.get("size_bytes") != path.stat().st_size:
            raise ArtifactError(f"'{facts_path}' is about another engine", hint="remove it, or build again")
        said: dict[str, Any] = {key: str(facts[key]) for key in ("device", "tensorrt") if key in facts}
        return {**said, "metadata": {str(key): str(value) for key, value in metadata.items()}}
    return {}


def tensorrt_ability() -> str:
    """Return what TensorRT can use here, for `doctor`.

    Raises:
        MissingDependencyError: TensorRT, the driver, a device, or access to its memory is not there.
    """
    try:
        library = trt_api.TensorRT()
        library.check_device()
        memory = trt_run.open_memory()
        device, through = memory.device, memory.library
        memory.close()
    except (trt_api.TensorRTError, trt_run.CudaError) as error:
        raise as_mggc_error(error) from error
    return f"{device}, through {through}, networks {'typed' if library.typed else 'with hints'}"

"""Build a TensorRT engine on the machine at hand, and prove that it gives what its ONNX file gives.

The same calls, on a board without this package, are in `bundle/build.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mggc_edge.artifacts import EngineArtifact, OnnxArtifact, atomic_write, sha256_of
from mggc_edge.backends import trt_api, trt_run
from mggc_edge.backends.base import Runner
from mggc_edge.backends.tensorrt import TrtRunner, as_mggc_error, tensorrt_ability
from mggc_edge.errors import MissingDependencyError
from mggc_edge.quality.parity import ParityReport, check_parity
from mggc_edge.tensors import Array


def engine_refusal() -> str | None:
    """Return why no engine can be built here; None where one can."""
    try:
        tensorrt_ability()
    except MissingDependencyError as error:
        return error.message
    return None


def build_engine(
    source: OnnxArtifact,
    path: Path,
    options: trt_api.BuildOptions,
    reference: Runner,
    pictures: Sequence[Array],
    *,
    min_psnr: float,
    data_range: float,
) -> tuple[EngineArtifact, ParityReport]:
    """Build the engine `path` of an ONNX file for the first CUDA device, with its facts beside it.

    Args:
        source: the file.
        path: of the .engine file; TensorRT's timings are kept in its folder.
        options: see `BuildOptions`.
        reference: entered runner of the same network in float32.
        pictures: that both are fed with.
        min_psnr: smallest PSNR to the reference, in dB.
        data_range: difference of the largest and the smallest possible output value.

    Raises:
        MissingDependencyError: TensorRT, a driver, or a device is not there.
        ArtifactError: TensorRT does not understand the file, or cannot build it.
        CheckFailedError: the engine gives other pictures; it is removed again.
        OutputError: it cannot be written.
    """
    try:
        library = trt_api.TensorRT()
        library.check_device()
        memory = trt_run.open_memory()
        device = memory.device
        memory.close()
        cache = trt_api.timing_cache_file(path.parent, device, library.version)
        built = library.build(source.path, options, cache)
        facts = trt_api.engine_facts(
            built, library.load(built.plan, path.name), device, source.precision, reference.metadata
        )
    except (trt_api.TensorRTError, trt_run.CudaError) as error:
        raise as_mggc_error(error) from error
    facts |= {"onnx": source.path.name, "onnx_sha256": source.sha256}
    beside = path.with_name(path.name + trt_api.FACTS_SUFFIX)
    atomic_write(path, built.plan)
    atomic_write(beside, json.dumps(facts, indent=1).encode())
    try:
        with TrtRunner(path) as runner:
            parity = check_parity(reference, runner, pictures, atol=None, min_psnr=min_psnr, data_range=data_range)
        parity.check(f"the engine '{path.name}' gives other pictures than its network")
    except BaseException:
        path.unlink(missing_ok=True)
        beside.unlink(missing_ok=True)
        raise
    atomic_write(beside, json.dumps({**facts, "parity": parity.to_json()}, indent=1).encode())
    artifact = EngineArtifact(
        path, sha256_of(path), len(built.plan), source.precision, source.sha256, device, library.version
    )
    return artifact, parity

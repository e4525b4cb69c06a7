"""Runs that are made to see where the time goes: in processes of their own, after all timed ones have ended."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from statistics import median

from mggc_edge.backends.onnxruntime import provider_name
from mggc_edge.benchmarks.devices.base import Device
from mggc_edge.benchmarks.devices.local import LocalDevice
from mggc_edge.benchmarks.isolation import open_request
from mggc_edge.benchmarks.profile_nodes import read_nodes
from mggc_edge.benchmarks.profile_table import Peak, Profile
from mggc_edge.benchmarks.workload import MAX_THREADS, Workload
from mggc_edge.errors import ArtifactError, InputError

SECONDS = 2.0  # of the runs that are counted; the warm-up is two parts of them
PARTS = 5  # of these runs
LEAST_RUNS, MOST_RUNS = 2, 12  # of a part
PEAK_SECONDS = 1.0  # a model; the best run counts
BLOCK = 1  # all on the same cores
WARM = {"do": "warm", "min_runs": 2, "min_ns": 0, "max_ns": 0}  # after which the threads have cores of their own
LEAST_PEAK_RUNS, MOST_PEAK_RUNS = 10, 200
COPIED_BYTES = 2**26  # larger than the caches of most processors
COPIES = 10


def check_profiled(models: Sequence[Workload]) -> None:
    """Check that where the time of these models goes can be seen.

    Raises:
        InputError: one of them runs on a device whose times the processor does not see.
    """
    for model in models:
        if model.runtime == "tensorrt":
            raise InputError(
                f"'{model.name}' cannot be profiled: the layers of a TensorRT engine are not timed here",
                hint="trtexec --loadEngine=FILE --dumpProfile times them on the device",
            )
        if provider_name(model.provider) != provider_name("cpu"):
            raise InputError(
                f"'{model.name}' cannot be profiled on '{model.provider}': what ONNX Runtime counts there is how long "
                "it takes to start work, not the work",
                hint="leave out --profile, or the provider",
            )


def profile(
    model: Workload,
    *,
    threads: int,
    macs: Mapping[str, tuple[str, int]] | None = None,
    peak: Peak | None = None,
    seed: int = 0,
    max_seconds: float = 600.0,
    device: Device | None = None,
) -> Profile:
    """See where the time of a model goes, in a fresh process.

    Args:
        model: on the processor.
        threads: threads inside an operator.
        macs: convolution of the file -> (ONNX operator, MACs); None where not known.
        peak: of this machine, by the model's engine and in its precision.
        seed: of what is fed.
        max_seconds: how long the process may take for an answer.
        device: where, entered; None: this machine.

    Raises:
        InputError: the model cannot be profiled, or see `mggc_edge.benchmarks.harness.measure`.
        ArtifactError: it cannot be run, or its engine gives no times.
        MissingDependencyError: the engine is not installed here.
    """
    check_profiled([model])
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(LocalDevice()) if device is None else device
        (place,) = device.prepare([model])
        worker = device.start(model)
        stack.callback(worker.end)
        opened = worker.ask(
            {**open_request(model, place, threads, seed, block=BLOCK), "profile": device.notes("profile")}, max_seconds
        )
        took = min(opened["first_ns"], worker.ask(WARM, max_seconds)["median_ns"])
        runs = _runs(SECONDS / PARTS, took, LEAST_RUNS, MOST_RUNS)
        answer = worker.ask({"do": "profile", "parts": PARTS, "runs": runs, "untimed": 2 * runs}, max_seconds)
        worker.ask({"do": "close"}, max_seconds)
        try:
            nodes = read_nodes(device.fetch(PurePosixPath(answer["file"]).name), PARTS * runs)
        except ArtifactError as error:
            raise ArtifactError(f"'{model.name}' cannot be profiled: {error.message}", error.hint) from error
    return Profile(model.name, PARTS * runs, median(answer["samples_ns"]) / 1e6, nodes, macs, peak)


def peak_macs(
    models: Sequence[tuple[Workload, int]],
    *,
    threads: int,
    max_seconds: float = 600.0,
    device: Device | None = None,
) -> float:
    """Return the most multiplications a second that an engine was seen to do.

    Args:
        models: models that do little else, with their MACs; each is measured in a fresh process.
        threads, max_seconds, device: as of `profile`.

    Raises:
        InputError, ArtifactError, MissingDependencyError: as of `profile`.
    """
    best, device = 0.0, LocalDevice() if device is None else device
    for (model, macs), place in zip(models, device.prepare([model for model, _ in models]), strict=True):
        with contextlib.ExitStack() as stack:
            worker = device.start(model)
            stack.callback(worker.end)
            worker.ask(open_request(model, place, threads, 0, block=BLOCK), max_seconds)
            warm = worker.ask(WARM, max_seconds)
            runs = _runs(PEAK_SECONDS, warm["median_ns"], LEAST_PEAK_RUNS, MOST_PEAK_RUNS)
            answer = worker.ask({"do": "sample", "runs": runs, "untimed": 0}, max_seconds)
            worker.ask({"do": "close"}, max_seconds)
            best = max(best, macs / (max(1, min(answer["samples_ns"])) / 1e9))
    return best


def memory_bandwidth(
    model: Workload,
    *,
    threads: int,
    max_seconds: float = 600.0,
    device: Device | None = None,
    size_bytes: int = COPIED_BYTES,
) -> float:
    """Return the bytes a second that so many threads read and write while they copy a large array, the best of several.

    Args:
        model: what is measured otherwise; errors name it.
        threads, max_seconds, device: as of `profile`.
        size_bytes: of the array.

    Raises:
        InputError: so many threads cannot be.
        ArtifactError, MissingDependencyError: as of `profile`.
    """
    if not 1 <= threads <= MAX_THREADS:
        raise InputError(f"the number of threads must be between 1 and {MAX_THREADS:,}, not {threads}")
    with contextlib.ExitStack() as stack:
        worker = (LocalDevice() if device is None else device).start(model)
        stack.callback(worker.end)
        request = {"do": "copy", "threads": threads, "bytes": size_bytes, "copies": COPIES}
        best: int = worker.ask(request, max_seconds)["best_ns"]
    return 2 * size_bytes / (max(1, best) / 1e9)


def _runs(seconds: float, took_ns: float, least: int, most: int) -> int:
    return min(most, max(least, math.ceil(seconds * 1e9 / max(1, took_ns))))

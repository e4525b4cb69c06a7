"""Runs that are made to see where the time goes: in processes of their own, after all timed ones have ended."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np

from mggc_edge.backends.onnxruntime import provider_name
from mggc_edge.benchmarks.isolation import Worker, open_request, start_worker
from mggc_edge.benchmarks.profile_nodes import read_nodes
from mggc_edge.benchmarks.profile_table import Peak, Profile
from mggc_edge.benchmarks.workload import MAX_THREADS, Workload
from mggc_edge.errors import ArtifactError, InputError

SECONDS = 2.0  # of the runs that are counted; the warm-up is two parts of them
PARTS = 5  # of these runs
LEAST_RUNS, MOST_RUNS = 2, 12  # of a part
PEAK_SECONDS = 1.0  # a model; the best run counts
LEAST_PEAK_RUNS, MOST_PEAK_RUNS = 10, 200
COPIED_BYTES = 2**26  # larger than the caches of most processors
COPIES = 10


def check_profiled(models: Sequence[Workload]) -> None:
    """Check that where the time of these models goes can be seen.

    Raises:
        InputError: one of them runs on a device whose times the processor does not see.
    """
    for model in models:
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
    start: Callable[[Workload], Worker] = start_worker,
) -> Profile:
    """See where the time of a model goes, in a fresh process.

    Args:
        model: on the processor.
        threads: threads inside an operator.
        macs: convolution of the file -> (ONNX operator, MACs); None where not known.
        peak: of this machine, by the model's engine and in its precision.
        seed: of what is fed.
        max_seconds: how long the process may take for an answer.
        start: how a process is started; for tests.

    Raises:
        InputError: the model cannot be profiled, or see `mggc_edge.benchmarks.harness.measure`.
        ArtifactError: it cannot be run, or its engine gives no times.
        MissingDependencyError: the engine is not installed here.
    """
    check_profiled([model])
    with tempfile.TemporaryDirectory(prefix="mggc-edge-") as folder, contextlib.ExitStack() as stack:
        worker = start(model)
        stack.callback(worker.end)
        opened = worker.ask(
            {**open_request(model, threads, seed), "profile": str(Path(folder) / "profile")}, max_seconds
        )
        second = worker.ask({"do": "sample", "runs": 1, "untimed": 0}, max_seconds)  # the first one warms up
        took = min(opened["first_ns"], *second["samples_ns"])
        runs = _runs(SECONDS / PARTS, took, LEAST_RUNS, MOST_RUNS)
        answer = worker.ask({"do": "profile", "parts": PARTS, "runs": runs, "untimed": 2 * runs}, max_seconds)
        worker.ask({"do": "close"}, max_seconds)
        try:
            nodes = read_nodes(Path(answer["file"]), PARTS * runs)
        except ArtifactError as error:
            raise ArtifactError(f"'{model.name}' cannot be profiled: {error.message}", error.hint) from error
    return Profile(model.name, PARTS * runs, median(answer["samples_ns"]) / 1e6, nodes, macs, peak)


def peak_macs(
    models: Sequence[tuple[Workload, int]],
    *,
    threads: int,
    max_seconds: float = 600.0,
    start: Callable[[Workload], Worker] = start_worker,
) -> float:
    """Return the most multiplications a second that an engine was seen to do.

    Args:
        models: models that do little else, with their MACs; each is measured in a fresh process.
        threads, max_seconds, start: as of `profile`.

    Raises:
        InputError, ArtifactError, MissingDependencyError: as of `profile`.
    """
    best = 0.0
    for model, macs in models:
        with contextlib.ExitStack() as stack:
            worker = start(model)
            stack.callback(worker.end)
            worker.ask(open_request(model, threads, 0), max_seconds)
            second = worker.ask({"do": "sample", "runs": 1, "untimed": 0}, max_seconds)
            runs = _runs(PEAK_SECONDS, second["samples_ns"][0], LEAST_PEAK_RUNS, MOST_PEAK_RUNS)
            answer = worker.ask({"do": "sample", "runs": runs, "untimed": 0}, max_seconds)
            worker.ask({"do": "close"}, max_seconds)
            best = max(best, macs / (max(1, min(answer["samples_ns"])) / 1e9))
    return best


def memory_bandwidth(threads: int, *, size_bytes: int = COPIED_BYTES) -> float:
    """Return the bytes a second that so many threads read and write while they copy a large array, the best of several.

    Raises:
        InputError: so many threads cannot be.
    """
    if not 1 <= threads <= MAX_THREADS:
        raise InputError(f"the number of threads must be between 1 and {MAX_THREADS:,}, not {threads}")
    source, target = (np.ones(size_bytes, np.uint8) for _ in range(2))
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    best = math.inf
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(COPIES + 1):  # the first one starts the threads
            began = time.perf_counter()
            list(pool.map(lambda part: np.copyto(*part), parts))  # which lets go of the interpreter
            best = min(best, time.perf_counter() - began)
    return 2 * size_bytes / max(best, 1e-9)


def _runs(seconds: float, took_ns: int, least: int, most: int) -> int:
    return min(most, max(least, math.ceil(seconds * 1e9 / max(1, took_ns))))

"""A measurement that takes no time: latencies follow from the files' names, with the noise of a quiet machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mggc_edge.benchmarks.disturbance import Noted
from mggc_edge.benchmarks.report import BenchmarkReport, ModelRun
from mggc_edge.benchmarks.samples import ProcessSamples
from mggc_edge.benchmarks.workload import Workload

MS = 1e6
CONTEXT: dict[str, Any] = {
    "device": "x86",
    "cpu": {"model": "Xeon", "cores": 2},
    "versions": {"onnxruntime": "1.31.1"},
    "created": "2026-01-02T03:04:05+00:00",
    "seconds": 12.0,
}


class Measure:
    """Stands for `harness.measure`.

    Args:
        latency_ms: of a file.
        spread: of the noise of a sample, as a fraction.
        warnings: codes, by the number of the call.
        warned: files that have them.
        shape: of what is fed, by file.
        error: is raised by the second call, after it kept one of its pairs.
    """

    def __init__(
        self,
        latency_ms: Callable[[Path], float],
        *,
        spread: float = 0.002,
        warnings: Sequence[tuple[str, ...]] = ((), ()),
        warned: Callable[[Path], bool] = lambda _: True,
        shape: Callable[[Path], list[int]] = lambda _: [1, 3, 16, 16],
        error: BaseException | None = None,
    ) -> None:
        self.calls: list[dict[str, Any]] = []
        self.names: list[list[str]] = []
        self._latency_ms, self._spread, self._warnings, self._shape = latency_ms, spread, warnings, shape
        self._error, self._warned = error, warned

    def __call__(self, models: Sequence[Workload], **words: Any) -> BenchmarkReport:
        number = len(self.calls)
        self.calls.append(words)
        self.names.append([model.name for model in models])
        if self._error is not None and number == len(self._warnings) - 1:
            words["keep"](self._report(models, {**words, "pairs": 1}, (), complete=False))
            raise self._error
        return self._report(models, words, self._warnings[number % len(self._warnings)], complete=True)

    def _report(
        self, models: Sequence[Workload], words: dict[str, Any], warnings: tuple[str, ...], *, complete: bool
    ) -> BenchmarkReport:
        pairs, rng = words["pairs"], np.random.default_rng(words["seed"])
        blocks = [len(part) for part in np.array_split(np.arange(pairs), min(pairs, words["processes"]))]
        runs = tuple(self._run(model, blocks, rng, warnings if self._warned(model.path) else ()) for model in models)
        return BenchmarkReport({**CONTEXT, "pairs": pairs}, runs, words["margin"], complete=complete)

    def _run(
        self, model: Workload, blocks: Sequence[int], rng: np.random.Generator, warnings: tuple[str, ...]
    ) -> ModelRun:
        latency = self._latency_ms(model.path) * MS
        processes = tuple(
            ProcessSamples(
                4_000_000, 3_000_000, 10, 2_000_000_000, True,
                tuple((int(latency * np.exp(self._spread * rng.standard_normal())),) for _ in range(pairs)),
                1000, 5000, tuple(Noted(int(latency)) for _ in range(pairs)),
            )
            for pairs in blocks
        )  # fmt: skip
        inputs = ({"name": "x", "dtype": "float32", "shape": self._shape(model.path)},)
        size = model.path.stat().st_size
        return ModelRun(model, "0" * 64, size, "CPUExecutionProvider", 2, 1, inputs, processes, warnings)

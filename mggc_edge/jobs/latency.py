"""Latency of a run: the fastest file of the original against the fastest accepted one of the compressed generator.

Both sides are treated alike: all of their files for this machine take part, the original's in float32. Where there are
more than can be measured together, a short measurement says which are worth a long one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mggc_edge.artifacts import PORTABLE
from mggc_edge.backends.onnxruntime import ONNX_RUNTIME
from mggc_edge.backends.registry import RUNTIMES
from mggc_edge.benchmarks.extent import Extent
from mggc_edge.benchmarks.harness import Progress, measure
from mggc_edge.benchmarks.remarks import disturbing
from mggc_edge.benchmarks.report import BenchmarkReport
from mggc_edge.benchmarks.workload import MAX_MODELS, Workload
from mggc_edge.benchmarks.workload import RUNTIMES as MEASURED
from mggc_edge.compiler.runtimes import TENSORRT
from mggc_edge.compiler.targets import this_target
from mggc_edge.jobs.exports import Exports, is_original
from mggc_edge.models.cost import macs
from mggc_edge.models.layers import LayerTable

SIDES = ("original", "compressed")
SHORT = 0.25  # of a measurement that says which files are worth one


def candidates(folder: Path, exports: Exports, tables: Mapping[str, LayerTable]) -> dict[str, list[Workload]]:
    """Return the files of a run that this machine can be expected to be fast with, by side.

    They are those for this machine's target, and TensorRT's engines where they could be built here.

    Args:
        folder: of the run.
        exports: its files.
        tables: of both networks, for their multiplications.
    """
    rows = [row for row in exports.artifacts if row["accepted"] and row["runtime"] in MEASURED]
    rows = [row for row in rows if Path(row["path"]).suffix == RUNTIMES[row["runtime"]].ending]  # an engine was built
    target = this_target() if any(row["target"] == this_target() for row in rows) else PORTABLE
    found: dict[str, list[Workload]] = {side: [] for side in SIDES}
    for row in rows:
        side = SIDES[0] if is_original(row) else SIDES[1]
        if row["target"] != target and row["runtime"] != TENSORRT:
            continue
        if side == SIDES[0] and row["precision"] != "fp32":
            continue
        found[side].append(
            Workload(
                side,
                folder / row["path"],
                runtime=row["runtime"],
                precision=row["precision"],
                macs_true=macs(tables[side], "true"),
                macs_paper=macs(tables[side], "paper"),
            )
        )
    return {side: _named(models) for side, models in found.items()}


def _named(models: Sequence[Workload]) -> list[Workload]:
    """Return the models of a side with names of their own: what a usual one would not be is in them."""
    usual = models[0].precision if models else ""
    named = []
    for model in models:
        words = [word for word, plain in ((model.runtime, ONNX_RUNTIME), (model.precision, usual)) if word != plain]
        named.append(replace(model, name=" ".join([model.name, *words])))
    return named


def measure_fastest(
    sides: Mapping[str, Sequence[Workload]], extent: Extent, *, seed: int, progress: Progress | None = None
) -> BenchmarkReport:
    """Measure the files of both sides; return the fastest original, then the fastest compressed, then the others.

    What is said of latency is said of the first two. Others may be the fastest where a file was disturbed so much that
    its latency says nothing: then that of the first two is no verdict either.

    Raises:
        ArtifactError: a file cannot be run, or there is not the time for one pair.
    """
    models = [model for side in SIDES for model in sides[side]]
    if len(models) > MAX_MODELS:
        models = _worth(sides, extent, seed)
    report = measure(models, **extent.arguments(), seed=seed, progress=progress)
    names = {side: {model.name for model in sides[side]} for side in SIDES}
    runs = sorted(report.runs, key=lambda run: run.p50_ms)
    first, second = (next(run for run in runs if run.model.name in names[side]) for side in SIDES)
    others = [run for run in runs if run not in (first, second)]
    disturbed = disturbing(code for run in others for code in run.warnings)
    first = replace(first, warnings=tuple(sorted({*first.warnings, *disturbed})))
    return replace(report, runs=(first, second, *others))


def _worth(sides: Mapping[str, Sequence[Workload]], extent: Extent, seed: int) -> list[Workload]:
    """Return the fastest original and the fastest others, as many as can be measured together."""
    short = extent.part(SHORT)
    p50: dict[str, float] = {}
    for models in sides.values():
        for start in range(0, len(models), MAX_MODELS):
            report = measure(models[start : start + MAX_MODELS], **short.arguments(), seed=seed)
            p50 |= {run.model.name: run.p50_ms for run in report.runs}
    best = [min(sides[side], key=lambda model: p50[model.name]) for side in SIDES]
    rest = [model for side in SIDES for model in sides[side] if model not in best]
    return [*best, *sorted(rest, key=lambda model: p50[model.name])][:MAX_MODELS]

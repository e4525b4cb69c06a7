"""The JSON of github-action-benchmark's tool `customSmallerIsBetter`: [{name, unit, value, range, extra}]."""

from __future__ import annotations

import json
from typing import Any

from mggc_edge.benchmarks.report import BenchmarkReport, ModelRun
from mggc_edge.errors import counted, printable


def benchmark_action(report: BenchmarkReport) -> str:
    """Return the document of a report: the latency of every model, its MACs and the size of its file."""
    entries = [entry for run in report.runs for entry in _entries(run)]
    return json.dumps(entries, indent=2, allow_nan=False) + "\n"


def _entries(run: ModelRun) -> list[dict[str, Any]]:
    name = printable(run.model.name)
    latency: dict[str, Any] = {"name": f"{name}: latency", "unit": "ms", "value": run.p50_ms}
    if run.ci95_ms is not None:
        latency["range"] = f"\u00b1 {(run.ci95_ms[1] - run.ci95_ms[0]) / 2:.3g}"
    processes = len(run.processes)
    latency["extra"] = (
        f"median of {counted(len(run.used_ns), 'sample')} in {processes} process{'es' * (processes != 1)}\n"
        f"{run.model.runtime} {run.model.precision}, {counted(run.threads, 'thread')}"
    )
    entries = [latency]
    if run.model.macs_true is not None:
        entries.append({"name": f"{name}: MACs", "unit": "MACs", "value": run.model.macs_true})
    entries.append({"name": f"{name}: file size", "unit": "bytes", "value": run.size_bytes})
    return entries

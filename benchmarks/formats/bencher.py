"""Bencher's Metric Format: {benchmark: {measure: {value, lower_value, upper_value}}}.

`latency` in nanoseconds, `throughput` in operations a second and `file-size` in bytes are measures that Bencher has;
`macs` and `peak-memory` are made by it when they first come.
"""

from __future__ import annotations

import json
from typing import Any

from mggc_edge.benchmarks.report import BenchmarkReport, ModelRun
from mggc_edge.errors import printable

MOST_NAME = 1024  # characters


def bencher(report: BenchmarkReport) -> str:
    """Return the document of a report; the bounds of the latency are its 95 % interval."""
    found = {printable(run.model.name)[:MOST_NAME]: _measures(run) for run in report.runs}
    return json.dumps(found, indent=2, allow_nan=False) + "\n"


def _measures(run: ModelRun) -> dict[str, Any]:
    latency: dict[str, float] = {"value": run.p50_ms * 1e6}
    if run.ci95_ms is not None:
        latency |= {"lower_value": run.ci95_ms[0] * 1e6, "upper_value": run.ci95_ms[1] * 1e6}
    others = {
        "throughput": run.pictures_per_second,
        "file-size": run.size_bytes,
        "macs": run.model.macs_true,
        "peak-memory": run.rss_peak_bytes,
    }
    return {"latency": latency} | {name: {"value": float(n)} for name, n in others.items() if n is not None}

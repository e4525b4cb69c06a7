"""What a measurement says of latency, and how a new one takes the place of a run's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import BENCH_FILE, MANIFEST_FILE, read_manifest, renew_entry, write_json
from mggc_edge.errors import ArtifactError
from mggc_edge.report.page import build_report


def latency_summary(bench: Mapping[str, Any], artifacts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a measurement says of latency: the verdict goes by `ci99`, and by `warnings` that forbid one.

    `artifacts`: the run's entries, among which the measured files are found by their hashes.
    """
    original, compressed = bench["runs"][:2]
    comparison = bench["comparisons"][0]
    sha256 = [model.get("sha256") for model in bench.get("models", [])][1:2]
    file = next((row for row in artifacts if row.get("sha256") in sha256), {})
    return {
        "device": bench["context"]["device"],
        "runtime": compressed["runtime"],
        "precision": compressed["precision"],
        "original_runtime": original["runtime"],
        "target": file.get("target"),
        "path": file.get("path"),
        "original_ms": original["latency_ms"]["p50"],
        "compressed_ms": compressed["latency_ms"]["p50"],
        "speedup": comparison["ratio"],
        "ci95": comparison["ci95"],
        "ci99": comparison["ci99"],
        "realisation": comparison["realisation"],
        "verdict": comparison["verdict"],
        "reason": comparison.get("reason"),  # a bench.json of an older version has no reason, and codes alone
        "warnings": comparison.get("warnings", []),
        "disturbed": comparison.get("disturbed", []),
        "pairs_left_out": comparison.get("pairs_left_out", 0),
    }


def check_renewable(run: Path) -> None:
    """Raise ArtifactError where a run is not a finished one of `compress`."""
    manifest = read_manifest(run)
    result = manifest.get("result")
    if not manifest.get("complete") or not isinstance(result, dict) or "latency" not in result:
        raise ArtifactError(f"'{run}' is no finished run of `compress`, and takes no new measurement")


def renew_latency(run: Path, bench: Mapping[str, Any]) -> None:
    """Write a measurement of a finished run's two generators into it: bench.json, the manifest, and report.html.

    Args:
        bench: as `BenchmarkReport.to_json`, the original first.

    Raises:
        ArtifactError: the run is not a finished one of `compress`.
        OutputError: a file cannot be written.
    """
    check_renewable(run)
    path = run / BENCH_FILE
    write_json(path, bench)
    renew_entry(run, path)
    manifest = read_manifest(run)
    result = manifest["result"]
    latency = latency_summary(bench, result.get("artifacts", []))
    write_json(run / MANIFEST_FILE, {**manifest, "result": {**result, "latency": latency}})
    renew_entry(run, build_report(run))

"""What dashboards read: Bencher's metrics, and the JSON of github-action-benchmark."""

from __future__ import annotations

import json
from typing import Any

from mggc_edge.benchmarks.formats.bencher import bencher
from mggc_edge.benchmarks.formats.benchmark_action import benchmark_action
from mggc_edge.benchmarks.report import BenchmarkReport
from tests.benchmarks.bench_helpers import run_of

MS = 1_000_000


def report(processes: int = 2) -> BenchmarkReport:
    runs = (
        run_of("original", [[[20 * MS]], [[21 * MS]]][:processes], macs=600),
        run_of("com,pressed\n", [[[10 * MS]], [[10 * MS]]][:processes]),
    )
    return BenchmarkReport({}, runs, 0.05)


def test_bencher_gets_nanoseconds_with_the_interval_and_facts() -> None:
    document: dict[str, Any] = json.loads(bencher(report()))
    assert list(document) == ["original", "com,pressed\\n"]
    latency = document["original"]["latency"]
    assert latency["lower_value"] < latency["value"] == 20.5 * MS < latency["upper_value"]
    assert {name: measure["value"] for name, measure in document["original"].items() if name != "latency"} == {
        "throughput": 1000 / 20.5, "file-size": 7.0, "macs": 600.0, "peak-memory": 5001.0,
    }  # fmt: skip
    assert "macs" not in document["com,pressed\\n"]
    for measures in document.values():  # the schema of the format
        for measure in measures.values():
            assert set(measure) <= {"value", "lower_value", "upper_value"}
            assert all(isinstance(value, float) for value in measure.values())


def test_a_single_process_has_no_bounds() -> None:
    assert json.loads(bencher(report(1)))["original"]["latency"] == {"value": 20.0 * MS}
    assert "range" not in json.loads(benchmark_action(report(1)))[0]


def test_github_action_benchmark_gets_what_is_better_when_smaller() -> None:
    document = json.loads(benchmark_action(report()))
    assert [(entry["name"], entry["unit"], entry["value"]) for entry in document] == [
        ("original: latency", "ms", 20.5),
        ("original: MACs", "MACs", 600),
        ("original: file size", "bytes", 7),
        ("com,pressed\\n: latency", "ms", 10.0),
        ("com,pressed\\n: file size", "bytes", 7),
    ]
    assert document[0]["range"].startswith("\u00b1 ")
    assert document[0]["extra"] == "median of 2 samples in 2 processes\nonnxruntime fp32, 2 threads"
    assert len({entry["name"] for entry in document}) == len(document)  # a name is a curve

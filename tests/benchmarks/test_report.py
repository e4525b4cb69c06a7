"""The report of a measurement: its JSON document key by key, and comparisons."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from mggc_edge.benchmarks.gate import Limits, judge
from mggc_edge.benchmarks.remarks import WARNINGS, remark_json
from mggc_edge.benchmarks.report import BenchmarkReport, ModelRun
from mggc_edge.benchmarks.stats import compare
from mggc_edge.errors import InputError
from tests.benchmarks.bench_helpers import run_of

MS = 1_000_000
A = [[[40 * MS, 44 * MS, 42 * MS], [40 * MS, 40 * MS, 90 * MS]], [[44 * MS] * 3, [44 * MS] * 3]]
B = [[[20 * MS] * 3, [22 * MS] * 3], [[20 * MS] * 3, [22 * MS] * 3]]


def report(**changes: object) -> BenchmarkReport:
    runs = (run_of("a", A, macs=600), run_of("b", B, macs=100, **changes))
    return BenchmarkReport({"device": "x86"}, runs, 0.05)


def test_the_document_has_the_keys_that_were_promised() -> None:
    document = report().to_json()
    assert list(document) == [
        "schema", "complete", "context", "models", "runs", "comparisons", "warnings", "control", "gate",
    ]  # fmt: skip
    assert document["schema"] == "mggc-edge/bench/1"
    assert document["context"] == {"device": "x86"}
    assert document["models"][1] == {
        "name": "b",
        "path": "b.onnx",
        "sha256": "0" * 64,
        "size_bytes": 7,
        "macs_true": 100,
        "macs_paper": 100,
    }
    assert document["gate"] == {"threshold": None, "verdict": None, "exit_code": 0}
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_a_run_holds_every_sample_and_their_summary() -> None:
    run = report().to_json()["runs"][0]
    interval = run["latency_ms"].pop("ci95")
    processes = run.pop("processes")
    assert run == {
        "model": "a",
        "runtime": "onnxruntime",
        "provider": "CPUExecutionProvider",
        "precision": "fp32",
        "threads": 2,
        "inputs": [{"name": "x", "dtype": "float32", "shape": [1, 3, 16, 16]}],
        "warmup": {"runs": 20, "seconds": 4.0, "settled": True},
        "runs_per_pair": 3,
        "samples_ns": [value * MS for value in (40, 44, 42, 40, 40, 90, 44, 44, 44, 44, 44, 44)],
        "latency_ms": {
            "p50": 44.0,
            "p90": pytest.approx(44.0),
            "mean": pytest.approx(560 / 12),
            "mad": 0.0,
            "p50_ci95": [40.0, 44.0],  # the third and the tenth of twelve samples
            "p90_ci95": None,
            "p95": None,
            "p95_ci95": None,
            "p99": None,
            "p99_ci95": None,
        },
        "pictures_per_second": pytest.approx(1000 / 44),
        "load_ms": 4.0,
        "first_inference_ms": 3.0,
        "memory": {"rss_peak_bytes": 5001, "pool_bytes": None, "device_bytes": None},
        "power": None,
        "macs_true": 600,
        "macs_paper": 600,
        "warnings": [],
    }
    # The processes' medians are 41 and 44 ms; Student's t of one degree of freedom is 12.706.
    half = 12.7062047 * math.log(44 / 41) / 2
    assert interval == pytest.approx([math.sqrt(41 * 44) * math.exp(sign * half) for sign in (-1, 1)])
    assert processes[1] == {
        "load_ms": 4.0,
        "first_inference_ms": 3.0,
        "warmup": {"runs": 10, "seconds": 2.0, "settled": True},
        "pairs": 2,
        "rss_before_bytes": 1000,
        "rss_peak_bytes": 5001,
        "left_out": [],
        "throttled": [],
        "cores": None,
        "wall_ns": [],
        "cpu_ns": [],
        "involuntary_switches": [],
        "waited_ns": [],
        "suspended_ns": [],
    }


def test_a_comparison_is_of_pairs_within_processes() -> None:
    (entry,) = report().to_json()["comparisons"]
    alone = compare([[(42, 20), (40, 22)], [(44, 20), (44, 22)]], 0.05)
    assert set(entry) == {
        "a", "b", "ratio", "ci95", "ci99", "verdict", "margin", "minimum_detectable_effect", "macs_ratio",
        "realisation", "pairs", "pairs_left_out", "pairs_throttled", "processes", "reason", "disturbed", "warnings",
        "level", "interval",
    }  # fmt: skip
    assert alone.ci95 is not None
    assert alone.ci99 is not None
    assert entry["ratio"] == pytest.approx(alone.value)
    assert entry["ci95"] == pytest.approx(list(alone.ci95))
    assert entry["ci99"] == entry["interval"] == pytest.approx(list(alone.ci99))
    assert entry["level"] == 0.99
    assert (entry["verdict"], entry["macs_ratio"]) == ("inconclusive", 6.0)
    assert entry["realisation"] == pytest.approx(alone.value / 6)
    assert (entry["pairs"], entry["processes"], entry["margin"]) == (4, 2, 0.05)
    assert (entry["pairs_left_out"], entry["disturbed"], entry["warnings"]) == (0, [], [])
    assert entry["reason"] == "the 99 % interval is too wide"


def test_what_is_not_known_is_null() -> None:
    alone = BenchmarkReport({}, (run_of("a", [[[5]]]), run_of("b", [[[5]]], macs=0)), 0.05)
    (entry,) = alone.to_json()["comparisons"]
    assert (entry["ci95"], entry["ci99"], entry["minimum_detectable_effect"]) == (None, None, None)
    assert (entry["macs_ratio"], entry["realisation"], entry["verdict"]) == (None, None, "inconclusive")
    assert entry["reason"] == "a single process of each was measured"
    assert alone.to_json()["runs"][0]["latency_ms"]["ci95"] is None


def test_a_single_model_is_compared_with_nothing() -> None:
    assert BenchmarkReport({}, (run_of("a", A),), 0.05).to_json()["comparisons"] == []


def test_any_two_models_can_be_compared() -> None:
    there, back = report().comparison("a", "b"), report().comparison("b", "a")
    assert there.ratio.value == pytest.approx(1 / back.ratio.value)
    assert back.macs_ratio == pytest.approx(1 / 6)


def test_a_model_that_was_not_measured_is_refused() -> None:
    with pytest.raises(InputError, match="no model 'c' was measured") as caught:
        report().comparison("a", "c")
    assert caught.value.hint == "a, b"


def test_warnings_are_named_once() -> None:
    found = report(warnings=("load", "unsettled"))
    assert found.warnings == ("load", "unsettled")
    assert [remark["code"] for remark in found.to_json()["warnings"]] == ["load", "unsettled"]


@pytest.mark.parametrize("code", ["load", "preempted"])
@pytest.mark.parametrize("side", ["a", "b"])
def test_a_warning_that_either_side_was_disturbed_forbids_the_verdict(code: str, side: str) -> None:
    def runs(codes: tuple[str, ...]) -> BenchmarkReport:
        sides = {"a": 80, "b": 20}
        return BenchmarkReport(
            {},
            tuple(
                run_of(name, [[[ms * MS]]] * 5, warnings=codes if name == side else ()) for name, ms in sides.items()
            ),
            0.05,
        )

    (clear,), (entry,) = runs(("unsettled",)).to_json()["comparisons"], runs((code,)).to_json()["comparisons"]
    assert (clear["verdict"], clear["reason"], clear["disturbed"]) == ("faster", None, [])
    assert (entry["verdict"], entry["reason"], entry["disturbed"]) == ("inconclusive", WARNINGS[code].text, [code])
    assert entry["warnings"] == [remark_json(code)]
    assert entry["ci99"] == clear["ci99"] == pytest.approx([4.0, 4.0])


def stolen(codes: tuple[str, ...], b: list[int]) -> BenchmarkReport:
    """A model that takes 10 ms, and one that takes so many ms, in inference after inference; in five processes."""
    sides = {"a": [10] * len(b), "b": b}
    runs = (run_of(name, [[[ms * MS for ms in side]]] * 5, warnings=codes) for name, side in sides.items())
    return BenchmarkReport({}, tuple(runs), 0.05)


def test_where_the_host_stole_time_the_intervals_cover_the_ratio_of_means_too() -> None:
    # Half of the inferences of b were stopped for 10 ms, so that its median shows all of it and its mean half of it.
    quiet, steal = (stolen(codes, [20, 20, 20, 10, 10]).comparison("a", "b") for codes in ((), ("steal",)))
    assert quiet.ratio.value == pytest.approx(1 / 2)
    assert quiet.ratio.ci99 == pytest.approx((1 / 2, 1 / 2))
    assert steal.ratio.value == pytest.approx(10 / 16)
    assert steal.ratio.ci95 == steal.ratio.ci99 == pytest.approx((1 / 2, 10 / 16))
    assert (steal.verdict, steal.disturbed) == ("slower", ())
    assert "steal" in steal.warnings


@pytest.mark.parametrize(("b", "verdict"), [([11, 11, 11, 9, 9], "inconclusive"), ([11, 11, 11, 11, 12], "slower")])
def test_both_estimates_have_to_be_beyond_what_matters(b: list[int], verdict: str) -> None:
    """By the median both are 10 % slower; by the mean the first is 2 %, which no gate of 5 % may call a failure."""
    comparison = stolen(("steal",), b).comparison("a", "b")
    assert comparison.verdict == verdict
    (model,) = judge([comparison], Limits(regression=0.05), {})
    assert model.latency_verdict == ("fail" if verdict == "slower" else "inconclusive")


def test_what_only_the_median_says_is_no_verdict_where_the_host_stole_time() -> None:
    quiet, steal = (stolen(codes, [11, 11, 11, 8, 8]).comparison("a", "b") for codes in ((), ("steal",)))
    assert quiet.verdict == "slower"
    assert steal.verdict == "inconclusive"
    assert steal.reason == "the 99 % interval is too wide"


@pytest.mark.parametrize(
    ("macs", "implausible"),
    [
        ((300, 100), True),
        ((399, 100), False),
        ((500, 100), False),
        ((100, 100), False),
        ((100, 200), False),
        ((None, 100), False),
    ],
)
def test_more_speed_than_work_was_saved_is_implausible(macs: tuple[int | None, int], implausible: bool) -> None:
    runs = run_of("a", [[[80 * MS]]] * 5, macs=macs[0]), run_of("b", [[[20 * MS]]] * 5, macs=macs[1])
    found = BenchmarkReport({}, runs, 0.05)
    assert found.comparison("a", "b").implausible == implausible
    assert found.warnings == (("implausible",) if implausible else ())
    assert found.comparison("a", "b").verdict == "faster"


def test_pairs_that_were_left_out_of_both_are_in_no_number_but_among_the_samples() -> None:
    def side(name: str, ms: int) -> ModelRun:
        run = run_of(name, [[[ms * MS], [9 * ms * MS]], [[9 * ms * MS]], [[ms * MS]]])
        left = ((1,), (0,), ())
        pairs = zip(run.processes, left, strict=True)
        return replace(run, processes=tuple(replace(process, left_out=numbers) for process, numbers in pairs))

    found = BenchmarkReport({}, (side("a", 40), side("b", 20)), 0.05).to_json()
    (entry,) = found["comparisons"]
    assert (entry["ratio"], entry["pairs"], entry["pairs_left_out"], entry["processes"]) == (pytest.approx(2), 2, 2, 2)
    assert found["runs"][0]["samples_ns"] == [value * MS for value in (40, 360, 360, 40)]
    latency = found["runs"][0]["latency_ms"]
    assert (latency["p50"], latency["p90"], latency["mean"]) == (40.0, 40.0, 40.0)
    assert latency["ci95"] == pytest.approx([40.0, 40.0])


def test_a_run_whose_every_pair_is_left_out_is_refused() -> None:
    run = run_of("a", [[[1]]])
    with pytest.raises(InputError, match="'a' was not measured: every pair was left out"):
        replace(run, processes=(replace(run.processes[0], left_out=(0,)),))


@pytest.mark.parametrize("processes", [[], [[[1]], []]])
def test_a_run_without_samples_is_refused(processes: list[list[list[int]]]) -> None:
    with pytest.raises(InputError, match="'a' was not measured: a process has no samples"):
        run_of("a", processes, runs_per_pair=1)


# --- a model that is measured twice ---


def with_control(*control: str, c_ms: int = 10) -> BenchmarkReport:
    """Models a, b and c, which is a once more and has these warnings."""
    runs = [run_of(name, [[[10 * MS]]] * 5) for name in ("a", "b")]
    return BenchmarkReport({}, (*runs, run_of("c", [[[c_ms * MS]]] * 5, warnings=control)), 0.05, control=("a", "c"))


def test_a_control_that_fails_forbids_a_verdict_and_one_that_was_disturbed_checks_nothing() -> None:
    for report, verdict, codes in (
        (with_control(), "same", ()),
        (with_control(c_ms=20), "inconclusive", ("control",)),
        (with_control("preempted", c_ms=20), "same", ("no_control",)),
        (with_control("preempted"), "same", ("no_control",)),
    ):
        (comparison,) = report.comparisons
        assert (comparison.verdict, comparison.codes) == (verdict, codes)

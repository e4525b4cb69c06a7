"""`bench --format`: what CI systems and dashboards read, with and without a gate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.benchmarks import harness
from tests.benchmarks.bench_helpers import convolutions
from tests.benchmarks.formats.junit_rules import check_junit
from tests.cli.conftest import Command
from tests.cli.gate_helpers import Measure


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.setattr(harness, "measure", Measure(lambda path: 12.0 if "head" in path.name else 10.0))


@pytest.fixture
def words(tmp_path: Path) -> tuple[Any, ...]:
    """A gate that fails for the latency of head,50%.onnx, and passes for its size."""
    base, head = convolutions(tmp_path / "base.onnx", 2), convolutions(tmp_path / "head,50%.onnx", 2)
    return (head, "--baseline", base, "--max-regression", "5%", "--max-size-increase", "1%")


def test_junit_has_a_case_for_the_latency_and_for_every_limit(command: Command, words: Any) -> None:
    ran = command("bench", *words, "--format", "junit")
    (suite,) = check_junit(ran.out)
    assert ran.code == 3
    cases = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert cases == {"head,50%.onnx": ["failure"], "head,50%.onnx, file size": []}
    assert "times as long as baseline" in str(next(suite.iter("failure")).get("message"))


def test_junit_of_a_measurement_without_a_gate_fails_nothing(command: Command, words: Any) -> None:
    ran = command("bench", words[2], words[0], "--format", "junit")
    (suite,) = check_junit(ran.out)
    assert (ran.code, suite.get("tests"), suite.get("failures")) == (0, "1", "0")
    (alone,) = check_junit(command("bench", words[0], "--format", "junit").out)
    assert alone.get("tests") == "1"


def test_github_gets_annotations_and_the_jobs_summary(
    command: Command, words: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("# Before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    ran = command("bench", *words, "--format", "github")
    lines = ran.out.splitlines()
    assert ran.code == 3
    assert all(line.startswith(("::error ", "::warning ", "::notice ")) for line in lines)
    assert lines[0].startswith("::error title=latency of head%2C50%25.onnx::head,50%25.onnx takes 1.2")
    text = summary.read_text()
    assert text.startswith("# Before\n**x86, Xeon")
    assert "**failed**: head,50%.onnx takes 1.2" in text
    assert "| file size |" in text


def test_outside_of_a_job_the_summary_is_printed(command: Command, words: Any) -> None:
    lines = command("bench", *words, "--format", "github").out.splitlines()
    assert lines[0].startswith("**x86, Xeon")
    assert any(line.startswith("::error title=") for line in lines)


def test_a_summary_that_cannot_be_written_is_told_first(
    command: Command, words: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no/summary.md"))
    monkeypatch.setattr(harness, "measure", None)  # is not called
    ran = command("bench", *words, "--format", "github")
    assert (ran.code, ran.out) == (1, "")
    assert "summary.md' cannot be written" in " ".join(ran.err.split())


def test_bencher_and_github_action_benchmark_get_their_json(command: Command, words: Any) -> None:
    ran = command("bench", *words, "--format", "bencher")
    metrics = ran.document
    assert (ran.code, list(metrics)) == (3, ["baseline", "head,50%.onnx"])
    assert metrics["head,50%.onnx"]["latency"]["value"] == pytest.approx(12e6, rel=0.01)
    document: Any = json.loads(command("bench", *words[:3], "--format", "benchmark-action").out)
    assert [entry["name"] for entry in document][:3] == ["baseline: latency", "baseline: MACs", "baseline: file size"]


def test_the_json_document_goes_to_a_file_beside_any_format(command: Command, words: Any, tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    ran = command("bench", *words, "--format", "junit", "--output", target)
    check_junit(ran.out)
    assert json.loads(target.read_text())["gate"]["exit_code"] == ran.code == 3

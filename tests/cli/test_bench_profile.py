"""`mggc-edge bench --profile`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.benchmarks import harness
from mggc_edge.benchmarks.profile_nodes import NodeTime
from mggc_edge.benchmarks.profile_table import Peak, Profile
from mggc_edge.benchmarks.report import BenchmarkReport
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.cli import bench_profile
from mggc_edge.cli.bench_profile import profile_markdown, profile_pages
from mggc_edge.cli.output import Output
from mggc_edge.errors import ArtifactError
from tests.benchmarks.bench_helpers import convolutions, run_of
from tests.cli.conftest import Command
from tests.cli.gate_helpers import Measure

SHORT = ("--pairs", 1, "--threads", 1, "--set", "bench.warmup_seconds=0.01")
MACS = 3 * 3 * 3 * 3 * 16 * 16
REPORT = BenchmarkReport({}, (run_of("a", [[[20_000_000]]]),), 0.05)


@pytest.fixture
def quick_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_profile, "_peak", lambda *_: Peak(50e9, 10e9))


def profiled(macs: Any = None, peak: Peak | None = None) -> Profile:
    nodes = (
        NodeTime("c", "Conv", 1234.5678, 5_000_000, ("c",)),
        NodeTime("u", "ConvTranspose", 123.0, 1_000_000, ("u",)),
        NodeTime("n", "MVN", 2.0, 1_000_000, ("n",)),
    )
    return Profile("a", 60, 20.0, nodes, macs, peak)


def test_every_run_in_the_document_has_a_profile(command: Command, tmp_path: Path, quick_peak: None) -> None:
    path = convolutions(tmp_path / "a.onnx", 2)
    ran = command("bench", path, *SHORT, "--profile", "--json")
    assert ran.code == 0, ran.err
    found = ran.document["runs"][0]["profile"]
    assert list(found) == ["runs", "run_ms", "nodes_ms", "macs_executed", "bytes", "peak", "bound_ms", "classes"]
    assert found["macs_executed"] == 2 * MACS == ran.document["runs"][0]["macs_true"]
    assert found["peak"] == {"macs_per_second": 50e9, "bytes_per_second": 10e9}
    assert list(found["classes"][0]) == [
        "class", "nodes", "ms", "time_share", "macs", "macs_share", "bytes", "bound_ms", "peak_share",
    ]  # fmt: skip
    assert sum(row["time_share"] for row in found["classes"]) == pytest.approx(1)
    assert sum(row["macs_share"] for row in found["classes"]) == pytest.approx(1)


@pytest.fixture
def unprofiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> list[Profile]:
        raise ArtifactError("'a' cannot be profiled: its engine gives no times")

    monkeypatch.setattr(bench_profile, "profiles", fails)


def test_what_was_measured_is_shown_where_the_profile_fails(command: Command, tmp_path: Path, unprofiled: None) -> None:
    ran = command("bench", convolutions(tmp_path / "a.onnx"), *SHORT, "--profile")
    assert ran.code == 1
    assert "a.onnx" in ran.out
    assert ran.err.endswith("error: 'a' cannot be profiled: its engine gives no times\n")


@pytest.mark.parametrize(("factor", "code"), [(1.0, 1), (1.2, 3)])
def test_a_gate_that_fails_keeps_its_exit_code_where_the_profile_fails(
    command: Command, tmp_path: Path, unprofiled: None, monkeypatch: pytest.MonkeyPatch, factor: float, code: int
) -> None:
    monkeypatch.setattr(harness, "measure", Measure(lambda path: 10.0 * (factor if path.name == "head.onnx" else 1)))
    base, head = convolutions(tmp_path / "base.onnx", 2), convolutions(tmp_path / "head.onnx", 3)
    ran = command("bench", head, "--baseline", base, "--max-regression", "5%", "--profile")
    assert ran.code == code
    assert ("warning: nothing is known of where the time goes" in ran.err) == (code == 3)


def test_the_table_fits_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    out = Output()
    macs = {"c": ("Conv", 900_000_000), "u": ("ConvTranspose", 100_000_000)}
    for block in profile_pages(REPORT, [profiled(macs, Peak(50e9, 10e9))]):
        out.result(block)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "where the time goes: a" in printed
    rows = [line.split() for line in printed.splitlines()[4:7]]
    assert rows[0] == ["convolution", "1", "90.0%", "1,235", "90.8%", "1.5%", "18.500"]
    assert "\N{HORIZONTAL ELLIPSIS}" not in printed
    assert "Measured peak: 50.0 GMAC/s, 10.0 GB/s." in printed
    assert "Bound: 20.700 ms for 1.00 G MACs and 7.00 MB moved, 104% of the time." in printed.replace("\n  ", " ")


def test_markdown_has_the_table_and_says_what_is_not_known() -> None:
    lines = profile_markdown(REPORT, [profiled()])
    assert lines[3] == "| class | nodes | MACs | ms | time | of peak | bound |"
    assert lines[5] == "| convolution | 1 | - | 1,235 | 90.8% | - | - |"
    assert lines[-1].endswith("No bound: its multiplications cannot be known here.")
    assert profile_markdown(REPORT, []) == []


def test_a_file_of_onnx_runtime_has_the_macs_of_the_file_beside_it(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "a.onnx", 1, ("n", 3, "h", "w"))
    model = Workload("a", tmp_path / "b.ort", runtime="ort-mobile", image_size=(16, 16))
    assert bench_profile._macs(model) is None
    shutil.copyfile(path, tmp_path / "b.onnx")
    assert bench_profile._macs(model) == {"x1": ("Conv", MACS)}


def test_no_run_and_another_device_are_errors(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("bench", "--profile").code == 1
    path = convolutions(tmp_path / "a.onnx")
    ran = command("bench", path, "--provider", "cuda", "--profile")
    assert (ran.code, ran.out) == (1, "")
    assert "'a.onnx' cannot be profiled on 'cuda'" in ran.err

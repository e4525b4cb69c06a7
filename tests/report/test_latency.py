"""A new measurement takes the place of a run's own: bench.json, the manifest and the report say the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.artifacts import file_entry, sha256_of
from mggc_edge.errors import ArtifactError
from mggc_edge.report.latency import check_renewable, latency_summary, renew_latency
from mggc_edge.report.page import build_report
from tests.report.run_folder import bench, manifest, write, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run whose manifest describes its bench.json and its report."""
    folder = write_run(tmp_path / "run")
    document = manifest(complete=True)
    write(folder / "manifest.json", document)
    build_report(folder)
    document["files"] += [file_entry(folder / name, folder) for name in ("bench.json", "report.html")]
    write(folder / "manifest.json", document)
    return folder


def renewed() -> dict[str, Any]:
    """A measurement of 4.2x, which disturbed samples do not carry."""
    document = bench()
    change = {"ratio": 4.2, "ci95": [3.0, 5.9], "ci99": [2.6, 6.8], "realisation": 0.21, "verdict": "inconclusive"}
    document["comparisons"][0] |= {**change, "reason": "others took the time", "disturbed": ["load"]}
    return document


def test_bench_manifest_and_report_say_what_was_measured(run: Path) -> None:
    before = json.loads((run / "manifest.json").read_text())
    renew_latency(run, renewed())
    after = json.loads((run / "manifest.json").read_text())
    assert json.loads((run / "bench.json").read_text()) == renewed()
    assert after["result"]["latency"] == latency_summary(renewed(), before["result"].get("artifacts", []))
    assert after["result"]["latency"]["speedup"] == 4.2
    assert {**after["result"], "latency": None} == {**before["result"], "latency": None}
    hashes = {entry["path"]: entry["sha256"] for entry in after["files"]}
    assert all(hashes[name] == sha256_of(run / name) for name in ("bench.json", "report.html"))
    assert "others took the time" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    "change",
    [{"complete": False}, {"result": None}, {"result": {"run": "x"}}],
    ids=["unfinished", "nothing", "no latency"],
)
def test_a_run_that_is_not_finished_is_left_as_it_is(run: Path, change: dict[str, Any]) -> None:
    write(run / "manifest.json", {**json.loads((run / "manifest.json").read_text()), **change})
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ArtifactError, match="is no finished run of `compress`, and takes no new measurement"):
        check_renewable(run)
    with pytest.raises(ArtifactError):
        renew_latency(run, renewed())
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files

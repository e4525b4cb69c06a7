"""`compress --runtime`: files for every runtime, the fastest of this machine, and what other commands take of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.artifacts import sha256_of
from mggc_edge.cli.main import run as program
from mggc_edge.compiler.targets import this_target
from tests.cli.conftest import Command
from tests.jobs.job_processes import QUICK, write_networks, write_pictures

pytestmark = pytest.mark.slow
HERE = this_target()
ALL = "onnxruntime,openvino,ort-mobile,tensorrt"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with files for every runtime, in fp32 and int8."""
    folder = write_networks(tmp_path_factory.mktemp("targets"))
    words = (
        "--quiet", "compress", "--model", folder / "generator.pth", "--budget", "0.5", *QUICK, "--method", "uniform",
        "--runtime", ALL, "--precision", "int8", "--min-precision-psnr", "5", "--set", "calibration.pictures=3",
        "--set", "calibration.held_out=2", "--out", folder / "run", "--output", folder / "document.json", "--json",
    )  # fmt: skip
    assert program([str(word) for word in words]) == 0
    return folder / "run"


def result(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((run / "manifest.json").read_text())["result"]
    return loaded


def test_every_target_has_the_files_of_its_runtimes(run: Path) -> None:
    found: dict[str, set[tuple[str, str]]] = {}
    for row in result(run)["artifacts"]:
        assert sha256_of(run / row["path"]) == row["sha256"]
        assert {"path", "target", "runtime", "precision", "sha256", "accepted", "reason"} <= set(row)
        found.setdefault(row["target"], set()).add((row["runtime"], Path(row["path"]).suffix))
    assert found == {
        "portable": {("onnxruntime", ".onnx")},
        HERE: {("onnxruntime", ".onnx"), ("openvino", ".onnx")},
        "ort-mobile": {("onnxruntime", ".onnx"), ("ort-mobile", ".ort")},
        "tensorrt": {("onnxruntime", ".onnx"), ("tensorrt", ".onnx")},
    }
    bundle = {path.name for path in (run / "export/tensorrt/tensorrt").iterdir()}
    assert {"build.py", "calibration.json", "generator.int8.onnx", "original.fp32.onnx"} <= bundle


def test_the_fastest_files_of_this_machine_are_compared(run: Path) -> None:
    bench, latency = json.loads((run / "bench.json").read_text()), result(run)["latency"]
    names = [one["model"] for one in bench["runs"]]
    assert {name for name in names if not name.endswith(" int8")} == {  # which may not be faster here
        "original", "original openvino", "compressed", "compressed openvino",
    }  # fmt: skip
    medians = {one["model"]: one["latency_ms"]["p50"] for one in bench["runs"]}
    for place, side in enumerate(("original", "compressed")):
        assert names[place] == min((name for name in names if name.startswith(side)), key=lambda name: medians[name])
    assert (latency["original_ms"], latency["compressed_ms"]) == (medians[names[0]], medians[names[1]])
    assert latency["target"] == HERE
    assert latency["path"].startswith(f"export/{HERE}/")
    assert (latency["original_runtime"], latency["runtime"]) == tuple(one["runtime"] for one in bench["runs"][:2])


def test_other_commands_take_the_file_of_this_machine(run: Path, command: Command, tmp_path: Path) -> None:
    short = ("--pairs", 1, "--threads", 1, "--set", "bench.warmup_seconds=0.01", "--json")
    document = command("bench", run, "--runtime", "onnxruntime,openvino,ort-mobile", *short).document
    places = {(one["name"].split(" ")[0], Path(one["path"]).parent.name) for one in document["models"]}
    assert places == {(side, place) for side in ("original", "compressed") for place in (HERE, "ort-mobile")}
    assert command("verify", run, run / "export/portable/generator.fp32.onnx").code == 0
    pictures = write_pictures(tmp_path / "pictures", 1)
    for runtime in ("onnxruntime", "openvino", "ort-mobile"):
        words = ("--images", pictures, "--out", tmp_path / runtime, "--runtime", runtime)
        assert command("translate", run, *words).code == 0
    assert command("inspect", run, "--json").document["kind"] == "run"


def test_what_was_measured_is_measured_again_without_another_export(run: Path, command: Command) -> None:
    before = {path: path.read_bytes() for path in (run / "export").rglob("*") if path.is_file()}
    (run / "bench.json").unlink()
    ran = command("compress", "--resume", run, "--json")
    assert ran.code == 0, ran.err
    assert "exporting" not in ran.err
    assert "measuring latency" in ran.err
    assert {path: path.read_bytes() for path in (run / "export").rglob("*") if path.is_file()} == before


def test_the_page_and_the_report_name_the_files(run: Path, command: Command) -> None:
    shown = command("compress", "--resume", run).out
    assert f"latency of       {result(run)['latency']['path']}" in shown
    for target in ("portable", HERE, "ort-mobile", "tensorrt"):
        assert f"{target}/generator.int8.onnx (" in shown
    report = (run / "report.html").read_text()
    assert "export/ort-mobile/generator.int8.ort" in report
    assert "to be built on the device" in report

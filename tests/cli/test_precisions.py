"""`--precision fp32,fp16,int8` of `export` and `compress`: from the command line to the manifest and the page."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from mggc_edge.artifacts import sha256_of
from mggc_edge.cli.main import run as program
from mggc_edge.cli.precisions import MIN_PSNR
from mggc_edge.compiler.precision import wanted
from tests.cli.conftest import Command
from tests.compiler.passes.pass_helpers import build, random
from tests.jobs.job_processes import QUICK, write_networks

FEW = ("--set", "calibration.pictures=4", "--set", "calibration.held_out=2", "--set", "export.simplify=false")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven calibration pictures."""
    place = tmp_path_factory.mktemp("calibration")
    generator = np.random.default_rng(3)
    for number in range(7):
        coarse = generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC).save(place / f"{number}.png")
    return place


@pytest.fixture(scope="module")
def exported(material: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of an export in all precisions, `run`, and its document beside it."""
    place = tmp_path_factory.mktemp("exported")
    words = (
        "--quiet", "export", material / "generator.pth", "--image-size", "32", "--precision", "fp32,fp16,int8",
        "--calibration", folder, "--min-precision-psnr", "25", *FEW, "--out", place / "run",
        "--output", place / "export.json", "--json",
    )  # fmt: skip
    assert program([str(word) for word in words]) == 0
    return place


def foreign(path: Path, *, opset: int = 18) -> Path:
    """A file from elsewhere: two convolutions, the first before a ReLU."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "v"], ["y"], pads=[1] * 4),
    ]
    weights = {"w": (random(8, 3, 3, 3) / 4).astype(np.float32), "v": (random(3, 8, 3, 3) / 9).astype(np.float32)}
    path.write_bytes(build(nodes, (1, 3, 16, 24), weights, kind=TensorProto.FLOAT, opset=opset).SerializeToString())
    return path


# --- what export leaves ---


def test_the_document_has_an_entry_for_every_file_with_what_became_of_it(exported: Path) -> None:
    document = json.loads((exported / "export.json").read_text())
    place = "run/export/portable/generator"
    found = [(one["precision"], Path(one["path"]), one["accepted"], one["reason"]) for one in document["artifacts"]]
    assert found == [
        ("fp32", exported / f"{place}.fp32.onnx", True, None),
        ("fp16", exported / f"{place}.fp16.onnx", True, "speed not measured here"),
        ("int8", exported / f"{place}.int8.onnx", True, "speed not measured here"),
    ]
    for one in document["artifacts"]:
        assert (one["target"], one["runtime"]) == ("portable", "onnxruntime")
        assert one["sha256"] == hashlib.sha256(Path(one["path"]).read_bytes()).hexdigest()
    int8 = document["artifacts"][2]
    assert int8["psnr"] > 25
    calibration = int8["calibration"]
    assert (calibration["where"], calibration["observed"], calibration["held_out"]) == ("folder", 4, 2)
    assert len(calibration["sha256"]) == 64


def test_the_manifest_holds_verdict_calibration_and_parent_of_every_file(exported: Path) -> None:
    manifest = json.loads((exported / "run/manifest.json").read_text())
    files = {Path(entry["path"]).name: entry for entry in manifest["files"]}
    assert set(files) == {
        "spec.json", "weights.safetensors", "generator.fp32.onnx", "generator.fp16.onnx", "generator.int8.onnx",
        "generator.ranges.json",
    }  # fmt: skip
    document = json.loads((exported / "export.json").read_text())
    for one in document["artifacts"][1:]:
        entry = files[Path(one["path"]).name]
        assert (entry["accepted"], entry["reason"]) == (True, "speed not measured here")
        assert entry["calibration"] == one["calibration"]
        assert entry["parent"] == files["generator.fp32.onnx"]["sha256"]
    ranges = json.loads((exported / "run/export/portable/generator.ranges.json").read_text())
    assert ranges["pictures_sha256"] == files["generator.int8.onnx"]["calibration"]["sha256"]
    assert manifest["settings"]["calibration.pictures"] == 4


def test_other_commands_take_the_files(exported: Path, command: Command) -> None:
    run = exported / "run"
    assert command("inspect", run, "--json").code == 0
    place = run / "export/portable"
    for name in ("fp16", "int8"):
        ran = command(
            "verify", place / "generator.fp32.onnx", place / f"generator.{name}.onnx", "--json", "--min-psnr", 20
        )
        assert ran.code == 0, ran.err
    ran = command("verify", place / "generator.fp32.onnx", place / "generator.fp16.onnx", "--json")
    assert ran.code == 0, ran.err
    assert ran.document["min_psnr"] == 35.0
    assert ran.err == ("note: fp16 and int8 files made from a float one are compared by PSNR, as when they were made\n")


def test_a_rejected_file_stays_the_page_says_why_in_words_and_the_exit_code_is_zero(
    command: Command, material: Path, folder: Path, tmp_path: Path
) -> None:
    ran = command(
        "export", material / "generator.pth", "--image-size", 32, "--precision", "int8", "--calibration", folder,
        "--min-precision-psnr", 90, *FEW, "--out", tmp_path / "run",
    )  # fmt: skip
    assert ran.code == 0
    entry = next(one for one in _files(tmp_path / "run") if one.get("precision") == "int8")
    assert (entry["accepted"], entry["reason"]) == (
        False,
        f"PSNR to the float output {entry['psnr']:.1f} dB, below 90 dB",
    )
    assert (tmp_path / "run" / entry["path"]).is_file()
    text = " ".join(ran.out.split())
    assert f"rejected: {entry['reason']}" in text
    assert "the last convolution gives the picture, which would show the steps of 8 bits" in text
    assert "PSNR, alone PSNR, all but it" in text
    assert "no set of layers in float brings it to 90 dB" in text
    assert max(map(len, ran.out.splitlines())) <= 80


def _files(run: Path) -> list[dict[str, Any]]:
    files: list[dict[str, Any]] = json.loads((run / "manifest.json").read_text())["files"]
    return files


def test_a_file_from_elsewhere_is_quantized_after_its_passes_on_built_in_pictures(
    command: Command, tmp_path: Path
) -> None:
    source = foreign(tmp_path / "elsewhere.onnx")
    ran = command(
        "export", source, "--target", "x86-avx512", "--no-tune", "--precision", "fp16,int8", *FEW,
        "--set", "precision.speed=never",
        "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "note: no --calibration pictures were given" in ran.err
    assert [one["precision"] for one in ran.document["artifacts"]] == ["fp32", "fp16", "int8"]
    assert all(one["accepted"] for one in ran.document["artifacts"])
    place = tmp_path / "run/export/x86-avx512"
    operators = [node.op_type for node in onnx.load(place / "generator.int8.onnx").graph.node]
    assert "QuantizeLinear" in operators
    assert operators.count("Transpose") == 2  # of the thin last layer, which stays in float
    assert {Path(entry["path"]).name for entry in _files(tmp_path / "run")} == {
        "generator.fp32.onnx", "generator.fp16.onnx", "generator.int8.onnx", "generator.ranges.json",
        "original.fp32.onnx",
    }  # fmt: skip


# --- what is refused ---


def test_bad_calibration_folders_leave_nothing_behind(command: Command, folder: Path, tmp_path: Path) -> None:
    one, broken = tmp_path / "one", tmp_path / "broken"
    for place in (one, broken):
        place.mkdir()
        (place / "0.png").write_bytes((folder / "0.png").read_bytes())
    (broken / "1.png").write_bytes(b"no picture")
    for place, message in {
        one: "cannot calibrate: ranges are found on some, and precision is measured on others",
        broken: "1 of 2 calibration pictures",
        tmp_path / "none": "there is no folder",
    }.items():
        ran = command(
            "export", foreign(tmp_path / "f.onnx"), "--precision", "int8", "--calibration", place, *FEW,
            "--out", tmp_path / "run",
        )  # fmt: skip
        assert (ran.code, ran.out) == (1, "")
        assert message in " ".join(ran.err.split())
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("target", "made"), [("portable", {"fp32"}), ("ort-mobile", {"fp32", "int8"})])
def test_auto_makes_the_precisions_of_the_target(command: Command, tmp_path: Path, target: str, made: set[str]) -> None:
    ran = command(
        "export", foreign(tmp_path / "g.onnx"), "--precision", "auto", "--target", target, *FEW,
        "--min-precision-psnr", "10", "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert {one["precision"] for one in json.loads(ran.out)["artifacts"]} == made


def test_8_bit_files_old_opsets_and_damaged_files_are_refused(command: Command, exported: Path, tmp_path: Path) -> None:
    external = foreign(tmp_path / "external.onnx")
    onnx.save_model(onnx.load(external), external, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    (tmp_path / "damaged.onnx").write_bytes(foreign(tmp_path / "whole.onnx").read_bytes()[:-50])
    place = exported / "run/export/portable"
    for source, message in {
        place / "generator.int8.onnx": "is no float32 network: int8",
        place / "generator.fp16.onnx": "is no float32 network: fp16",
        foreign(tmp_path / "old.onnx", opset=12): "8-bit weights with a scale per channel need opset 13",
        external: "its weights are in 'weights.bin', which is missing",
        tmp_path / "damaged.onnx": "is not a valid ONNX file",
    }.items():
        ran = command(
            "export", source, "--precision", "int8", *FEW, "--set", "export.passes=none", "--out", tmp_path / "run"
        )
        assert (ran.code, ran.out) == (1, ""), source
        assert message in " ".join(ran.err.split())
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--precision", "fp64"), "--precision takes fp32, fp16, int8, not 'fp64'."),
        (("--precision", "int8,auto"), "--precision auto takes no other names with it."),
        (("--calibration", "."), "--calibration is for --precision fp16 and int8"),
        (("--min-precision-psnr", "-3"), "should be greater than or equal to 0"),
    ],
)
def test_flags_of_export_that_make_no_sense_are_usage_errors(
    command: Command, material: Path, words: tuple[str, ...], message: str
) -> None:
    ran = command("export", material / "generator.pth", *words)
    assert ran.code == 2
    assert message in " ".join(ran.err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--quantize", "8", "--precision", "fp32,int8"), "--quantize 8 trains the 8-bit grids of the file"),
        (("--quantize", "8", "--precision", "auto"), "--quantize 8 trains the 8-bit grids of the file"),
        (("--precision", "fp64"), "--precision takes fp32, fp16, int8, not 'fp64'."),
        (("--precision", "auto,fp32"), "--precision auto takes no other names with it."),
    ],
)
def test_compress_takes_trained_grids_or_other_precisions_and_not_both(
    command: Command, material: Path, words: tuple[str, ...], message: str
) -> None:
    ran = command("compress", "--model", material / "generator.pth", "--budget", "0.5", *words)
    assert ran.code == 2
    assert message in " ".join(ran.err.replace("│", " ").split())


def test_the_default_psnr_is_the_same_everywhere() -> None:
    assert MIN_PSNR == wanted.MIN_PSNR == 35.0


# --- compress ---


def test_compress_makes_them_of_the_slim_generator_on_training_pictures(tmp_path: Path, command: Command) -> None:
    write_networks(tmp_path)
    ran = command(
        "--quiet", "compress", "--model", tmp_path / "generator.pth", "--budget", "0.5", "--method", "uniform", *QUICK,
        "--precision", "fp16,int8", "--min-precision-psnr", "20", "--set", "calibration.pictures=4",
        "--set", "calibration.held_out=2", "--set", "compress.targets=none", "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    artifacts = ran.document["artifacts"]
    assert [(Path(one["path"]).name, one["precision"], one["accepted"]) for one in artifacts] == [
        ("generator.fp32.onnx", "fp32", True),
        ("generator.fp16.onnx", "fp16", True),
        ("generator.int8.onnx", "int8", True),
        ("original.fp32.onnx", "fp32", True),
    ]
    assert artifacts[2]["calibration"]["where"] == "training"
    place = tmp_path / "run/export/portable"
    entries = {Path(entry["path"]).name: entry for entry in _files(tmp_path / "run")}
    for name in ("generator.fp16.onnx", "generator.int8.onnx", "generator.ranges.json"):
        assert entries[name]["parent"] == sha256_of(place / "generator.fp32.onnx")
    bench = json.loads((tmp_path / "run/bench.json").read_text())
    medians = [run["latency_ms"]["p50"] for run in bench["runs"]]
    assert {run["model"] for run in bench["runs"]} == {"original", "compressed", "compressed fp16", "compressed int8"}
    assert bench["runs"][0]["model"] == "original"
    assert medians[1] == min(medians[1:])
    latency = ran.document["latency"]
    assert (latency["compressed_ms"], latency["precision"]) == (medians[1], bench["runs"][1]["precision"])
    report = (tmp_path / "run/report.html").read_text()
    assert report.count("yes: speed not measured here") == 2
    again = command("compress", "--resume", tmp_path / "run")
    assert again.code == 0
    assert "generator.int8.onnx (" in again.out
    assert "held-out pictures; speed not measured here" in " ".join(again.out.split())


@pytest.mark.parametrize(("targets", "made"), [("none", set()), ("ort-mobile", {"int8"})])
def test_compress_makes_those_of_every_target(tmp_path: Path, command: Command, targets: str, made: set[str]) -> None:
    write_networks(tmp_path)
    ran = command(
        "compress", "--model", tmp_path / "generator.pth", "--budget", "0.5", "--method", "uniform", *QUICK,
        "--precision", "auto", "--min-precision-psnr", "5", "--set", "calibration.pictures=2",
        "--set", "calibration.held_out=2", "--set", f"compress.targets={targets}", "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found: dict[str, set[str]] = {}
    for one in ran.document["artifacts"]:
        found.setdefault(one["target"], set()).add(one["precision"])
    assert found == {"portable": {"fp32"}, **({targets: {"fp32", *made}} if made else {})}
    assert ("note: --precision auto makes fp32 files alone" in ran.err) is (not made)

"""`mggc-edge export --runtime`, and what the other commands do with the files it makes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mggc_edge.artifacts import sha256_of
from mggc_edge.cli.main import run
from mggc_edge.machine import BF16_SETS, this_machine
from tests.benchmarks.bench_helpers import convolutions, without_rule
from tests.cli.conftest import SIZE, Command

ALL = "onnxruntime,ort-mobile,openvino"
GENERATOR = "export/portable/generator.fp32"


@pytest.fixture(scope="module")
def exported(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """run/ with .ort files, and export.json."""
    folder = tmp_path_factory.mktemp("runtimes")
    words = (
        "--quiet", "export", material / "run/slim", "--image-size", SIZE, "--runtime", ALL, "--out", folder / "run",
        "--output", folder / "export.json", "--json",
    )  # fmt: skip
    assert run([str(word) for word in words]) == 0
    return folder


def test_ort_files_lie_beside_the_onnx_files_with_one_configuration(exported: Path) -> None:
    folder = exported / "run/export/portable"
    assert sorted(path.name for path in folder.iterdir()) == [
        "generator.fp32.onnx", "generator.fp32.ort", "required_operators_and_types.config",
    ]  # fmt: skip
    lines = (folder / "required_operators_and_types.config").read_text().splitlines()
    assert lines[:2] == ["# Generated from model/s:", "# - generator.fp32.ort"]
    assert any(line.startswith("ai.onnx;11;Conv") for line in lines)


def test_the_manifest_has_every_new_file_with_its_parent(exported: Path) -> None:
    manifest = json.loads((exported / "run/manifest.json").read_text())
    entries = {entry["path"]: entry for entry in manifest["files"]}
    entry = entries[f"{GENERATOR}.ort"]
    path = exported / "run" / entry["path"]
    assert (entry["sha256"], entry["size_bytes"]) == (sha256_of(path), path.stat().st_size)
    assert entry["parent"] == entries[f"{GENERATOR}.onnx"]["sha256"]
    assert (entry["runtime"], entry["precision"], entry["platform"]) == ("ort-mobile", "fp32", None)
    assert "export/portable/required_operators_and_types.config" in entries
    proven = [(row["path"], row["runtime"], row["accepted"]) for row in manifest["runtimes"]]
    assert proven == [(f"{GENERATOR}.onnx", "openvino", True)]


def test_the_document_has_an_artifact_for_every_runtime(exported: Path) -> None:
    artifacts = json.loads((exported / "export.json").read_text())["artifacts"]
    found = [(Path(artifact["path"]).name, artifact["runtime"]) for artifact in artifacts]
    assert found == [
        ("generator.fp32.onnx", "onnxruntime"), ("generator.fp32.ort", "ort-mobile"),
        ("generator.fp32.onnx", "openvino"),
    ]  # fmt: skip
    for artifact in artifacts:
        assert Path(artifact["path"]).is_file()
        assert artifact["sha256"] == sha256_of(Path(artifact["path"]))
        assert {"path", "target", "runtime", "precision", "sha256", "accepted", "reason"} <= set(artifact)
        assert (artifact["target"], artifact["precision"], artifact["accepted"]) == ("portable", "fp32", True)
        assert artifact["parity"]["passed"] is True
    nnapi = artifacts[1]["usability"][0]
    assert (nnapi["provider"], nnapi["verdict"]) == ("NNAPI", "no")
    assert nnapi["unsupported"] == ["ConvTranspose", "InstanceNormalization"]


def test_an_ort_file_is_opened_translated_and_verified(
    command: Command, exported: Path, material: Path, tmp_path: Path
) -> None:
    ort = exported / "run" / f"{GENERATOR}.ort"
    ran = command("verify", exported / "run", ort, "--json")
    assert (ran.code, ran.document["runtimes"]) == (0, ["onnxruntime", "ort-mobile"])
    for name, words in (("a", ()), ("b", ("--runtime", "ort-mobile")), ("c", ("--runtime", "openvino"))):
        out = ("--images", material / "pictures", "--out", tmp_path / name)
        assert command("translate", exported / "run", *words, *out).code == 0
    pictures = [np.asarray(Image.open(tmp_path / name / "a.png")).astype(int) for name in "abc"]
    assert max(np.abs(pictures[0] - picture).max() for picture in pictures) <= 1


def test_the_page_says_how_near_every_runtime_is_and_ort_files_are_measured(command: Command, tmp_path: Path) -> None:
    source = convolutions(tmp_path / "a.onnx", 2)
    ran = command("export", source, "--runtime", ALL, "--out", tmp_path / "run")
    assert ran.code == 0
    lines = [line for line in ran.out.splitlines() if " in " in line]
    assert [line.split(":")[0] for line in lines] == [
        "generator.fp32.ort in ort-mobile", "original.fp32.ort in ort-mobile", "generator.fp32.onnx in openvino",
        "original.fp32.onnx in openvino",
    ]  # fmt: skip
    assert all(line.endswith(" to onnxruntime") for line in lines)
    assert "note: on phones, NNAPI should run it well: 1 part with 2 of 2 nodes\n" in ran.err
    assert "note: .ort files for 'portable' run on any processor" in ran.err
    short = ("--pairs", 1, "--threads", 1, "--set", "bench.warmup_seconds=0.01")
    measured = command("bench", tmp_path / "run", "--runtime", "ort-mobile", *short, "--json").document
    assert [(one["model"], one["runtime"]) for one in measured["runs"]] == [
        ("original", "ort-mobile"), ("compressed", "ort-mobile"),
    ]  # fmt: skip
    assert [one["macs_true"] for one in measured["runs"]] == [2 * 3 * 3 * 3 * 3 * 16 * 16] * 2


def test_without_the_flag_nothing_is_said_of_further_runtimes(command: Command, tmp_path: Path) -> None:
    ran = command("--quiet", "export", convolutions(tmp_path / "a.onnx"), "--out", tmp_path / "run")
    assert (ran.code, ran.err, " in o" in ran.out) == (0, "", False)
    assert "runtimes" not in json.loads((tmp_path / "run/manifest.json").read_text())


# --- one file in two engines ---


def test_a_file_is_compared_in_two_engines(command: Command, material: Path) -> None:
    path = material / "run" / f"{GENERATOR}.onnx"
    document = command("verify", path, path, "--runtime", "onnxruntime,openvino", "--json").document
    assert (document["runtimes"], document["precisions"]) == (["onnxruntime", "openvino"], ["fp32", "fp32"])
    assert 0 < document["max_abs"] <= 1e-4
    document = command("verify", path, path, "--runtime", "openvino", "--json").document
    assert (document["runtimes"], document["identical"]) == (["openvino", "openvino"], True)


def test_a_single_engine_is_for_the_artifact_and_pytorch_for_the_checkpoint(command: Command, material: Path) -> None:
    pair = (material / "run/slim", material / "run")
    document = command("verify", *pair, "--runtime", "openvino", "--json").document
    assert (document["passed"], document["runtimes"]) == (True, ["pytorch", "openvino"])
    document = command("verify", *pair, "--runtime", "pytorch,openvino", "--json").document
    assert document["runtimes"] == ["pytorch", "openvino"]


@pytest.mark.skipif(not this_machine().has_any(BF16_SETS), reason="needs a processor with bfloat16")
def test_bfloat16_is_compared_with_float32(command: Command, material: Path) -> None:
    path = material / "run" / f"{GENERATOR}.onnx"
    words = ("--runtime", "openvino", "--precision", "fp32,bf16", "--json")
    ran = command("verify", path, path, *words)
    assert (ran.code, ran.document["passed"], ran.document["precisions"]) == (3, False, ["fp32", "bf16"])
    assert command("verify", path, path, *words, "--min-psnr", 20).code == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--runtime", "abacus"), "--runtime takes onnxruntime, ort-mobile, openvino, tensorrt, pytorch, not 'abacus'"),
        (("--runtime", "openvino,openvino,openvino"), "--runtime takes one name, or two"),
        (("--precision", "int8"), "--precision takes fp32, bf16, not 'int8'"),
    ],
)
def test_names_that_are_not_known_are_usage_errors(
    command: Command, material: Path, words: tuple[str, str], text: str
) -> None:
    ran = command("verify", material / "run", material / "run", *words)
    assert (ran.code, text in " ".join(ran.err.split())) == (2, True)


def test_translate_knows_its_engines(command: Command, material: Path) -> None:
    words = ("--images", material / "pictures")
    ran = command("translate", material / "run", *words, "--runtime", "abacus")
    assert (ran.code, "--runtime takes one of onnxruntime, ort-mobile, openvino, tensorrt, pytorch" in ran.err) == (
        2,
        True,
    )
    ran = command("translate", material / "generator.pth", *words, "--runtime", "openvino")
    said = "is a checkpoint, which pytorch runs in fp32; 'openvino' is for artifacts"
    assert (ran.code, ran.err.splitlines()) == (
        1,
        [f"error: '{material / 'generator.pth'}' {said}", "hint: mggc-edge export makes an .onnx file of it"],
    )
    ran = command("translate", material / "run", *words, "--runtime", "ort-mobile")
    assert (ran.code, ran.err) == (
        1,
        f"error: the run '{material / 'run'}' has no .ort file\nhint: mggc-edge export --runtime writes one\n",
    )


def test_an_ort_file_is_not_for_openvino(command: Command, exported: Path) -> None:
    ort = exported / "run" / f"{GENERATOR}.ort"
    ran = command("verify", ort, ort, "--runtime", "openvino")
    assert (ran.code, ran.err.splitlines()) == (
        1,
        [
            "error: the runtime 'openvino' opens .onnx files, and 'generator.fp32.ort' is none",
            "hint: runtimes for it: ort-mobile",
        ],
    )


# --- what cannot be exported ---


def test_a_missing_engine_is_one_sentence_and_leaves_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    source = convolutions(tmp_path / "a.onnx")
    ran = command("export", source, "--runtime", "openvino", "--out", tmp_path / "run")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: openvino cannot be imported here: ")
    assert ran.err.endswith('hint: pip install "mggc-edge[openvino]"\n')
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_an_operation_that_the_engine_lacks_is_one_sentence_and_leaves_nothing(
    command: Command, tmp_path: Path
) -> None:
    words = ("--runtime", "openvino", "--out", tmp_path / "run")
    ran = command("--quiet", "export", without_rule(tmp_path / "a.onnx"), *words)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines() == [
        "error: OpenVINO cannot run 'generator.fp32.onnx': it has no operation Det-20",
        "hint: leave openvino out of --runtime",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_a_damaged_ort_file_is_one_sentence(command: Command, exported: Path, tmp_path: Path) -> None:
    shutil.copyfile(exported / "run" / f"{GENERATOR}.ort", tmp_path / "a.ort")
    (tmp_path / "b.ort").write_bytes((tmp_path / "a.ort").read_bytes()[:1000])
    ran = command("verify", tmp_path / "a.ort", tmp_path / "b.ort")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"error: ONNX Runtime cannot run '{tmp_path / 'b.ort'}': ")
    assert ran.err.count("\n") == 1

"""`mggc-edge export`."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from mggc_edge.models.families import layer_table
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.weights import load_network, save_network
from mggc_edge.pruning.random import random_plan
from mggc_edge.training.quantize import QuantizeSettings, quantize
from tests.backends.trt_helpers import install
from tests.cli.conftest import Command, random_network
from tests.compiler.open_size_files import halvings


def test_an_export_without_a_plan_holds_the_generator_and_its_manifest(
    command: Command, material: Path, tmp_path: Path
) -> None:
    ran = command("export", material / "generator.pth", "--image-size", 32, "--out", tmp_path / "run", "--json")
    assert ran.code == 0
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert files == [
        "run/export/portable/generator.fp32.onnx",
        "run/manifest.json",
        "run/original/spec.json",
        "run/original/weights.safetensors",
    ]
    (artifact,) = ran.document["artifacts"]
    assert artifact["sha256"] == hashlib.sha256(Path(artifact["path"]).read_bytes()).hexdigest()
    assert artifact["parity"]["passed"] is True
    assert ran.document["compressed"] is None
    assert ran.document["original"]["macs_true"] == 5_947_392


def test_an_export_with_a_plan_holds_both_networks_the_plan_and_the_slim_weights(material: Path) -> None:
    files = {path.relative_to(material / "run").as_posix() for path in (material / "run").rglob("*") if path.is_file()}
    assert files == {
        "export/portable/generator.fp32.onnx",
        "export/portable/original.fp32.onnx",
        "manifest.json",
        "original/spec.json",
        "original/weights.safetensors",
        "plan.json",
        "slim/spec.json",
        "slim/weights.safetensors",
    }
    document = json.loads((material / "export.json").read_text())
    assert 0.98 * 0.3 <= document["compressed"]["macs_true"] / document["original"]["macs_true"] <= 0.3
    assert document["compressed"]["size_bytes"] < document["original"]["size_bytes"]


def test_the_manifest_records_effective_settings_and_seed(command: Command, material: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("[export]\nsimplify = false\natol = 0.001\n")
    ran = command(
        "export", material / "generator.pth", "--image-size", 32, "--out", tmp_path / "run", "--seed", 7,
        "--config", tmp_path / "settings.toml", "--set", "export.atol=0.002", "--opset", 18,
    )  # fmt: skip
    assert ran.code == 0
    settings = json.loads((tmp_path / "run/manifest.json").read_text())["settings"]
    assert (settings["export.simplify"], settings["export.atol"]) == (False, 0.002)
    assert (settings["export.opset"], settings["seed"], settings["bn"]) == (18, 7, "eval")


def test_without_out_the_run_is_named_after_the_checkpoint_and_latest_points_to_it(
    command: Command, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("export", material / "generator.pth", "--image-size", 32).code == 0
    (run,) = [path for path in Path("runs").iterdir() if not path.is_symlink()]
    assert run.name.startswith("generator-export-")
    assert Path("runs/latest").resolve() == run.resolve()
    assert command("inspect", "runs/latest", "--json").document["kind"] == "run"


@pytest.mark.parametrize(
    "flag", [("--precision", "fp64"), ("--runtime", "abacus"), ("--image-size", "big"), ("--target", "abacus")]
)
def test_unknown_values_are_usage_errors(command: Command, material: Path, flag: tuple[str, str]) -> None:
    assert command("export", material / "generator.pth", *flag).code == 2


def test_an_onnx_file_is_rewritten_for_a_target_and_the_passes_are_printed(
    command: Command, material: Path, tmp_path: Path
) -> None:
    source = material / "run/export/portable/generator.fp32.onnx"
    ran = command("export", source, "--target", "x86-avx512", "--no-tune", "--out", tmp_path / "run")
    assert (ran.code, ran.err) == (0, f"rewriting '{source}' and proving it equal\n")
    lines = ran.out.splitlines()
    header, below, _, row = lines[2:6]
    assert header.split() == ["max", "|diff|"]
    assert below.split()[:5] == ["file", "size", "parameters", "MACs", "to"]
    assert re.fullmatch(r"generator\.fp32\.onnx +\d+\.\d kB +[\d,]+ +\d+\.\d+ M +\d\.\de[-+]\d\d", row.strip())
    assert max(map(len, lines[:7])) <= 80
    assert "…" not in ran.out
    start = lines.index("passes over generator.fp32.onnx:")
    shown = " ".join(" ".join(lines[start + 1 :]).split())
    assert "thin_layer: applied 2; not at 6: it has more than 4 outputs" in shown
    assert "transposed_convolution: not at 2: it would multiply more than before depth_to_space: applied 2" in shown
    assert shown.endswith("MACs")
    document = command(
        "export", source, "--target", "x86-avx512", "--no-tune", "--out", tmp_path / "again", "--json"
    ).document
    (artifact,) = document["artifacts"]
    assert document["original"]["size_bytes"] == source.stat().st_size < artifact["size_bytes"]
    assert document["original"]["parameters"] < artifact["parameters"]
    assert command("verify", source, tmp_path / "run").code == 0
    inspected = command("inspect", tmp_path / "run", "--json").document
    original = command("inspect", source, "--json").document
    assert inspected["macs_true"] == original["macs_true"] == original["macs_executed"] < inspected["macs_executed"]
    assert "MACs (executed)" in command("inspect", tmp_path / "run").out
    measured = command(
        "bench", tmp_path / "run", "--pairs", 2, "--threads", 1, "--json", "--set", "bench.processes=1",
        "--set", "bench.warmup_seconds=0.01",
    )  # fmt: skip
    assert [run["macs_true"] for run in measured.document["runs"]] == [original["macs_true"]] * 2


def test_a_checkpoint_for_this_machine_lies_in_the_folder_of_its_target(
    command: Command, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mggc_edge.compiler.targets.this_target", lambda: "x86-avx2")
    words = ("--plan", material / "plan.json", "--image-size", 32, "--target", "auto", "--no-tune")
    plainly = ("--set", "export.simplify=false")
    ran = command("export", material / "generator.pth", *words, *plainly, "--out", tmp_path / "run", "--json")
    assert ran.code == 0
    assert sorted(path.name for path in (tmp_path / "run/export/x86-avx2").iterdir()) == [
        "generator.fp32.onnx", "original.fp32.onnx",
    ]  # fmt: skip
    for artifact in ran.document["artifacts"]:
        assert artifact["target"] == "x86-avx2"
        assert [found["applied"] for found in artifact["passes"] if found["name"] == "thin_layer"] == [
            1 + artifact["path"].endswith("generator.fp32.onnx")
        ]
    assert ran.document["artifacts"][1]["macs_executed"] > ran.document["original"]["macs_true"]
    settings = json.loads((tmp_path / "run/manifest.json").read_text())["settings"]
    assert settings["target"] == "x86-avx2"


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("--dynamic-batch",), "--dynamic-batch"), (("--bn", "eval"), "--bn"),
        (("--norm-stats", "running"), "--norm-stats"), (("--direction", "AtoB"), "--direction"),
        (("--plan", "plan.json"), "--plan"),
    ],
)  # fmt: skip
def test_flags_for_checkpoints_are_refused_with_an_onnx_file(
    command: Command, material: Path, tmp_path: Path, words: tuple[object, ...], flag: str
) -> None:
    source = material / "run/export/portable/generator.fp32.onnx"
    ran = command("export", source, *words, "--out", tmp_path / "run")
    assert (ran.code, f"{flag} is for checkpoints" in ran.err, (tmp_path / "run").exists()) == (1, True, False)


def test_a_file_of_an_engine_alone_is_not_exported(command: Command, tmp_path: Path) -> None:
    (tmp_path / "g.ort").write_bytes(b"0")
    ran = command("export", tmp_path / "g.ort", "--out", tmp_path / "run")
    assert (ran.code, "holds no weights that can be exported" in ran.err) == (1, True)


def test_a_damaged_onnx_file_and_an_unknown_pass_are_one_sentence(
    command: Command, material: Path, tmp_path: Path
) -> None:
    (tmp_path / "g.onnx").write_bytes(b"no onnx")
    ran = command("export", tmp_path / "g.onnx", "--out", tmp_path / "run")
    assert (ran.code, "is not a valid ONNX file" in ran.err) == (1, True)
    source = material / "run/export/portable/generator.fp32.onnx"
    ran = command("export", source, "--out", tmp_path / "run", "--set", "export.passes=magic")
    assert (ran.code, "which is no graph pass" in ran.err, (tmp_path / "run").exists()) == (2, True, False)


def test_a_size_that_the_network_cannot_halve_is_refused_with_the_multiples(
    command: Command, material: Path, tmp_path: Path
) -> None:
    ran = command("export", material / "generator.pth", "--image-size", 30, "--out", tmp_path / "run")
    assert ran.code == 1
    assert ran.err == (
        "error: a ResNet generator cannot run at 30x30\nhint: both sides must be multiples of 4 and at least 8\n"
    )
    assert not (tmp_path / "run").exists()


def test_a_dynamic_batch_leaves_the_first_size_open(command: Command, material: Path, tmp_path: Path) -> None:
    words = ("--image-size", 32, "--dynamic-batch", "--out", tmp_path / "run")
    assert command("export", material / "generator.pth", *words).code == 0
    document = command("inspect", tmp_path / "run", "--json").document
    assert document["inputs"] == [{"name": "input", "dtype": "float32", "shape": [None, 3, 32, 32]}]
    assert command("verify", material / "generator.pth", tmp_path / "run").code == 0


def test_a_plan_of_another_network_is_refused(command: Command, material: Path, tmp_path: Path) -> None:
    plan = random_plan(layer_table(resnet_spec(blocks=2, ngf=9), (32, 32)), 0.3, seed=1)
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_json()))
    words = ("--plan", tmp_path / "plan.json", "--out", tmp_path / "run")
    ran = command("export", material / "generator.pth", *words)
    assert (ran.code, "the plan was made for another network" in ran.err) == (1, True)
    assert not (tmp_path / "run").exists()


def test_a_run_is_exported_again_slim_and_at_its_own_size(command: Command, material: Path, tmp_path: Path) -> None:
    ran = command("export", material / "run", "--opset", 18, "--out", tmp_path / "again", "--json")
    assert (ran.code, ran.document["image_size"]) == (0, [32, 32])
    assert command("verify", material / "run", tmp_path / "again").code == 0


def test_the_way_a_checkpoint_was_read_goes_with_the_file(command: Command, tmp_path: Path) -> None:
    both = {f"netG_{name}": random_network(seed).state_dict() for seed, name in enumerate("AB")}
    torch.save(both, tmp_path / "both.pth")
    words = ("--image-size", 32, "--out", tmp_path / "run")
    assert command("export", tmp_path / "both.pth", "--direction", "BtoA", *words).code == 0
    settings = json.loads((tmp_path / "run/manifest.json").read_text())["settings"]
    assert (settings["direction"], settings["norm_stats"], settings["image_size"]) == ("BtoA", "instance", [32, 32])
    assert command("verify", tmp_path / "both.pth", tmp_path / "run").code == 0
    assert command("verify", tmp_path / "both.pth", tmp_path / "run", "--direction", "AtoB").code == 3
    silent = command("export", tmp_path / "both.pth", "--image-size", 32, "--out", tmp_path / "a")
    assert "note: of 2 networks in the file, 'netG_A' is exported" in silent.err


# --- aligned plans ---


def test_a_plan_is_aligned_for_the_target_and_the_run_says_so(command: Command, tmp_path: Path) -> None:
    plan = random_plan(layer_table(resnet_spec(blocks=2, ngf=16), (32, 32)), 0.3, seed=1)
    torch.save(random_network(ngf=16).state_dict(), tmp_path / "generator.pth")
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_json()))
    words = ("--plan", tmp_path / "plan.json", "--image-size", 32, "--set", "export.simplify=false")
    ran = command(
        "export", tmp_path / "generator.pth", *words, "--target", "x86-avx2", "--no-tune", "--align", "auto",
        "--out", tmp_path / "a", "--json",
    )  # fmt: skip
    assert (ran.code, "note:" in ran.err) == (0, False)
    written = json.loads((tmp_path / "a/plan.json").read_text())
    assert written == plan.aligned(8).to_json()
    slim = json.loads((tmp_path / "a/slim/spec.json").read_text())["widths"]
    assert {width % 8 for width in slim.values()} == {0}
    shares = ran.document["compressed"]["macs_true"] / ran.document["original"]["macs_true"]
    assert 0.98 * 0.3 <= shares <= 0.3
    inspected = command("inspect", tmp_path / "a/plan.json")
    assert ["widths", "multiples", "of", "8"] in [line.split() for line in inspected.out.splitlines()]
    assert command("inspect", tmp_path / "a/plan.json", "--json").document["align"] == 8


def test_a_budget_that_aligned_widths_do_not_reach_is_said(command: Command, material: Path, tmp_path: Path) -> None:
    words = ("--plan", material / "plan.json", "--image-size", 32, "--out", tmp_path / "run", "--align", 16)
    ran = command("export", material / "generator.pth", *words)
    assert ran.code == 1
    assert ran.err == (
        "error: a budget of 0.3 cannot be met: the smallest network that can be left in widths of multiples of 16 "
        "already keeps 0.55 of the MACs\nhint: ask for at least 0.554; smaller multiples leave smaller ones\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["0", "3.5", "-8", "16385", "wide"])
def test_an_alignment_that_is_no_number_of_channels_is_a_usage_error(
    command: Command, material: Path, tmp_path: Path, value: str
) -> None:
    words = ("--plan", material / "plan.json", "--out", tmp_path / "run", "--align", value)
    ran = command("export", material / "generator.pth", *words)
    assert (ran.code, (tmp_path / "run").exists()) == (2, False)
    assert f"--align takes auto or a whole number from 1 to 16384, not '{value}'." in " ".join(
        ran.err.replace("│", " ").split()
    )


def test_the_portable_target_has_no_alignment(command: Command, material: Path, tmp_path: Path) -> None:
    words = ("--plan", material / "plan.json", "--out", tmp_path / "run", "--align", "auto")
    ran = command("export", material / "generator.pth", *words)
    assert ran.code == 2
    assert ran.err == (
        "error: the target portable has no alignment: no multiple of channels is better than another on every engine\n"
        "hint: give a number, such as 8, or one of the targets x86-avx2, x86-avx512, arm64, tensorrt, ort-mobile\n"
    )


def test_an_alignment_without_a_plan_is_a_usage_error(command: Command, material: Path) -> None:
    ran = command("export", material / "generator.pth", "--align", 8)
    assert (ran.code, "--align rounds the widths of a plan; give one with --plan." in ran.err) == (2, True)


# --- sizes ---


def test_a_file_of_open_size_is_not_measured_or_translated_at_a_size_that_it_cannot_halve(
    command: Command, material: Path, tmp_path: Path
) -> None:
    source = halvings(tmp_path / "g.onnx", 2)
    words = {
        "export": (source, "--out", tmp_path / "run"),
        "translate": (source, "--images", material / "pictures", "--out", tmp_path / "run"),
        "verify": (source, source),
        "bench": (source,),
    }
    for name, more in words.items():
        ran = command(name, *more, "--image-size", "66x70")
        assert (ran.code, (tmp_path / "run").exists()) == (1, False), name
        assert ran.err.endswith(
            f"error: '{source}' cannot halve pictures of 66x70 as often as it does, and gives pictures of 68x72\n"
            "hint: both sides must be multiples of 4\n"
        ), name


# --- TensorRT ---


def test_tensorrt_away_from_a_gpu_is_a_bundle_that_the_manifest_knows(
    command: Command, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    words = ("--plan", material / "plan.json", "--image-size", 32, "--runtime", "tensorrt", "--out", tmp_path / "run")
    ran = command("export", material / "generator.pth", *words, "--json")
    assert ran.code == 0
    assert "note: no TensorRT engine is built here: tensorrt cannot be imported here: " in ran.err
    bundled = [entry for entry in ran.document["artifacts"] if entry["runtime"] == "tensorrt"]
    assert [(Path(entry["path"]).name, entry["precision"], entry["accepted"]) for entry in bundled] == [
        ("generator.fp32.onnx", "fp32", True), ("original.fp32.onnx", "fp32", True),
    ]  # fmt: skip
    assert {entry["reason"] for entry in bundled} == {"to be built on the device"}
    folder = tmp_path / "run/export/portable/tensorrt"
    for entry in bundled:
        assert Path(entry["path"]).parent == folder
        assert entry["sha256"] == hashlib.sha256(Path(entry["path"]).read_bytes()).hexdigest()
    listed = {file["path"] for file in json.loads((tmp_path / "run/manifest.json").read_text())["files"]}
    assert {f"export/portable/tensorrt/{path.name}" for path in folder.iterdir()} <= listed
    (model, _) = json.loads((folder / "bundle.json").read_text())["models"]
    assert model["metadata"]["mggc_edge.image_size"] == "32x32"
    assert command("verify", material / "run", tmp_path / "run").code == 0


def test_tensorrt_where_there_is_a_gpu_is_engines_that_verify_and_translate(
    command: Command, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(monkeypatch, "10.3.0", error=1e-5)
    source = material / "run/export/portable/generator.fp32.onnx"
    words = ("--runtime", "onnxruntime,tensorrt", "--out", tmp_path / "run", "--json")
    ran = command("--quiet", "export", source, *words)
    assert (ran.code, ran.err) == (0, "")
    entry = ran.document["artifacts"][1]
    assert (entry["runtime"], entry["accepted"], entry["reason"]) == ("tensorrt", True, None)
    engine = tmp_path / "run/export/portable/tensorrt/engines/generator.fp32.engine"
    assert entry["path"] == str(engine)
    shown = command("export", source, "--runtime", "tensorrt", "--out", tmp_path / "again").out
    assert re.search(r"^generator\.fp32\.engine, 0\.\d kB, TensorRT 10\.3\.0 on Fake sm87$", shown, re.MULTILINE)
    fake.world.executor.moved_to = engine.parents[1]
    assert command("verify", source, engine).code == 0
    pictures = ("--images", material / "pictures", "--out", tmp_path / "out")
    assert command("translate", engine, *pictures).code == 0
    assert [(tmp_path / "out" / name).is_file() for name in ("a.png", "b.png", "deeper/c.png")] == [True] * 3


def test_a_network_on_8_bit_grids_is_no_network_for_tensorrt(command: Command, material: Path, tmp_path: Path) -> None:
    levels = tmp_path / "levels"
    network = load_network(material / "generator.pth", image_size=(32, 32))
    save_network(
        quantize(network, lambda: [torch.linspace(-1, 1, 3072).view(1, 3, 32, 32)], QuantizeSettings()), levels
    )
    ran = command("export", levels, "--image-size", 32, "--runtime", "tensorrt", "--out", tmp_path / "run")
    assert ran.code == 1
    assert ran.err.splitlines()[-2:] == [
        "error: TensorRT would take none of generator.int8.onnx: uint8 levels: only int8 is taken",
        "hint: export the network in floats: without --quantize, or with --precision fp32,fp16",
    ]
    assert not (tmp_path / "run").exists()

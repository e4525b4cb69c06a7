"""`compress --quantize 8`: from the command line to the report, and every command on what it leaves."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from rich.console import Console

from mggc_edge.artifacts import sha256_of
from mggc_edge.cli.compress_page import page
from mggc_edge.cli.main import run as program
from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.network import Network
from mggc_edge.models.unet import unet_spec
from mggc_edge.models.weights import load_network
from tests.cli.conftest import Command
from tests.jobs.job_processes import QUICK, write_networks, write_pairs, write_pictures
from tests.models.model_helpers import randomise

FILE = "export/portable/generator.int8.onnx"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_networks(tmp_path_factory.mktemp("given"))
    for name, network in {
        "unet": Network(unet_spec(halvings=5, ngf=4, norm="batch")),
        "cartoon": Network(cartoongan_spec(blocks=1, ngf=4)),
    }.items():
        randomise(network, seed=2)
        torch.save(network.state_dict(), folder / f"{name}.pth")
    write_pictures(folder / "pictures", 3)
    write_pairs(folder / "pairs")
    return folder


def compressed(given: Path, folder: Path, *words: object) -> Path:
    flags = ("--quiet", "compress", "--budget", "0.5", *QUICK, "--quantize", "8", "--out", folder / "run", *words)
    assert program([str(word) for word in flags]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def run(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the default method, with batch norm."""
    return compressed(
        given, tmp_path_factory.mktemp("run"), "--model", given / "batch.pth", "--set", "quantize.pictures=4"
    )


def document_of(run: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((run / "manifest.json").read_text())
    return document


# --- what a run holds ---


def test_the_run_holds_the_int8_file_beside_the_original_and_says_how_much_smaller_it_is(run: Path) -> None:
    manifest = document_of(run)
    result = manifest["result"]
    assert sorted(path.name for path in (run / "export/portable").iterdir()) == [
        "generator.int8.onnx",
        "original.fp32.onnx",
    ]
    portable = {one["path"]: one for one in result["artifacts"] if one["target"] == "portable"}
    original = portable["export/portable/original.fp32.onnx"]
    assert portable.keys() == {original["path"], FILE}
    assert [(one["precision"], one["accepted"], one["reason"]) for one in (original, portable[FILE])] == [
        ("fp32", True, None),
        ("int8", True, None),
    ]
    assert portable[FILE]["equal_levels"] >= 0.999
    assert original["equal_levels"] is None
    assert result["method"] == "mggc"
    disk, memory = result["size"]["disk"], result["size"]["memory"]
    assert disk["original_bytes"] == (run / "export/portable/original.fp32.onnx").stat().st_size
    assert disk["compressed_bytes"] == (run / FILE).stat().st_size
    for one in (disk, memory):
        assert one["ratio"] == pytest.approx(one["original_bytes"] / one["compressed_bytes"])
        assert one["ratio"] == pytest.approx(one["channels"] * one["bits"])
    assert 2 < memory["bits"] < 4  # of so small a network the scales take their part
    assert result["compressed"]["size_bytes"] == pytest.approx(disk["bits"] * disk["compressed_bytes"])
    assert manifest["settings"]["request.quantize"] == "8"
    entry = next(entry for entry in manifest["files"] if entry["path"] == FILE)
    assert entry["parent"] == sha256_of(run / "slim/weights.safetensors")


def test_quality_and_latency_are_those_of_the_int8_file(run: Path) -> None:
    bench = json.loads((run / "bench.json").read_text())
    assert [one["precision"] for one in bench["runs"]] == ["fp32", "int8"]
    assert document_of(run)["result"]["latency"]["precision"] == "int8"
    quality = json.loads((run / "quality.json").read_text())
    assert quality["after_finetuning"]["psnr"] == pytest.approx(quality["psnr_to_original"], abs=6)


def test_the_report_and_the_page_name_both_parts_of_the_ratio(run: Path) -> None:
    report = (run / "report.html").read_text()
    assert "Size in int8, on disk" in report
    assert "Size in int8, in memory" in report
    assert "channels" in report.partition("Size in int8, on disk")[2][:80]
    result = document_of(run)["result"]
    console = Console(width=80, file=io.StringIO())
    console.print(page(result))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    disk = result["size"]["disk"]
    parts = f"{disk['channels']:.2f}x by channels, {disk['bits']:.2f}x by bits"
    assert f"the file is {disk['ratio']:.2f}x smaller: {parts}" in text
    assert "in memory it is" in text
    assert "ONNX file, int8" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "\u2026" not in text


def test_the_saved_network_rebuilds_what_was_exported(run: Path, command: Command, tmp_path: Path) -> None:
    network = load_network(run / "slim", image_size=(32, 32))
    assert (network.spec.quantization, network.spec.norm) == ("int8", "none")
    assert command("--quiet", "export", run, "--out", tmp_path / "again", "--set", "export.simplify=false").code == 0
    again, first = (onnx.load(folder / FILE) for folder in (tmp_path / "again", run))
    assert again.graph == first.graph


def equal_levels(result: dict[str, Any]) -> float:
    value: float = next(one for one in result["artifacts"] if one["path"] == FILE)["equal_levels"]
    return value


# --- every command on it ---


def test_inspect_shows_an_8_bit_network(run: Path, command: Command) -> None:
    document = command("inspect", run / FILE, "--json").document
    assert (document["quantization"], document["family"]) == ("int8", "resnet_1blocks")
    assert document["parameters"] == command("inspect", run / "slim", "--json").document["parameters"]
    shown = " ".join(command("inspect", run).out.split())
    assert "8-bit weights and activations" in shown
    assert " groups, on 8-bit grids" in shown  # no plan takes channels out of it any more
    assert "prunable" not in shown


def test_verify_compares_by_psnr_and_says_so(run: Path, command: Command, given: Path) -> None:
    ran = command("verify", run / "slim", run, "--images", given / "pictures", "--json")
    assert ran.code == 0, ran.err
    assert ran.err.startswith("note: 8-bit networks are compared by PSNR")
    assert (ran.document["min_psnr"], ran.document["atol"]) == (45.0, None)
    assert ran.document["psnr"] is None or ran.document["psnr"] >= 45


def test_translate_and_bench_run_it(run: Path, command: Command, given: Path, tmp_path: Path) -> None:
    assert command("translate", run, "--images", given / "pictures", "--out", tmp_path / "o").code == 0
    assert len(list((tmp_path / "o").glob("?.png"))) == 3
    few = ("--pairs", 2, "--set", "bench.processes=1", "--set", "bench.warmup_seconds=0.01")
    ran = command("--quiet", "bench", run, *few, "--json")
    assert [one["precision"] for one in ran.document["runs"]] == ["fp32", "int8"]
    assert ran.document["runs"][1]["macs_true"] == document_of(run)["result"]["compressed"]["macs_true"]


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("cartoon.pth", ("--set", "quantize.weights=tensor", "--set", "quantize.ranges=learned")),
        (
            "unet.pth",
            ("--set", "quantize.calibration=minmax", "--set", "distill.content=1", "--set", "distill.style=1"),
        ),
        ("unet.pth", ("--set", "quantize.floats=0.5")),
    ],
)
def test_every_family_is_quantized_by_every_method(
    given: Path, tmp_path: Path, model: str, more: tuple[str, ...]
) -> None:
    pairs = ("--data", given / "pairs", "--discriminator", given / "pair.pth") if model == "unet.pth" else ()
    run = compressed(given, tmp_path, "--model", given / model, "--method", "magnitude", *pairs, *more)
    network = load_network(run / "slim", image_size=(32, 32))
    assert network.spec.quantization == ("int8_tensor" if model == "cartoon.pth" else "int8")
    assert equal_levels(document_of(run)["result"]) >= 0.999


# --- GAN Slimming on grids, and the same parts one after the other ---


SLIMMING = ("--model", "cartoon.pth", "--method", "gan-slimming", "--set", "quantize.pictures=4")


def slimming(given: Path, folder: Path, *more: str) -> Path:
    return compressed(given, folder, *(given / word if word.endswith(".pth") else word for word in SLIMMING), *more)


@pytest.fixture(scope="module")
def joint(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return slimming(given, tmp_path_factory.mktemp("joint"))


@pytest.fixture(scope="module")
def stacked(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return slimming(given, tmp_path_factory.mktemp("stacked"), "--set", "gan_slimming.quantize=false")


def logged(run: Path, stage: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "logs/metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in ("step", "loss_g")} for line in lines if line["stage"] == stage]


def ranges(run: Path) -> dict[str, float]:
    state = load_network(run / "slim", image_size=(32, 32)).state_dict()
    return {key: value.item() for key, value in state.items() if key.endswith("input_log_scale")}


@pytest.mark.parametrize("name", ["joint", "stacked"])
def test_gan_slimming_in_8_bit_leaves_a_file_of_what_was_trained(name: str, request: pytest.FixtureRequest) -> None:
    run: Path = request.getfixturevalue(name)
    result = document_of(run)["result"]
    assert result["slimming"]["quantized"] is (name == "joint")
    assert 0.49 <= result["budget_met"] <= 0.5
    assert equal_levels(result) >= 0.999
    network = load_network(run / "slim", image_size=(32, 32))
    assert (network.spec.quantization, network.spec.norm) == ("int8", "instance_affine")
    assert len(logged(run, "prune")) == len(logged(run, "finetune")) == 8
    assert not (run / "work").exists()


def test_joint_and_stacked_differ_from_the_first_step_of_slimming(joint: Path, stacked: Path) -> None:
    assert logged(joint, "prune")[0] != logged(stacked, "prune")[0]
    assert ranges(joint) != ranges(stacked)  # found on the original, and on the slim network


@pytest.mark.slow
def test_ranges_are_learned_in_both_stages_where_they_are_asked_for(given: Path, joint: Path, tmp_path: Path) -> None:
    learned = slimming(given, tmp_path, "--set", "quantize.ranges=learned")
    assert logged(joint, "prune")[0] == logged(learned, "prune")[0]  # the ranges have not moved yet
    assert logged(joint, "prune")[-1] != logged(learned, "prune")[-1]
    fixed = ranges(joint)
    assert all(fixed[key] != value for key, value in ranges(learned).items())


# --- bad input ---


@pytest.mark.parametrize("word", ["4", "int8", ""])
def test_another_number_of_bits_is_a_usage_error(command: Command, given: Path, word: str) -> None:
    ran = command("compress", "--model", given / "generator.pth", "--budget", "0.5", "--quantize", word)
    assert ran.code == 2
    assert "--quantize" in ran.err


def test_what_is_quantized_already_is_not_compressed_again(command: Command, run: Path, tmp_path: Path) -> None:
    ran = command("compress", "--model", run / "slim", "--budget", "0.5", "--out", tmp_path / "o", *QUICK)
    assert ran.code == 1
    assert ran.err == (
        f"error: the generator '{run / 'slim'}' is quantized already, and only networks in floats are compressed\n"
        "hint: give the checkpoint that it was made from\n"
    )


def test_a_plan_is_not_applied_to_what_is_quantized(command: Command, run: Path, tmp_path: Path) -> None:
    ran = command("export", run, "--plan", run / "plan.json", "--out", tmp_path / "o")
    assert ran.code == 1
    assert ran.err == (
        "error: this network is quantized already, and channels are taken out of networks in floats\n"
        "hint: give the checkpoint that it was made from, or leave out --plan and --drop-zero-scales\n"
    )

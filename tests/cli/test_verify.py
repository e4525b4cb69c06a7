"""`mggc-edge verify`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from tests.cli.conftest import PEAK_KILOBYTES, SIZE, Command, random_network


def test_a_checkpoint_equals_its_export_and_takes_its_picture_size(command: Command, material: Path) -> None:
    original = material / "run/export/portable/original.fp32.onnx"
    ran = command("verify", material / "generator.pth", original, "--json")
    document = ran.document
    assert ran.code == 0
    assert {key: document[key] for key in ("schema", "passed", "identical", "images")} == {
        "schema": "mggc-edge/verify/1",
        "passed": True,
        "identical": False,
        "images": 4,
    }
    assert 0 < document["mean_abs"] <= document["max_abs"] <= 1e-4
    assert document["psnr"] > 80
    assert document["ssim"] > 0.9999


def test_a_network_equals_itself_with_psnr_null(command: Command, material: Path) -> None:
    document = command("verify", material / "run/slim", material / "run/slim", "--image-size", 32, "--json").document
    assert (document["identical"], document["psnr"], document["max_abs"]) == (True, None, 0.0)


def test_the_slim_generator_differs_from_the_original_with_exit_code_3(command: Command, material: Path) -> None:
    ran = command("verify", material / "generator.pth", material / "run", "--json")
    assert ran.code == 3
    assert ran.document["passed"] is False
    assert "does not equal" in ran.err


def test_min_psnr_replaces_the_largest_difference(command: Command, material: Path) -> None:
    pair = (material / "generator.pth", material / "run")
    assert command("verify", *pair, "--min-psnr", 1).code == 0
    assert command("verify", *pair, "--min-psnr", 99).code == 3
    assert command("verify", *pair, "--min-psnr", 1, "--atol", 1e-4).code == 3


def test_pictures_of_a_folder_are_compared_on(command: Command, material: Path) -> None:
    ran = command("verify", material / "run/slim", material / "run", "--images", material / "pictures", "--json")
    assert (ran.code, ran.document["images"]) == (0, 3)


def test_batch_norm_per_picture_is_what_verify_compares_with(command: Command, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Network(resnet_spec(blocks=1, ngf=8, norm="batch"))
    with torch.no_grad():
        network(torch.rand(4, 3, 32, 32) * 2 - 1)  # running statistics unlike those of one picture
    torch.save(network.state_dict(), tmp_path / "bn.pth")
    words = ("--bn", "batch", "--image-size", 32, "--out", tmp_path / "run")
    assert command("export", tmp_path / "bn.pth", *words).code == 0
    pair = (tmp_path / "bn.pth", tmp_path / "run")
    ran = command("verify", *pair)
    assert (ran.code, ran.err) == (0, "note: batch norm is taken per picture, as the exported file has it\n")
    assert command("verify", *pair, "--bn", "eval").code == 3


def test_a_batch_norm_mode_that_neither_of_two_files_was_exported_with_is_refused(
    command: Command, material: Path
) -> None:
    ran = command("verify", material / "run", material / "run", "--bn", "batch")
    assert (ran.code, ran.out) == (1, "")
    assert "were exported with batch norm taken as eval; --bn batch is for checkpoints" in ran.err
    assert command("verify", material / "run", material / "run", "--bn", "eval").code == 0


def test_an_ort_file_equals_the_onnx_file_it_was_made_from(command: Command, material: Path, tmp_path: Path) -> None:
    import onnxruntime

    source = material / "run/export/portable/generator.fp32.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "generator.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    assert command("verify", source, tmp_path / "generator.ort").code == 0


def test_artifacts_for_other_picture_sizes_are_not_compared(command: Command, material: Path, tmp_path: Path) -> None:
    assert command("export", material / "generator.pth", "--image-size", 64, "--out", tmp_path / "run").code == 0
    ran = command("verify", material / "run", tmp_path / "run")
    assert ran.code == 1
    assert "takes pictures of 64x64, not of 32x32" in ran.err


def test_the_statistics_that_an_export_was_made_with_are_taken_over(command: Command, tmp_path: Path) -> None:
    state = random_network().state_dict()
    for index, width in ((2, 8), (5, 16), (8, 32), (13, 16), (16, 8)):
        state[f"model.{index}.running_mean"] = torch.full((width,), 0.1)
        state[f"model.{index}.running_var"] = torch.ones(width)
    for block in (10, 11):
        for conv in (2, 6):
            state[f"model.{block}.conv_block.{conv}.running_mean"] = torch.zeros(32)
            state[f"model.{block}.conv_block.{conv}.running_var"] = torch.ones(32)
    torch.save(state, tmp_path / "old.pth")
    words = ("--image-size", 32, "--norm-stats", "running", "--out", tmp_path / "run")
    assert command("export", tmp_path / "old.pth", *words).code == 0
    assert command("verify", tmp_path / "old.pth", tmp_path / "run").code == 0
    assert command("verify", tmp_path / "old.pth", tmp_path / "run", "--norm-stats", "instance").code == 3


def test_pictures_of_a_single_colour_are_left_out_and_counted(command: Command, material: Path, tmp_path: Path) -> None:
    for name, color in (("black", 0), ("grey", 127)):
        Image.new("RGB", (40, 40), (color,) * 3).save(tmp_path / f"{name}.png")
    Image.new("RGB", (1, 1), "red").save(tmp_path / "pixel.png")
    pair = (material / "run/slim", material / "run")
    alone = command("verify", *pair, "--images", tmp_path)
    assert (alone.code, "there is no picture to compare with" in alone.err) == (1, True)
    shutil.copy(material / "pictures/a.png", tmp_path / "a.png")
    ran = command("verify", *pair, "--images", tmp_path, "--json")
    assert (ran.code, ran.document["images"]) == (0, 1)
    assert "note: 3 pictures of a single colour were left out" in ran.err


def test_the_picture_with_the_largest_difference_is_named(command: Command, material: Path) -> None:
    ran = command("verify", material / "generator.pth", material / "run", "--images", material / "pictures")
    assert ran.code == 3
    assert "note: the largest difference is at '" in ran.err


@pytest.mark.parametrize("flags", [("--min-psnr", "nan"), ("--min-psnr", "inf"), ("--atol", "nan"), ("--atol", "-1")])
def test_limits_that_are_no_numbers_are_usage_errors(command: Command, material: Path, flags: tuple[str, str]) -> None:
    assert command("verify", material / "run", material / "run", *flags).code == 2


def test_pictures_are_streamed_and_take_no_memory_by_their_number(material: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for index in range(300):
        noise = generator.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(np.kron(noise, np.ones((8, 8, 1), np.uint8))).save(tmp_path / f"{index}.png")
    program = f"import sys; from mggc_edge.cli.main import run; code = run(sys.argv[1:]); print(code, {PEAK_KILOBYTES})"

    def peak_kilobytes(folder: Path) -> int:
        words = ["--quiet", "verify", str(material / "run"), str(material / "run"), "--images", str(folder)]
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
        code, peak = done.stdout.splitlines()[-1].split()
        assert code == "0"
        return int(peak)

    few = tmp_path / "few"
    few.mkdir()
    for index in range(10):
        shutil.copy(tmp_path / f"{index}.png", few)
    # 300 pictures of 256 x 256 are 236 MB as float32 and 59 MB as bytes.
    assert peak_kilobytes(tmp_path) - peak_kilobytes(few) < 20_000

"""Files of bytes on the command line: exported, translated with, verified, measured and looked at."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mggc_edge.cli.main import run as program
from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from tests.cli.conftest import Command
from tests.compiler.test_camera import foreign

FILE = "export/portable/generator.fp32.onnx"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cartoon.pth, whose pictures are BGR; float/ and uint8/, exported of it at 32x48; and pictures/."""
    folder = tmp_path_factory.mktemp("camera")
    torch.manual_seed(0)
    torch.save(Network(cartoongan_spec(blocks=1, ngf=4)).state_dict(), folder / "cartoon.pth")
    for io in ("float", "uint8"):
        words = (
            "--quiet", "export", folder / "cartoon.pth", "--image-size", "32x48", "--io", io, "--out", folder / io,
            "--set", "export.simplify=false", "--json", "--output", folder / f"{io}.json",
        )  # fmt: skip
        assert program([str(word) for word in words]) == 0
    (folder / "pictures").mkdir()
    generator = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(generator.integers(0, 256, (32, 48, 3), dtype=np.uint8)).save(folder / "pictures" / name)
    return folder


def test_the_document_and_the_manifest_say_what_goes_in_and_comes_out(runs: Path) -> None:
    artifacts = {io: json.loads((runs / f"{io}.json").read_text())["artifacts"][0] for io in ("float", "uint8")}
    assert (artifacts["float"]["io"], artifacts["float"]["picture_parity"]) == ("float", None)
    found = artifacts["uint8"]["picture_parity"]
    assert (artifacts["uint8"]["io"], found["passed"], found["atol"], found["images"]) == ("uint8", True, 1.0, 2)
    assert artifacts["uint8"]["parity"] == artifacts["float"]["parity"]
    manifest = json.loads((runs / "uint8/manifest.json").read_text())
    assert manifest["settings"]["io"] == "uint8"
    (entry,) = [entry for entry in manifest["files"] if entry["path"] == FILE]
    assert entry["inputs"] == [{"name": "input", "dtype": "uint8", "shape": [1, 32, 48, 3]}]


def test_both_files_translate_to_the_same_pictures(command: Command, runs: Path, tmp_path: Path) -> None:
    for io in ("float", "uint8"):
        ran = command("translate", runs / io, "--images", runs / "pictures", "--out", tmp_path / io, "--json")
        assert (ran.code, ran.document["image_size"]) == (0, [32, 48])
    for name in ("a.png", "b.png"):
        a, b = (np.asarray(Image.open(tmp_path / io / name)).astype(int) for io in ("float", "uint8"))
        assert np.abs(a - b).max() <= 1
        assert a.std() > 5
        assert np.abs(a - a[..., ::-1]).max() > 1  # so that the order of colours shows
    sheets = [np.asarray(Image.open(tmp_path / io / "contact-sheet.png")).shape for io in ("float", "uint8")]
    assert sheets[0] == sheets[1]


@pytest.mark.parametrize("pair", [("float", "uint8"), ("uint8", "float"), ("cartoon.pth", "uint8"), ("uint8", "uint8")])
def test_files_of_bytes_are_compared_as_pictures(command: Command, runs: Path, pair: tuple[str, str]) -> None:
    ran = command("verify", *(runs / name for name in pair), "--json")
    assert ran.code == 0
    assert (ran.document["passed"], ran.document["atol"], ran.document["images"]) == (True, 1.0, 4)
    assert ran.document["max_abs"] in (0.0, 1.0)
    assert "note: pictures of bytes are compared: differences are in levels of 255" in ran.err


def test_another_network_does_not_pass_and_what_was_asked_for_is_checked(command: Command, runs: Path) -> None:
    torch.manual_seed(1)
    torch.save(Network(cartoongan_spec(blocks=1, ngf=4)).state_dict(), runs / "other.pth")
    ran = command("verify", runs / "other.pth", runs / "uint8", "--images", runs / "pictures", "--json")
    assert (ran.code, ran.document["passed"]) == (3, False)
    assert ran.document["max_abs"] > 10
    assert command("verify", runs / "other.pth", runs / "uint8", "--min-psnr", 1).code == 0
    assert command("verify", runs / "other.pth", runs / "uint8", "--atol", 255).code == 0


def test_inspect_shows_the_network_and_that_it_takes_bytes(command: Command, runs: Path) -> None:
    ran = command("inspect", runs / "uint8")
    assert "opset 20, 1 x 32 x 48 x 3 -> 1 x 32 x 48 x 3 bytes\n" in ran.out
    document, other = (command("inspect", runs / io, "--json").document for io in ("uint8", "float"))
    assert (document["image_size"], document["metadata"]["io"]) == ([32, 48], "uint8")
    for key in ("family", "macs_true", "macs_paper", "macs_executed", "parameters", "layers"):
        assert document[key] == other[key], key


def test_bench_feeds_bytes(command: Command, runs: Path) -> None:
    words = ("--pairs", 1, "--threads", 1, "--set", "bench.warmup_seconds=0.01", "--set", "bench.processes=1")
    ran = command("bench", runs / "float" / FILE, runs / "uint8" / FILE, *words, "--json")
    inputs = [entry["inputs"][0] for entry in ran.document["runs"]]
    assert [(entry["dtype"], entry["shape"]) for entry in inputs] == [
        ("float32", [1, 3, 32, 48]), ("uint8", [1, 32, 48, 3]),
    ]  # fmt: skip
    assert len({entry["macs_true"] for entry in ran.document["runs"]}) == 1


def test_a_discriminator_has_no_pictures_to_give(command: Command, tmp_path: Path) -> None:
    torch.save(Network(patchgan_spec(ndf=4)).state_dict(), tmp_path / "d.pth")
    ran = command("export", tmp_path / "d.pth", "--io", "uint8", "--out", tmp_path / "run")
    assert (ran.code, ran.err.splitlines()[-1]) == (
        1, "error: this is a discriminator, and only generators are exported and run",
    )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_another_kind_of_io_is_a_usage_error(command: Command, runs: Path) -> None:
    assert command("export", runs / "cartoon.pth", "--io", "int16").code == 2


def test_a_file_from_elsewhere_needs_its_range(command: Command, tmp_path: Path) -> None:
    source = foreign(tmp_path / "g.onnx")
    ran = command("export", source, "--io", "uint8", "--out", tmp_path / "run")
    assert (ran.code, (tmp_path / "run").exists()) == (1, False)
    assert ran.err.startswith(f"error: '{source}' does not say which values black and white have")
    said = ("--set", "export.picture_range=-1,1", "--out", tmp_path / "run")
    ran = command("export", source, "--io", "uint8", *said)
    assert ran.code == 0
    assert "generator.fp32.onnx takes and gives bytes; its pictures are" in ran.out
    assert command("verify", source, tmp_path / "run").code == 0
    assert command("export", source, "--io", "uint8", "--set", "export.picture_range=black").code == 2
